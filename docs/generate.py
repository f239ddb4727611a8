"""Write the pages that follow the code (``configuration.md``, ``scores.md``, ``modules.md``) and the last soak (``soak.md``).

python docs/generate.py [--check] [soak=outputs/soak]

``--check`` only says whether they are up to date; ``soak=`` takes the figures of ``make soak`` into ``soak.json`` first.
"""

import ast
import json
import sys
import typing
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

import histo_lightning
import histo_lightning.evaluation as evaluation
from histo_lightning.config.help import commented_keys
from histo_lightning.config.schema import SCHEMAS
from histo_lightning.config.tree import conf_dir

DOCS = Path(__file__).resolve().parent
COMMANDS = (
    "train",
    "evaluate",
    "predict",
    "compare",
    "report",
    "prepare",
    "audit",
    "export",
    "tune",
    "benchmark",
)
GROUPS = (
    ("model", "The network. All options take the keys of the first table."),
    ("head", "What turns features into logits."),
    ("optimizer", "Built from `_target_`; any optimizer of torch is allowed."),
    ("scheduler", "The learning rate over time; built from `_target_`."),
    ("magnification", "Which images."),
    ("dataset", "Where the images come from."),
    ("split", "Which images train, validate and test."),
    ("augment", "What is done to training images."),
    ("trainer", "Where and how fast; any argument of Lightning's Trainer too."),
    ("callbacks", "What watches or steers a fit; each entry is built from `_target_`."),
    ("logger", "Where curves go beside the run's own files; each entry is built from `_target_`."),
    ("debug", "Short runs, marked SHORTENED and never compared."),
    ("experiment", "Several settings under one name; a sweep where the file says so."),
    ("hydra/launcher", "How the jobs of a sweep are started."),
    ("tune", "What `tune` searches over."),
)


def documented(schema: type, prefix: str = "") -> dict[str, tuple[str, str]]:
    """Type and allowed values of every key of a schema, by dotted key."""
    hints = typing.get_type_hints(schema)
    found: dict[str, tuple[str, str]] = {}
    for field in fields(schema):
        hint, meta = hints[field.name], field.metadata
        if is_dataclass(hint):
            found |= documented(typing.cast(type, hint), f"{prefix}{field.name}.")
            continue
        kind = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
        found[f"{prefix}{field.name}"] = (
            kind.replace("NoneType", "null").replace("None", "null"),
            allowed(meta),
        )
    return found


def allowed(meta: Any) -> str:
    """What a field's metadata allows, in words."""
    if "choices" in meta:
        return ", ".join(meta["choices"])
    if "items" in meta:
        return "any of " + ", ".join(meta["items"])
    if "pair" in meta:
        return "two numbers, {} to {}".format(*meta["pair"])
    if "low" in meta or "high" in meta:
        return f"{meta.get('low', '')} to {meta.get('high', '')}"
    return ""


def table(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def key_table(path: Path, prefix: str, schema: dict[str, tuple[str, str]]) -> list[str]:
    """The table of a config file's keys; empty where it has none."""
    rows = []
    for text, comment in commented_keys(path):
        key, _, default = text.partition("=")
        if key.startswith(("override", "- ")):
            continue
        if not default and prefix + key not in schema:  # the heading of a nested group
            continue
        kind, values = schema.get(prefix + key, ("", ""))
        type_and_values = f"{code(kind)}: {values}" if kind and values else code(kind)
        rows.append((code(prefix + key), type_and_values, code(default), comment))
    return ["", *table(rows, ("key", "type", "default", "meaning")), ""] if rows else [""]


def first_comment(path: Path) -> str:
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and "@package" not in line:
            lines.append(line.lstrip("# "))
        elif not line.startswith("#"):
            break
    return " ".join(lines)


def configuration() -> Iterator[str]:
    """The lines of configuration.md."""
    schema = documented(SCHEMAS["train"]) | documented(SCHEMAS["tune"])
    yield "# Configuration"
    yield ""
    yield "Every key and every option that ships, written from `conf/` and the schema by `docs/generate.py`. On the command line a key is"
    yield "`key=value`, an option `group=option`; `--help` prints the same."
    for command in COMMANDS:
        path = conf_dir() / f"{command}.yaml"
        yield f"\n## `{command}`\n"
        yield first_comment(path)
        yield from key_table(path, "", documented(SCHEMAS[command]))
    for group, about in GROUPS:
        yield f"\n## Group `{group}`\n"
        yield about + "\n"
        files = sorted((conf_dir() / group).glob("*.yaml"))
        yield from table(
            [
                (code(f"{group}={path.stem}"), first_comment(path))
                for path in files
                if not path.stem.startswith("_")
            ],
            ("option", "what it is"),
        )
        for path in files:
            content = path.read_text(encoding="utf-8")
            prefix = "" if "@package _global_" in content else f"{group.replace('/', '.')}."
            rows = key_table(path, prefix, schema)
            if len(rows) > 1 and yaml.safe_load(content):
                yield f"\n**{'every option' if path.stem.startswith('_') else f'`{group}={path.stem}`'}**"
                yield from rows


def scores() -> Iterator[str]:
    """The lines of scores.md."""
    yield "# Scores"
    yield ""
    yield "Every score of `metrics.json`, written from the registry by `docs/generate.py`. A score of your own appears beside these:"
    yield "see [your own parts](extend.md). How intervals are made is in [statistics](statistics.md) and at the end of this page."
    for task, title in (("binary", "Benign against malignant"), ("subtype", "Eight subtypes")):
        yield f"\n## {title}\n"
        yield from table(
            [
                (
                    code(score.name),
                    f"{score.meaning} Formula: {score.formula}.",
                    ", ".join(score.levels),
                    score.better or "neither",
                    f"none: {score.no_interval}"
                    if score.no_interval
                    else f"{score.case_interval}"
                    + (" (case); expanded BCa (others)" if "BCa" not in score.case_interval else ""),
                )
                for score in evaluation.all_scores(task)
            ],
            ("name", "meaning and formula", "levels", "better", "95 % interval"),
        )
    yield ""
    yield "## Intervals"
    yield ""
    yield "Cases are drawn again within each class, with all their images (2,000 draws); the expanded, bias-corrected and accelerated"
    yield "bootstrap (Hesterberg 2015) widens the percentiles for few cases. Shares of cases have Wilson intervals, balanced accuracy that of"
    yield "two Wilson intervals (MOVER), differences of shares Newcombe's method 5. Where a class has fewer than five cases an interval that averages"
    yield "classes is left out, and the reason is given. An interval covers other cases from the same source, not other training runs."


def modules() -> Iterator[str]:
    """The lines of modules.md."""
    source = Path(histo_lightning.__file__).resolve().parent
    yield "# Module by module"
    yield ""
    yield "The first line of every module, written from the code by `docs/generate.py`. [For developers](developers.md) says how the rooms"
    yield "depend on one another."
    rooms: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        room = rooms.setdefault(parts[0] if len(parts) > 1 else "", [])
        name = ".".join(parts[1:] if len(parts) > 1 else parts).removesuffix(".__init__")
        room.append((code(name) if name != "__init__" else "", text.partition("\n")[0].replace(":mod:", "")))
    for room, rows in rooms.items():
        about = [text for name, text in rows if not name]
        yield f"\n## {code(room) if room else 'The commands'}\n"
        if about:
            yield about[0] + "\n"
        yield from table([row for row in rows if row[0]], ("module", "what it is"))


def read_soak(folder: Path) -> dict[str, Any]:
    """The figures of ``make soak`` that the page shows."""
    kills, damage, sweep = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("kills", "damage", "sweep")
    )
    processes: dict[str, dict[str, int]] = {}
    for one in json.loads((folder / "processes.json").read_text()):
        counts = processes.setdefault(
            one["kind"], dict.fromkeys(("first", "other", "job", "none", "differing"), 0)
        )
        counts[one["killed"] or "none"] += 1
        counts["differing"] += bool(one["differences"])
    outcomes = Counter((one["kind"], one["outcome"]) for one in damage)
    kinds = {
        kind: {o: n for (k, o), n in sorted(outcomes.items()) if k == kind} for kind, _ in sorted(outcomes)
    }
    return {
        "kills": {name: kills[name] for name in ("trials", "kills", "differing", "kills_by_moment")},
        "damage": kinds,
        "sweep": {name: sweep[name] for name in ("trials", "finished", "growth")},
        "processes": processes,
    }


def soak() -> Iterator[str]:
    """What the last ``make soak`` tried, and how it ended."""
    last = json.loads((DOCS / "soak.json").read_text())
    kills, damage, sweep = (last[name] for name in ("kills", "damage", "sweep"))
    yield "# The last soak\n"
    yield "Written by `make soak`, from its own figures. What each trial means is in [reliability.md](reliability.md).\n"
    yield "## Kills\n"
    yield (
        f"{kills['trials']} runs were killed {kills['kills']} times with SIGKILL and started again with the same command; "
        f"{kills['differing']} ended in another tensor, score, prediction, count of readings or file than a run that was left alone.\n"
    )
    yield from table(
        [(f"`{name}`", str(count)) for name, count in kills["kills_by_moment"].items()], ("moment", "kills")
    )
    yield "\n## Damage\n"
    yield (
        "One file of a run, a sweep or a resumed run is damaged, then a command that reads it is started. *said*: a line that names the "
        "file, or a repair that says so; *refused*: exit status 2; *harmless*: the command does not use the file, and its output is that of "
        "an undamaged folder; *silent* and *defect* would be failures.\n"
    )
    names = sorted({outcome for counts in damage.values() for outcome in counts})
    rows = [(kind, *(str(counts.get(name, 0)) for name in names)) for kind, counts in damage.items()]
    yield from table(rows, ("damage", *names))
    yield "\n## One of several processes\n"
    yield (
        "A command of several processes is started, one of them is killed at a random time, and the same command is started again: "
        "*first*: the command itself, *other*: the second process of its run, or one that draws pictures, *job*: a process that works on a job of its sweep, "
        "*none*: it had ended before; *differing*: something was not as in one that was left alone.\n"
    )
    names = ["first", "other", "job", "none", "differing"]
    rows = [(kind, *(str(counts[name]) for name in names)) for kind, counts in last["processes"].items()]
    yield from table(rows, ("command", *names))
    yield "\n## One long sweep\n"
    growth = ", ".join(
        f"{value:g} {name.replace('memory_mib', 'MiB of memory')}" for name, value in sweep["growth"].items()
    )
    yield f"{sweep['finished']} of {sweep['trials']} runs finished in one process; from its first runs to its last it grew by {growth}."


PAGES = {"configuration.md": configuration, "scores.md": scores, "modules.md": modules, "soak.md": soak}


def main() -> int:
    """Write the pages, or with ``--check`` say which differ; exit status 1 where one does."""
    stale = []
    for argument in sys.argv[1:]:
        if argument.startswith("soak="):
            figures = read_soak(Path(argument.removeprefix("soak=")))
            (DOCS / "soak.json").write_text(json.dumps(figures, indent=1) + "\n")
    for name, lines in PAGES.items():
        text = "\n".join(lines()).strip() + "\n"
        path = DOCS / name
        if "--check" in sys.argv:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"{', '.join(stale)}: not what the code says; run python docs/generate.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())

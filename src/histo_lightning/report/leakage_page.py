"""``leakage.html`` and ``leakage.md``: the leakage study's answer, its tables, and what is missing."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from histo_lightning.report.leakage_words import COVERS, NAMES, points
from histo_lightning.report.page import page, paragraph, picture, section
from histo_lightning.report.words import SHUFFLED, fixed
from histo_lightning.runs import write_atomic

Json = Mapping[str, Any]
TITLE = "Leakage study"
COLUMNS = NAMES
BASIS = "images, cases (benign), seeds"
COUNTED = "Counted in each run's split.json, by the true classes, means over the runs."
BLOCKS = {
    "injection": (
        "B: siblings injected into training",
        "The causal arm. In every arm of a fold the same probe is tested, and training has as many cases and images of each "
        "class; a share of the tested slides' other images replaces images of other cases.",
    ),
    "contrast": (
        "A: three ways to split",
        "Descriptive: the same images, tested out of fold. The training parts are not of one size, and slide_kfold keeps "
        "siblings that validation must not hold.",
    ),
    "official": (
        "C: the authors' folds",
        "As they are, with shared cases dropped from training (clean), and as small as clean by dropping what test does not "
        "share (matched). Touched images are those whose case training holds too. Untouched ones should differ little.",
    ),
}
Table = tuple[list[str], list[list[str]]]


def _score(score: Json, signed: bool) -> str:
    """``.834 (.801 to .862)``, or a difference in points; why there is none."""
    if score["value"] is None:
        return f"undefined: {score['reason']}"
    show = points if signed else fixed
    if score["low"] is None:
        return f"{show(score['value'])} (no interval: {score['reason']})"
    return f"{show(score['value'])} ({show(score['low'])} to {show(score['high'])})"


def _p(score: Json) -> str:
    return "" if score.get("p_holm") is None else f"{score['p_holm']:.3f}"


def arms_table(block: Json) -> Table:
    """Scores of each arm."""
    rows = [
        [
            _arm(r),
            r["among"],
            *(_score(r[s], r["among"] == "touched minus untouched") for s in COLUMNS),
            _basis(r),
        ]
        for r in block["arms"]
    ]
    return ["arm", "on", *(f"image {name}" for name in COLUMNS.values()), BASIS], rows


def pairs_table(block: Json) -> Table:
    """Differences in points, with Holm's p for AUROC."""
    rows = [
        [
            f"{r['arm']} minus {r['reference']}",
            r["among"],
            *(_score(r[s], True) for s in COLUMNS),
            _p(r["auroc"]),
            _basis(r),
        ]
        for r in block["pairs"]
    ]
    heads = [f"image {name}, points" for name in COLUMNS.values()]
    return ["difference", "on", *heads, "p (AUROC, Holm)", BASIS], rows


def _arm(record: Json) -> str:
    return str(record["arm"])


def _basis(record: Json) -> str:
    score, left = record["auroc"], record["coverage"]["runs_left_out"]
    text = f"{score['images']}, {score['cases']} ({score['benign']}), {score['seeds']}"
    return text + (f"; finished runs without a counterpart left out: {left}" if left else "")


def design_table(found: Json) -> Table:
    """What each arm trained and tested on, means over its runs."""
    heads = [
        "arm",
        "runs",
        "label",
        "train images (benign / malignant)",
        "train cases (benign / malignant)",
        "test images",
    ]
    rows = [
        [
            f"{d['arm']}{f', {SHUFFLED}' if d['shuffled'] else ''}",
            str(d["runs"]),
            d["label"] or "none",
            f"{d['benign images']:.1f} / {d['malignant images']:.1f}",
            f"{d['benign cases']:.1f} / {d['malignant cases']:.1f}",
            f"{d['test images']:.1f}",
        ]
        for d in found["design"]
    ]
    return heads, rows


def _doses(found: Json) -> list[str]:
    return [
        f"{name}: {dose['images']:.1f} siblings a fold in training, {100 * dose['share']:.0f} % of a pool of "
        f"{dose['pool']:.1f}, beside a probe of {dose['probe']:.1f}."
        for name, dose in found["doses"].items()
    ]


def _settings(found: Json) -> str:
    recipe = ", ".join(f"{key}={value}" for key, value in found["recipe"].items())
    magnifications = ", ".join(f"{m}X" if m else "all" for m in found["magnifications"])
    return f"{found['runs']} finished runs; magnification {magnifications}; seeds {', '.join(map(str, found['seeds']))}; {recipe}."


def markdown_text(found: Json) -> str:
    """The whole study as Markdown."""
    lines = [f"# {TITLE}", "", _settings(found), ""]
    for sentence in found["words"].values():
        lines += [f"- {sentence}"]
    lines += ["", COVERS, "", "![Leakage study](leakage.png)", ""]
    for heading, told, block in _sections(found):
        lines += [f"## {heading}", "", told, ""]
        for heads, rows in (arms_table(block), pairs_table(block)):
            lines += [*_markdown(heads, rows), ""] if rows else []
        if heading.startswith("B:"):
            lines += [*(f"- {line}" for line in _doses(found)), ""]
    lines += ["## What the arms trained and tested on", "", COUNTED, "", *_markdown(*design_table(found)), ""]
    lines += ["## What is missing", ""]
    lines += [f"- {text}" for text in found["problems"]]
    lines += [f"- {m['run']}: {m['why']}" for m in found["missing"]]
    if not found["problems"] and not found["missing"]:
        lines.append("Nothing: every run of the study is there.")
    return "\n".join(lines) + "\n"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in cells) + " |"

    return [line(heads), "|" + " --- |" * len(heads), *map(line, rows)]


def _sections(found: Json) -> list[tuple[str, str, Json]]:
    """Heading, explanation and block of each part that has runs; the control's are marked."""
    parts = [
        (heading, told, found["blocks"][name])
        for name, (heading, told) in BLOCKS.items()
        if (found["blocks"].get(name) or {}).get("arms")
    ]
    for name in ("injection", "contrast"):
        if found["control"][name]["arms"]:
            heading = f"Control, {SHUFFLED}: {BLOCKS[name][0]}"
            told = (
                "No result. The classes were shuffled among the cases, so there is nothing to learn about tissue: an arm "
                "without shared cases should be near 0.50, and what a leaky arm has above it is memory of cases."
            )
            parts.append((heading, told, found["control"][name]))
    return parts


def write_page(found: Json, folder: Path) -> Path:
    """Write ``leakage.html``; ``leakage.png`` in the folder goes into it.

    Raises:
        UserError: the file cannot be written.
    """
    words = found["words"]
    headline = words.get("injection") or next(iter(words.values()), "No two arms could be compared.")
    others = "".join(paragraph(text) for name, text in words.items() if text != headline)
    header = (
        f'<header><h1>{TITLE}</h1><span class="small">{escape(_settings(found))}</span>'
        f'<p class="lead">{escape(headline)}</p>{others}{paragraph(COVERS, "small")}</header>'
    )
    shown = picture(
        folder / "leakage.png", "Image scores by share of siblings in training, split and official fold"
    )
    if 'class="wide"' in shown:  # three panels need more room than a run's pictures have
        shown = shown.replace("<img ", '<img style="max-width: none; min-width: 860px" ', 1)
    drawn = section("Picture", shown)
    body = [header, _absent(found), drawn]
    for heading, told, block in _sections(found):
        mark = paragraph(SHUFFLED, "label") if SHUFFLED in heading else ""
        tables = "".join(
            f"<h3>{title}</h3>{_html(*t)}"
            for title, t in (("Scores", arms_table(block)), ("Differences", pairs_table(block)))
            if t[1]
        )
        doses = (
            "".join(paragraph(line, "small") for line in _doses(found)) if heading.startswith("B:") else ""
        )
        body.append(section(heading, mark + paragraph(told) + tables + doses))
    design = paragraph(COUNTED, "small")
    body.append(section("What the arms trained and tested on", design + _html(*design_table(found))))
    path = folder / "leakage.html"
    write_atomic(path, page(TITLE, "\n".join(body)).encode("utf-8", errors="replace"))
    return path


def _absent(found: Json) -> str:
    if not found["problems"] and not found["missing"]:
        return ""
    told = "".join(paragraph(text, "label") for text in found["problems"])
    count = len(found["missing"])
    if count:
        items = "".join(f"<li>{escape(m['run'])}: {escape(m['why'])}</li>" for m in found["missing"])
        told += paragraph(f"Runs missing or left out: {count}. The tables say what each figure rests on.")
        told += f"<details><summary>Which, and why</summary><ul>{items}</ul></details>"
    return section("What is missing", told)


def _html(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(_cell(c) for c in rest)}</tr>'
        for first, *rest in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cell(text: str) -> str:
    """A cell; what stands in brackets goes to a line of its own, smaller."""
    value, bracket, rest = text.partition(" (")
    if (
        not bracket
        or not rest.endswith(")")
        or not value.lstrip("+\N{MINUS SIGN}").replace(".", "").isdigit()
    ):
        return f"<td>{escape(text)}</td>"
    return f'<td><b>{escape(value)}</b><span class="interval">{escape(rest[:-1])}</span></td>'

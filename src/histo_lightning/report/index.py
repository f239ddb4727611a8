"""One page that lists every run, sweep, study and evaluation below a folder: ``index.html``, sortable, searchable, offline."""

import base64
import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from histo_lightning.errors import UserError
from histo_lightning.report.pages import write_page
from histo_lightning.report.words import labels_of, level_scores
from histo_lightning.runs import RunFolder, read_json
from histo_lightning.runs.manifest import damaged

# What a folder is listed as, by the folder that holds it; and its page.
KINDS = {"evaluations": "evaluation", "comparisons": "comparison", "datasets": "data set"}
KINDS |= {"predictions": "predictions", "exports": "export"}
UNKNOWN = {"title": "", "state": "", "started": "", "scores": {}, "labels": ""}
PAGES = {"predictions": "index.html", "export": "metadata.json"}


def entries(root: Path) -> Iterator[dict[str, Any]]:
    """What is below a folder, in the order of the folders, damaged or not; ``link`` is empty where there is no page yet."""
    for here, folders, names in os.walk(root):
        folder = Path(here)
        kind = KINDS.get(folder.parent.name, "")
        if "study.json" in names or "study.db" in names:
            kind = "study"
        elif ("config.yaml" in names and "split.json" in names) or "status.json" in names:
            kind = "run"
        elif "sweep.json" in names:
            kind = "sweep"
        closed, page = kind not in ("", "sweep"), PAGES.get(kind, "report.html")
        folders[:] = [] if closed else sorted(name for name in folders if not name.startswith("."))
        if kind:
            link = (folder / page).relative_to(root).as_posix() if page in names else ""
            entry: dict[str, Any] = {"kind": kind, "name": folder.name, "link": link, **UNKNOWN}
            try:
                for name, problem in damaged(folder, hashes=False).items():
                    raise UserError(f"{name}: is damaged ({problem})")
                entry |= _facts(kind, folder)
            except UserError as error:
                entry |= {"state": "damaged", "title": str(error)}
            yield entry


def _facts(kind: str, folder: Path) -> dict[str, Any]:
    if kind not in ("run", "evaluation"):
        return {}
    metrics, status = read_json(folder / "metrics.json"), read_json(folder / "status.json")
    parts, label = (metrics, "split") if kind == "run" else ({"test": metrics.get("scores")}, "label")
    return {
        "scores": dict(level_scores(parts, "test", "case")),
        "labels": ", ".join(labels_of(metrics, str(metrics.get(label) or ""))),
        "title": str(metrics.get("title") or "") if kind == "run" else "",
        "state": RunFolder(folder).state if kind == "run" else "",
        "started": str(status.get("started") or "")[:16].replace("T", " "),
    }


def write_index(root: Path) -> Path | None:
    """Write ``index.html`` into a folder, None where there is nothing to list; UserError where it cannot be written."""
    if not (rows := list(entries(root))):
        return None
    script = (files("histo_lightning.report") / "templates" / "index.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return write_page(root / "index.html", "index.html", entries=rows, script=script, digest=digest)


def refresh_index(root: Path) -> None:
    """The index after a command; a folder that cannot be written has been reported by the command itself."""
    with suppress(UserError, OSError):
        write_index(root)

"""Split files as people keep them: a CSV ``path,part``, or a ``split.json`` of ours."""

import csv
import json
from pathlib import Path

from histo_lightning.errors import UserError

PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


def read_parts(path: str | Path) -> dict[str, list[str]]:
    """Image file names by part.

    Raises:
        UserError: no such file, not readable as CSV or JSON, missing columns, an unknown part, a name listed twice.
    """
    file = Path(path).expanduser()
    if not str(path):
        raise UserError(
            "split.path is not set: split=file needs a CSV with the columns path,part, or a split.json"
        )
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"split.path={file}: cannot be read ({error}); give a CSV path,part or a split.json"
        ) from error
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for row, (image, part) in enumerate(_rows(file, text), start=2):
        if part.strip().lower() not in PART_NAMES:
            raise UserError(f"{file}, row {row}: unknown part {part!r}; the parts are train, val and test")
        parts[PART_NAMES[part.strip().lower()]].append(image.replace("\\", "/").rsplit("/", 1)[-1])
    for part, names in parts.items():
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{file}: {twice} is listed twice in {part}; list each image once")
    return parts


def _rows(file: Path, text: str) -> list[tuple[str, str]]:
    if file.suffix.lower() == ".json":
        try:
            parts = json.loads(text)["parts"]
            return [(str(image), part) for part, images in parts.items() for image in images]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{file}: not a split.json of ours (no 'parts'); give one, or a CSV path,part"
            ) from error
    reader = csv.DictReader(text.splitlines())
    if not {"path", "part"} <= set(reader.fieldnames or ()):
        raise UserError(
            f"{file}: the first line must name the columns path and part; it reads {reader.fieldnames}"
        )
    return [(row["path"] or "", row["part"] or "") for row in reader]

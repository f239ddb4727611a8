"""Split files row by row: ``split.json``, CSV with a header, and the authors' ``image.png|100|1|train``."""

import csv
import json
from collections.abc import Iterable, Iterator
from io import StringIO
from typing import NoReturn

from histo_lightning.errors import UserError

PATH_COLUMNS = ("path", "filename", "file", "image")
PART_COLUMNS = ("part", "split", "grp")
FOLD_COLUMNS = ("fold",)
DELIMITERS = (",", ";", "\t")  # some spreadsheets write semicolons
LONGEST_SHOWN = 160
ACCEPTED = "a dsfoldN.txt, a Folds.csv, a CSV path,part, a split.json or a folder train/ val/ test/"
Row = tuple[int, str, str, str]  # line of the file, fold ("" where there are none), path, part


def printable(text: str) -> str:
    """A name from outside, safe to print: control characters are escaped, very long names are cut."""
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return safe if len(safe) <= LONGEST_SHOWN else safe[:LONGEST_SHOWN] + "..."


def json_rows(text: str, shown: str) -> Iterator[Row]:
    """The rows of a ``split.json``; its images count as rows, from 1.

    Args:
        shown: what to call the file in errors.

    Raises:
        UserError: no ``parts``, or one that is not a list of names.
    """
    try:
        parts = json.loads(text)["parts"]
        lists = {str(part): list(images) for part, images in parts.items() if not isinstance(images, str)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{shown}: not a split.json (no lists of images under 'parts'); give {ACCEPTED}"
        ) from error
    if len(lists) != len(parts):
        raise UserError(f"{shown}: a part of a split.json is a list of image names; write it as a list")
    line = 0
    for part, images in lists.items():
        for image in images:
            line += 1
            if not isinstance(image, str):
                raise UserError(
                    f"{shown}, image {line}: {printable(repr(image))} is not a name; write it as text"
                )
            yield line, "", image, part


def text_rows(text: str, shown: str) -> Iterator[Row]:
    """The rows of a CSV or of the authors' form, told apart by the first line that is not empty.

    Args:
        text: with something in it.
        shown: what to call the file in errors.

    Raises:
        UserError: neither form, or a row that cannot be read.
    """
    head = next(line for line in text.splitlines() if line.strip())
    for delimiter in DELIMITERS:
        columns = [column.strip(' "').lower() for column in head.split(delimiter)]
        path, part, fold = (_column(columns, n) for n in (PATH_COLUMNS, PART_COLUMNS, FOLD_COLUMNS))
        if path is not None and part is not None:
            yield from _table_rows(text, shown, delimiter, (path, part, fold), len(columns))
            return
    if head.count("|") == 3:
        yield from _authors_rows(text, shown)
        return
    raise UserError(
        f"{shown}, row 1: '{printable(head)}' is neither a row image.png|100|1|train nor a header with path and part; "
        f"give {ACCEPTED}"
    )


def _column(columns: list[str], names: Iterable[str]) -> int | None:
    return next((columns.index(name) for name in names if name in columns), None)


def _table_rows(
    text: str, shown: str, delimiter: str, where: tuple[int, int, int | None], width: int
) -> Iterator[Row]:
    """Rows of a CSV with a header; ``where`` has the columns of path, part and fold."""
    path, part, fold = where
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    headed = False
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not headed:
                headed = True
                continue
            if len(cells) != width:
                _refuse(shown, reader.line_num, len(cells), width)
            yield reader.line_num, "" if fold is None else cells[fold].strip(), cells[path], cells[part]
    except csv.Error as error:
        raise UserError(
            f"{shown}, row {reader.line_num}: not readable as CSV ({error}); close the quotes, and double those in names"
        ) from error


def _refuse(shown: str, line: int, found: int, width: int) -> NoReturn:
    raise UserError(
        f"{shown}, row {line}: {found} columns where the first line has {width}; put names with commas in quotes"
    )


def _authors_rows(text: str, shown: str) -> Iterator[Row]:
    for line, row in enumerate(text.splitlines(), start=1):
        if not row.strip():
            continue
        cells = row.split("|")
        if len(cells) != 4:
            raise UserError(
                f"{shown}, row {line}: '{printable(row)}' is not image.png|100|1|train; mend the row"
            )
        yield line, cells[2].strip(), cells[0], cells[3]

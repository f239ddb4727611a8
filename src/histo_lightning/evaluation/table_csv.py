"""The predictions table as a CSV file: full precision, atomic, safe to open in a spreadsheet."""

import csv
import io
from pathlib import Path

from histo_lightning.errors import UserError
from histo_lightning.evaluation.table import TEXT_COLUMNS, Table, columns
from histo_lightning.evaluation.table_checks import as_table
from histo_lightning.runs import write_atomic

_RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r")


def _is_quoted(cell: str) -> bool:
    return cell.startswith("'") and cell[1:].startswith((*_RUN_BY_SPREADSHEETS, "'"))


def quote_cell(cell: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula; ``unquote_cell`` takes it away.

    A text that already looks quoted (``'=``, ``''``) gets one more, so every text comes back unchanged.
    """
    return f"'{cell}" if cell.startswith(_RUN_BY_SPREADSHEETS) or _is_quoted(cell) else cell


def unquote_cell(cell: str) -> str:
    """The text that ``quote_cell`` was given."""
    return cell[1:] if _is_quoted(cell) else cell


def csv_text(cell: str) -> str:
    """A cell as it is written to a file."""
    # csv.writer leaves a lone carriage return bare under a "\n" line end, and no reader gets it back then.
    return '"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"\r\n') else cell


def write_predictions(path: str | Path, table: Table) -> None:
    """Write a table as CSV, whole or not at all; floats by ``repr``, so they come back bit-identical.

    Raises:
        UserError: the file cannot be written.
    """
    names = columns(table.task)

    def cells(name: str) -> list[str]:
        values = table[name].tolist()
        if name in TEXT_COLUMNS:
            return [csv_text(quote_cell(value)) for value in values]
        return ["" if name == "magnification" and not value else repr(value) for value in values]

    rows = [",".join(row) for row in zip(*map(cells, names), strict=True)]
    # surrogateescape: a file name that is not UTF-8 keeps its bytes.
    text = "\n".join([",".join(names), *rows]) + "\n"
    write_atomic(Path(path), text.encode("utf-8", "surrogateescape"))


def read_predictions(path: str | Path) -> Table:
    """Read a table that ``write_predictions`` (or another program, same columns) wrote; more columns do no harm.

    Raises:
        UserError: no such file, not a CSV text, a row of the wrong length, or anything ``as_table`` refuses.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a predictions CSV") from error
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file ({error}); give a predictions CSV") from error
    if not rows:
        raise UserError(f"{path}: the file is empty; give a predictions CSV")
    header, body = rows[0], rows[1:]
    if len(set(header)) != len(header):
        raise UserError(f"{path}: a column appears twice in the first line; keep one of them")
    for number, row in enumerate(body, start=1):
        if len(row) != len(header):
            cells = f"row {number} has {len(row)} cells, the first line has {len(header)}"
            raise UserError(f"{path}: {cells}; the file is damaged, predict again")
    values = zip(*body, strict=True) if body else ((),) * len(header)
    source = {
        name: [unquote_cell(cell) for cell in cells] if name in TEXT_COLUMNS else cells
        for name, cells in zip(header, values, strict=True)
    }
    return as_table(source, where=str(path))

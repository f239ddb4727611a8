"""The predictions table as a CSV file: full precision, atomic, safe to open in a spreadsheet."""

import csv
import io
from pathlib import Path

from histo_lightning.errors import UserError
from histo_lightning.evaluation.table import TEXT_COLUMNS, Columns, Table, as_table, columns
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
    """Write a table as CSV, all of it or nothing; floats by ``repr``, so they come back bit-identical.

    Raises:
        UserError: the file cannot be written.
    """

    def cells(name: str) -> list[str]:
        values = table[name].tolist()
        if name in TEXT_COLUMNS:
            return [csv_text(quote_cell(value)) for value in values]
        return ["" if name == "magnification" and not value else repr(value) for value in values]

    names = columns(table.task)
    lines = [names, *zip(*map(cells, names), strict=True)]
    text = "".join(",".join(line) + "\n" for line in lines)
    # surrogateescape: a file name that is not UTF-8 keeps its bytes.
    write_atomic(Path(path), text.encode("utf-8", "surrogateescape"))


def read_predictions(source: Columns | Table | str | Path) -> Table:
    """Read a table that ``write_predictions`` (or another program, same columns) wrote; more columns do no harm.

    What is no path is checked by ``as_table``.

    Raises:
        UserError: no such file, not a CSV text, a row of the wrong length, or anything ``as_table`` refuses.
    """
    if not isinstance(source, str | Path):
        return as_table(source)
    try:
        text = Path(source).read_bytes().decode("utf-8-sig", "surrogateescape")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror}); give a predictions CSV") from error
    except csv.Error as error:
        raise UserError(f"{source}: not a CSV file ({error}); give a predictions CSV") from error
    if not rows:
        raise UserError(f"{source}: the file is empty; give a predictions CSV")
    header, body = rows[0], rows[1:]
    if len(set(header)) != len(header):
        raise UserError(f"{source}: a column appears twice in the first line; keep one of them")
    for number, row in enumerate(body, start=1):
        if len(row) != len(header):
            cells = f"row {number} has {len(row)} cells, the first line has {len(header)}"
            raise UserError(f"{source}: {cells}; the file is damaged, predict again")
    values = zip(*body, strict=True) if body else [()] * len(header)
    by_name = {
        name: [unquote_cell(cell) for cell in cells] if name in TEXT_COLUMNS else cells
        for name, cells in zip(header, values, strict=True)
    }
    return as_table(by_name, where=str(source))

"""The predictions table as a CSV file: full precision, atomic, safe to open in a spreadsheet."""

import csv
import io
from pathlib import Path

from histo_lightning.errors import UserError
from histo_lightning.evaluation.table import TEXT_COLUMNS, Columns, Table, as_table, columns
from histo_lightning.runs import unquote_cell, write_csv


def write_predictions(path: str | Path, table: Table) -> None:
    """Write a table as CSV, all of it or nothing; floats come back bit-identical.

    Raises:
        UserError: the file cannot be written.
    """
    names = columns(table.task)
    cells = {name: table[name].tolist() for name in names}
    cells["magnification"] = [value or None for value in cells["magnification"]]
    write_csv(Path(path), [names, *zip(*cells.values(), strict=True)])


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

"""One table of text that becomes HTML, Markdown or a table on the console."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from rich.table import Table as ConsoleTable
from rich.text import Text

_CELL = re.compile(r"([+−–·]?[\d.]*)(?: \(([^()]+)\))?((?: \[\d+\])*)")
_MARK = re.compile(r" \[(\d+)\]")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")
MANY_MARKS = 3  # cells of one note


def _marks(rows: Sequence[Sequence[str]]) -> Counter[int]:
    return Counter(int(mark) for row in rows for cell in row for mark in _MARK.findall(cell))


@dataclass(frozen=True)
class Table:
    """Headings and rows of plain text; the first column names the rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]  # ``0.83 (0.70 to 0.91) [1]``: a number, its interval, a note's number
    notes: Sequence[str] = ()  # below the table; numbered where cells refer to them
    align: str = ""  # a letter a column, ``l`` or ``r``; empty: the first left, the others right
    links: dict[str, str] | None = None  # where the name of a row leads to, by name

    @property
    def alignment(self) -> str:
        """A letter a column."""
        return self.align or "l" + "r" * (len(self.head) - 1)

    @property
    def numbered_notes(self) -> list[str]:
        """The notes, each with its number where a cell has it."""
        used = _marks(self.rows)
        return [f"[{number}] {note}" if used[number] else note for number, note in enumerate(self.notes, 1)]

    def console(self) -> ConsoleTable:
        """A table for ``rich``; the notes are below it."""
        caption = Text("\n".join(self.numbered_notes)) if self.notes else None
        table = ConsoleTable(caption=caption, caption_justify="left")
        for title, letter in zip(self.head, self.alignment, strict=True):
            table.add_column(Text(title), justify="left" if letter == "l" else "right")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


def cell_parts(text: str) -> tuple[str, str, str]:
    """A number, its interval and the numbers of its notes, which HTML shows apart; any other text is all number."""
    parts = _CELL.fullmatch(text)
    return (parts[1], parts[2] or "", _MARK.sub(r" \1", parts[3])) if parts else (text, "", "")


def markdown_text(text: Any) -> Markup:
    """Plain text that Markdown shows unchanged, on one line; what is Markdown already stays."""
    return text if isinstance(text, Markup) else Markup(_SPECIAL.sub(r"\\\1", " ".join(str(text).split())))


def mark(notes: list[str], text: str) -> str:
    """The number that leads from a cell to a note, e.g. `` [1]``; a new ``text`` is added to ``notes``."""
    notes += [] if text in notes else [text]
    return f" [{notes.index(text) + 1}]"


def table_with_notes(head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> Table:
    """A table whose notes are numbered, but for a note that many cells have: it appears once, without a number."""
    marks = _marks(rows)
    common = [text for number, text in enumerate(notes, 1) if marks[number] > MANY_MARKS]
    ordered = [text for text in notes if text not in common]

    def renumbered(match: re.Match[str]) -> str:
        text = notes[int(match[1]) - 1]
        return "" if text in common else f" [{ordered.index(text) + 1}]"

    return Table(head, [[_MARK.sub(renumbered, cell) for cell in row] for row in rows], ordered + common)

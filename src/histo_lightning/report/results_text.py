"""The blocks that a comparison's page and ``results.md`` are made of, and the latter's text."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from histo_lightning.report.results_tables import TextTable


class Heading(NamedTuple):
    """1: of the page; 2: of a card; 3: inside a card."""

    text: str
    depth: int = 2


class Lines(NamedTuple):
    """Paragraphs of plain text; ``kind`` is a class of the page's style."""

    texts: Sequence[str]
    kind: str = ""


class Listed(NamedTuple):
    """A bullet list of plain text."""

    texts: Sequence[str]


class Label(NamedTuple):
    """A warning that must be seen."""

    text: str


class Shell(NamedTuple):
    """A command to be copied."""

    text: str


class Folded(NamedTuple):
    """A long table under a title, closed at first."""

    title: str
    table: TextTable


class Pictures(NamedTuple):
    """Names of pictures in ``plots/``; those that were not drawn are passed over."""

    names: Sequence[str]


Block = Heading | Lines | Listed | Label | Shell | Folded | Pictures | TextTable


def escaped(text: str) -> str:
    """Plain text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", " ".join(text.split()))


def as_markdown(blocks: Sequence[Block]) -> str:
    """The blocks as Markdown."""
    return "\n\n".join(text for block in blocks if (text := _text(block))) + "\n"


def _text(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.depth} {escaped(block.text)}"
    if isinstance(block, Lines):
        return "\n\n".join(escaped(text) for text in block.texts)
    if isinstance(block, Listed):
        return "\n".join(f"- {escaped(text)}" for text in block.texts)
    if isinstance(block, Label):
        return f"> **{escaped(block.text)}**"
    if isinstance(block, Shell):
        return f"    {' '.join(block.text.split())}"
    if isinstance(block, Folded):
        return f"### {escaped(block.title)}\n\n{_table(block.table)}"
    if isinstance(block, Pictures):
        return ""
    return _table(block)


def _table(found: TextTable) -> str:
    lines = [found.head, ["---", *["---:"] * (len(found.head) - 1)]]
    texts = [f"| {' | '.join(escaped(cell) for cell in found.head)} |", f"|{'|'.join(lines[1])}|"]
    texts += [f"| {' | '.join(escaped(cell) for cell in row)} |" for row in found.rows]
    marked = any(f"[{n + 1}]" in cell for n in range(len(found.notes)) for row in found.rows for cell in row)
    notes = [f"[{n + 1}] {note}" if marked else note for n, note in enumerate(found.notes)]
    return "\n".join([*texts, *(f"\n{escaped(note)}" for note in notes)])

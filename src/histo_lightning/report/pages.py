"""Pages and Markdown from Jinja2 templates, and the pictures inside them."""

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from histo_lightning.errors import escaped
from histo_lightning.report import words
from histo_lightning.report.tables import Table, cell_parts, markdown_text
from histo_lightning.runs import write_atomic

WIDE = 850  # pixels, above which a picture scrolls by itself on a narrow screen: its text stays readable
PHOTOS = ("worst", "preview")  # what pictures of images are called


class Picture(NamedTuple):
    """A picture as a page holds it."""

    source: str  # a data URI
    alt: str
    wide: bool = False
    link: str = ""  # where Markdown finds the file
    photo: bool = False  # keeps its colours in dark mode, where a plot is drawn light on dark


@cache
def _environment(markdown: bool) -> Environment:
    """Templates for HTML with autoescape, or for Markdown, where each text is escaped for Markdown instead."""
    environment = Environment(
        loader=PackageLoader("histo_lightning.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.do"], finalize=markdown_text if markdown else None,
    )  # fmt: skip
    environment.globals |= {"kit": "kit.md" if markdown else "kit.html", "words": words, "Table": Table}
    environment.filters |= {"cell_parts": cell_parts, "escaped": escaped}
    return environment


def render_page(template: str, **context: Any) -> str:
    """One self-contained HTML page from ``templates/<template>``; every text in ``context`` is escaped."""
    return _environment(False).get_template(template).render(context)


def render_markdown(template: str, **context: Any) -> str:
    """The same content as Markdown, from a template that is written with the macros of ``kit``."""
    text = _environment(True).get_template(template).render(context)
    blocks = [block.strip("\n") for block in text.split("\n\n")]
    return "\n\n".join(block for block in blocks if block.strip()) + "\n"


def render_text(template: str, **context: Any) -> str:
    """Plain text, for the console and for JSON: nothing is escaped."""
    return _environment(False).overlay(autoescape=False).get_template(template).render(context)


def write_page(path: Path, template: str, **context: Any) -> Path:
    """Render a page and write it whole or not at all; raise UserError where it cannot be written."""
    page = render_page(template, **context)
    write_atomic(path, page.encode("utf-8", errors="replace"))  # a file's name may be no text
    return path


def picture(path: Path, alt: str, link: str = "") -> Picture | None:
    """A PNG file for a page, None where it is absent."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    width = int.from_bytes(content[16:20], "big")  # of a PNG's header (ISO/IEC 15948, 11.2.2)
    return Picture(_data_uri(content, "png"), alt, width > WIDE, link, path.name.startswith(PHOTOS))


def thumbnail(pixels: NDArray[np.uint8], alt: str, width: int) -> Picture:
    """A JPEG of uint8 H x W x 3 pixels, at most ``width`` pixels wide."""
    image, buffer = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    image.thumbnail((width, image.height), Image.Resampling.BOX)
    image.save(buffer, "JPEG", quality=85)
    return Picture(_data_uri(buffer.getvalue(), "jpeg"), alt, photo=True)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"

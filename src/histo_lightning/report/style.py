"""The look of every figure: colours that colour-blind readers distinguish, text that a phone can show, files."""

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from histo_lightning.runs import write_atomic

# Okabe and Ito 2008, "Color Universal Design".
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
ORANGE, SKY, PURPLE, BLACK = "#E69F00", "#56B4E9", "#CC79A7", "#000000"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)  # of groups, in this order
INK, GREY, PALE = "#222222", "#767676", "#DDDDDD"
SHADES = LinearSegmentedColormap.from_list("white to blue", ["#F2F6F9", "#9CC7E3", BLUE, "#00416B"])
DPI = 150
TEXT_SIZE = 10.5  # points; a figure 5 inches wide has letters of 10 pixels on a screen of 400
LEVEL_STYLES = {"image": (BLUE, "-"), "case": (VERMILLION, "--")}  # distinct without colour too
# What XML 1.0 cannot hold, so an SVG neither.
UNPRINTABLE = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
LONGEST_NAME = 28  # characters of a name inside a figure


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of ``width`` x ``height`` inches and its axes row by row, without matplotlib's global state."""
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)  # inches
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    panels = [figure.add_subplot(rows, columns, number + 1) for number in range(rows * columns)]
    for axes in panels:
        axes.tick_params(labelsize=TEXT_SIZE - 0.5, colors=INK, length=3)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(GREY)
    return figure, panels


def new_grid(rows: int, columns: int, inches: float, title: str) -> tuple[Figure, list[list[Axes]]]:
    """A sheet of pictures: ``rows`` x ``columns`` axes without ticks or frames, each ``inches`` wide."""
    figure, panels = new_figure(columns * inches, rows * inches + 0.5, columns, rows)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0))
    figure.suptitle(title, fontsize=TEXT_SIZE, color=INK, parse_math=False, wrap=True)
    for panel in panels:
        bare(panel)
    return figure, [panels[row * columns : (row + 1) * columns] for row in range(rows)]


def bare(axes: Axes) -> None:
    """Take ticks and frame away."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def label_axes(axes: Axes, title: str, x: str = "", y: str = "", title_size: float = TEXT_SIZE + 1) -> None:
    """Title and axis labels in the style's sizes; ``$`` is a plain character."""
    axes.set_title(title, fontsize=title_size, loc="left", color=INK, parse_math=False)
    axes.set_xlabel(x, fontsize=TEXT_SIZE, color=INK, parse_math=False)
    axes.set_ylabel(y, fontsize=TEXT_SIZE, color=INK, parse_math=False)


def shown(name: str, longest: int = LONGEST_NAME) -> str:
    """A name from a table as a figure can hold it: printable, ``longest`` characters at most, the middle left out."""
    text = " ".join(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", name).split())
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"


def say_empty(axes: Axes, text: str) -> None:
    """State in the middle of empty axes why nothing is drawn."""
    middle: dict[str, Any] = {"ha": "center", "va": "center", "wrap": True, "transform": axes.transAxes}
    axes.text(0.5, 0.5, text, color=INK, fontsize=TEXT_SIZE, parse_math=False, **middle)


def legend_below(figure: Figure, axes: Axes, note: str = "", columns: int = 1) -> None:
    """The labels of ``axes`` under the figure, where they cover nothing, with a note above them."""
    legend = figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, fontsize=TEXT_SIZE - 1,
        frameon=False, borderaxespad=0.1, title=note or None, title_fontsize=TEXT_SIZE - 1.5,
    )  # fmt: skip
    legend.get_title().set_color(GREY)
    for text in (legend.get_title(), *legend.get_texts()):
        text.set_parse_math(False)


def save_picture(figure: Figure, stem: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write ``<stem>.png``, and ``svg`` and ``pdf`` where asked for, whole or not at all, or nothing where no format is; always the same bytes.

    UserError where one cannot be written. Text in an SVG stays text.
    """
    paths = []
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "histo_lightning"}
    for kind in dict.fromkeys(["png", *formats] if formats else ()):
        buffer, undated = io.BytesIO(), {"svg": "Date", "pdf": "CreationDate"}.get(kind)
        with matplotlib.rc_context(settings), warnings.catch_warnings():
            # A name may be in a script that the font lacks.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            if undated:
                figure.savefig(buffer, format=kind, metadata={undated: None})
            else:  # savefig would draw every figure twice, once only to lay it out
                canvas: Any = FigureCanvasAgg(figure)
                canvas.print_png(buffer, pil_kwargs={"compress_level": 3})  # 6 takes twice the time
        paths.append(stem.with_name(f"{stem.name}.{kind}"))
        write_atomic(paths[-1], buffer.getvalue())
    return paths

"""One look for every picture: colours that colour-blind readers tell apart, sizes that survive print."""

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from histo_lightning.runs import write_atomic

# Okabe and Ito 2008, "Color Universal Design".
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
INK, GREY, PALE = "#222222", "#767676", "#DDDDDD"
SHADES = LinearSegmentedColormap.from_list("white to blue", ["#F2F6F9", "#9CC7E3", BLUE, "#00416B"])
DPI = 150
TEXT_SIZE = 9.5  # points, at the width of a journal's column and a half


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of ``width`` x ``height`` inches with axes side by side; no global state of matplotlib is touched."""
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)  # inches
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    panels = [figure.add_subplot(1, columns, column + 1) for column in range(columns)]
    for axes in panels:
        axes.tick_params(labelsize=TEXT_SIZE - 0.5, colors=INK, length=3)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(GREY)
    return figure, panels


def new_grid(rows: int, columns: int, inches: float, title: str) -> tuple[Figure, list[list[Axes]]]:
    """A sheet of pictures: ``rows`` x ``columns`` axes without ticks or frames, each ``inches`` wide."""
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(
        figsize=(columns * inches, rows * inches + 0.5), dpi=DPI, layout=layout, facecolor="white"
    )
    figure.suptitle(title, fontsize=TEXT_SIZE, color=INK, parse_math=False, wrap=True)
    axes = [
        [figure.add_subplot(rows, columns, row * columns + column + 1) for column in range(columns)]
        for row in range(rows)
    ]
    for panel in (panel for line in axes for panel in line):
        panel.set_xticks([])
        panel.set_yticks([])
        for spine in panel.spines.values():
            spine.set_visible(False)
    return figure, axes


def label_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """Title and axis labels in the style's sizes; ``$`` is a plain character."""
    axes.set_title(title, fontsize=TEXT_SIZE + 1.5, loc="left", color=INK, parse_math=False)
    axes.set_xlabel(x, fontsize=TEXT_SIZE, color=INK, parse_math=False)
    axes.set_ylabel(y, fontsize=TEXT_SIZE, color=INK, parse_math=False)


def say_empty(axes: Axes, text: str) -> None:
    """State in the middle of empty axes why nothing is drawn."""
    axes.text(
        0.5,
        0.5,
        text,
        ha="center",
        va="center",
        wrap=True,
        transform=axes.transAxes,
        color=INK,
        fontsize=TEXT_SIZE,
    )


def save_png(figure: Figure, path: Path) -> Path:
    """Write ``figure`` to ``path`` atomically; the same figure gives the same bytes.

    Raises:
        UserError: the file cannot be written.
    """
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    write_atomic(path, buffer.getvalue())
    return path

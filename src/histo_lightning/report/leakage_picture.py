"""The picture of a leakage study: dose and response of injected siblings, ways to split, the authors' folds."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from histo_lightning.report.leakage_words import NAMES
from histo_lightning.report.style import (
    BLUE,
    GREY,
    INK,
    TEXT_SIZE,
    VERMILLION,
    label_axes,
    legend_below,
    new_figure,
    save_picture,
    say_empty,
)

Json = Mapping[str, Any]
SPLITS = {"case_kfold": "by case", "slide_kfold": "by slide", "image_random": "by image"}
OFFICIAL = {"official": "as they are", "official matched": "as small as cleaned"}
HONEST, CONTROL = "true labels", "SHUFFLED LABELS (control, no result)"


def draw_leakage(found: Json, stem: Path) -> list[Path]:
    """Draw ``leakage.json``'s content; writes ``<stem>.png`` and ``<stem>.svg``.

    Raises:
        UserError: a file cannot be written.
    """
    blocks, control = found["blocks"], found["control"]
    panels: list[Callable[[Axes], None]] = []
    if blocks["injection"]["arms"] or control["injection"]["arms"]:
        panels.append(lambda axes: _dose_response(axes, found))
    if blocks["contrast"]["arms"] or control["contrast"]["arms"]:
        panels.append(lambda axes: _ways_to_split(axes, found))
    if (blocks.get("official") or {}).get("pairs"):
        panels.append(lambda axes: _official_folds(axes, blocks["official"]))
    width = 4.2 * max(len(panels), 1)
    figure, drawn = new_figure(width, 4.6, columns=max(len(panels), 1))
    for draw, axes in zip(panels, drawn, strict=False):
        draw(axes)
    if not panels:
        say_empty(drawn[0], "No two arms\ncould be compared.")
    drawn[0].plot([], [], "o-", color=BLUE, markersize=7, label=HONEST)
    drawn[0].plot([], [], "s--", color=GREY, markersize=7, label=CONTROL)
    seeds = len(found["seeds"])
    note = "Bars: 95 % intervals over cases and seeds." + (" Small dots: each seed." if seeds > 1 else "")
    legend_below(figure, drawn[0], note, columns=2 if len(panels) > 1 else 1)
    return save_picture(figure, stem)


def _bar(axes: Axes, x: float, score: Json, colour: str, marker: str) -> None:
    """A value with its interval at x, and its seeds beside it."""
    if score["value"] is None:
        return
    if score["low"] is not None:
        low, high = score["low"], score["high"]
        axes.plot([x, x], [low, high], color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot([x], [score["value"]], marker, color=colour, markersize=7, markeredgecolor="white", zorder=3)


def _seeds(axes: Axes, x: float, score: Json, colour: str) -> None:
    values = [v for v in score["by_seed"] if v is not None]
    if len(values) > 1:
        axes.plot([x] * len(values), values, ".", color=colour, markersize=4, alpha=0.55, zorder=2)


def _chance(axes: Axes) -> None:
    axes.axhline(0.5, color=GREY, linewidth=0.9, linestyle=":", zorder=1)
    axes.annotate(
        "chance",
        (1, 0.5),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize=TEXT_SIZE - 2,
        color=GREY,
    )


def _limits(axes: Axes, records: Sequence[Json]) -> None:
    scores = [r["auroc"] for r in records]
    values = [v for s in scores for v in (s["value"], s["low"], s["high"], *s["by_seed"]) if v is not None]
    axes.set_ylim(min([0.45, *values]) - 0.03, 1.01)


def _dose_response(axes: Axes, found: Json) -> None:
    label_axes(
        axes,
        "Siblings of tested images put into training",
        "share of the siblings in training, %",
        "image AUROC on the probe",
    )
    drawn = []
    for block, colour, marker, style, shift in (
        (found["blocks"]["injection"], BLUE, "o", "-", -0.8),
        (found["control"]["injection"], GREY, "s", "--", 0.8),
    ):
        records = [r for r in block["arms"] if r["auroc"]["value"] is not None]
        x = [100 * _share(found, r["arm"]) + shift for r in records]
        if records:
            axes.plot(x, [r["auroc"]["value"] for r in records], style, color=colour, linewidth=1, alpha=0.6)
        for place, record in zip(x, records, strict=True):
            _bar(axes, place, record["auroc"], colour, marker)
            _seeds(axes, place + 3, record["auroc"], colour)
        drawn += records
    if not drawn:
        say_empty(axes, "AUROC is undefined\nin every arm.")
        return
    axes.set_xticks([0, 25, 50, 100])
    axes.set_xlim(-8, 110)
    _limits(axes, drawn)
    _chance(axes)


def _share(found: Json, arm: str) -> float:
    """Siblings in train over the pool, as it came out; a small pool gives at least one image a case."""
    dose = found["doses"].get(arm)
    return float(dose["share"] if dose else arm.split()[-1])


def _ways_to_split(axes: Axes, found: Json) -> None:
    label_axes(axes, "Three ways to split (out of fold)", "", "image AUROC")
    drawn = []
    for block, colour, marker, shift in (
        (found["blocks"]["contrast"], BLUE, "o", -0.08),
        (found["control"]["contrast"], GREY, "s", 0.08),
    ):
        for record in block["arms"]:
            if record["auroc"]["value"] is None:
                continue
            x = list(SPLITS).index(record["arm"]) + shift
            _bar(axes, x, record["auroc"], colour, marker)
            _seeds(axes, x + (0.1 if shift > 0 else -0.1), record["auroc"], colour)
            drawn.append(record)
    if not drawn:
        say_empty(axes, "AUROC is undefined\nin every arm.")
        return
    axes.set_xticks(range(len(SPLITS)), list(SPLITS.values()), color=INK)
    axes.set_xlim(-0.5, len(SPLITS) - 0.5)
    _limits(axes, drawn)
    _chance(axes)


def _official_folds(axes: Axes, block: Json) -> None:
    """Differences to the cleaned folds, of test images whose case training holds too (touched) and of the others."""
    shown = [
        r
        for r in block.get("pairs", ())
        if r["reference"] == "official clean" and r["among"] != "touched minus untouched"
    ]
    score = "auroc" if shown and all(r["auroc"]["value"] is not None for r in shown) else "accuracy"
    label_axes(
        axes, "The authors' folds, against cleaned ones", f"image {NAMES[score]}, difference in points", ""
    )
    if not shown:
        say_empty(axes, "No cleaned folds\nto compare with.")
        return
    for row, record in enumerate(reversed(shown)):
        matched = record["arm"] == "official matched"
        colour, found = VERMILLION if matched else BLUE, record[score]
        if found["low"] is not None:
            axes.plot([100 * found["low"], 100 * found["high"]], [row, row], color=colour, linewidth=1.6)
        if found["value"] is not None:
            axes.plot([100 * found["value"]], [row], "D" if matched else "o", color=colour, markersize=7,
                      markeredgecolor="white", zorder=3)  # fmt: skip
    axes.axvline(0, color=GREY, linewidth=0.9, linestyle=":", zorder=1)
    labels = [f"{r['among'].split()[0]},\n{OFFICIAL[r['arm']]}" for r in reversed(shown)]
    axes.set_yticks(range(len(shown)), labels, color=INK)
    axes.set_ylim(-0.6, len(shown) - 0.4)

"""``leakage.html``, ``leakage.md`` and the picture: the leakage study's answer, its tables, and what is missing."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from histo_lightning.evaluation.differences.leakage import APART, CONTRAST, OFFICIAL
from histo_lightning.report import pages, style
from histo_lightning.report.style import label_axes, legend_below, new_figure, save_picture, say_empty
from histo_lightning.report.words import Json, fixed, is_synthetic
from histo_lightning.runs import write_atomic

ALT = "Image scores by share of siblings in the train set, split and official fold"
NAMES = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy"}
SPLITS = dict(zip(CONTRAST[::-1], ("by case", "by slide", "by image"), strict=True))
CLEAN, CONTROLS = OFFICIAL[1], {OFFICIAL[0]: "as they are", OFFICIAL[2]: "as small as cleaned"}
LOOKS = ((style.BLUE, "o", -1), (style.GREY, "s", 1))  # of true and shuffled labels, and their side
POINT: Mapping[str, Any] = {"markersize": 7, "markeredgecolor": "white", "zorder": 3}
BAR: Mapping[str, Any] = {"linewidth": 1.6, "solid_capstyle": "butt"}


def write_study(study: Json, folder: Path) -> Path:
    """Write ``leakage.png``, ``.md`` and ``.html`` of ``leakage.json``'s content; UserError where one cannot be written."""
    draw_leakage(study, folder / "leakage")
    context = {
        "study": study,
        "sentences": list(study["words"].values()) or ["No two arms could be compared."],
        "synthetic": is_synthetic(study, {"dataset": {"name": study["recipe"].get("dataset.name")}}),
        "pictures": [pages.picture(folder / "leakage.png", ALT, "leakage.png")],
        "names": NAMES,
        "score_text": score_text,
    }
    write_atomic(folder / "leakage.md", pages.render_markdown("leakage.md", **context))
    return pages.write_page(folder / "leakage.html", "leakage.html", **context)


def sentences(study: Json) -> dict[str, str]:
    """A sentence or two on each arm that could be compared, by block: ``injection`` (the headline), ``contrast``, ..."""
    context = {"study": study, "names": NAMES, "points": points, "official": OFFICIAL}
    blocks = ("injection", "contrast", "slides", "official", "control")
    texts = {name: pages.render_text("leakage.sentences", name=name, **context) for name in blocks}
    return {name: " ".join(text.split()) for name, text in texts.items() if text.strip()}


def points(value: float) -> str:
    """A difference in points (hundredths) with its sign; the minus sign cannot be read as a dash."""
    shown = f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")
    return "0.0" if float(shown[1:]) == 0 else shown


def score_text(score: Json, difference: bool) -> str:
    """``0.834 (0.801 to 0.862)``, or a difference in points; why there is none."""
    show = points if difference else fixed
    if score["value"] is None:
        return f"undefined: {score['reason']}"
    if score["low"] is None:
        return f"{show(score['value'])} (no interval: {score['reason']})"
    return f"{show(score['value'])} ({show(score['low'])} to {show(score['high'])})"


def draw_leakage(study: Json, stem: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Draw ``leakage.json``'s content and write ``<stem>.<format>``."""
    blocks, control = study["blocks"], study["control"]
    panels: list[Callable[[Axes, Json], None]] = []
    panels += [_dose_response] if blocks["injection"]["arms"] or control["injection"]["arms"] else []
    panels += [_ways_to_split] if blocks["contrast"]["arms"] or control["contrast"]["arms"] else []
    panels += [_official_folds] if (blocks.get("official") or {}).get("pairs") else []
    columns = max(len(panels), 1)
    figure, drawn = new_figure(4.2 * columns, 4.8, columns)
    for draw, axes in zip(panels, drawn, strict=False):
        draw(axes, study)
    if not panels:
        say_empty(drawn[0], "No two arms\ncould be compared.")
    drawn[0].plot([], [], "o-", color=style.BLUE, markersize=7, label="true labels")
    drawn[0].plot([], [], "s--", color=style.GREY, markersize=7, label="SHUFFLED LABELS (control, no result)")
    note = "Bars: 95 % intervals over cases and seeds." + " Small dots: each seed." * (
        len(study["seeds"]) > 1
    )
    legend_below(figure, drawn[0], note, columns=2 if columns > 1 else 1)
    return save_picture(figure, stem, formats)


def _draw_arms(axes: Axes, study: Json, block: str, position: Callable[[Json], float], apart: float) -> None:
    """AUROC of each arm at its position, with true labels left of it and with shuffled ones right; seeds beside."""
    heights: list[float] = []
    for labels, (colour, marker, side) in zip((study["blocks"], study["control"]), LOOKS, strict=True):
        points = []
        for record in labels[block]["arms"]:
            score, x = record["auroc"], position(record) + side * apart
            if score["value"] is None:
                continue
            ends = [] if score["low"] is None else [score["low"], score["high"]]
            seeds = [value for value in score["by_seed"] if value is not None]
            axes.plot([x] * len(ends), ends, color=colour, **BAR)
            axes.plot([x], [score["value"]], marker, color=colour, **POINT)
            if len(seeds) > 1:
                axes.plot([x + side * apart] * len(seeds), seeds, ".", color=colour, markersize=4, alpha=0.55)
            heights += [score["value"], *ends, *seeds]
            points.append((x, score["value"]))
        if points and not apart:  # a response to a dose
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1, alpha=0.6)
    if not heights:
        say_empty(axes, "AUROC is undefined\nin every arm.")
        return
    axes.set_ylim(min([0.45, *heights]) - 0.03, 1.01)
    axes.axhline(0.5, color=style.GREY, linewidth=0.9, linestyle=":", zorder=1)
    corner: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
    axes.annotate("chance", (1, 0.5), fontsize=style.TEXT_SIZE - 2, color=style.GREY, **corner)


def _dose_response(axes: Axes, study: Json) -> None:
    # Siblings in train over the pool, in percent; a small pool gives at least one image a case.
    shares = {arm: dose["share"] for arm, dose in study["doses"].items()}
    _draw_arms(axes, study, "injection", lambda r: 100 * float(shares.get(r["arm"], r["arm"].split()[-1])), 0)
    axes.set(xticks=[0, 25, 50, 100], xlim=(-8, 110))
    title = "Siblings of tested images\nput into the train set"
    label_axes(axes, title, "share of the siblings in train, %", "image AUROC on the probe")


def _ways_to_split(axes: Axes, study: Json) -> None:
    _draw_arms(axes, study, "contrast", lambda record: list(SPLITS).index(record["arm"]), 0.09)
    axes.set_xticks(range(len(SPLITS)), list(SPLITS.values()))
    axes.set_xlim(-0.5, len(SPLITS) - 0.5)
    label_axes(axes, "Three ways to split\n(out of fold)", "", "image AUROC")


def _official_folds(axes: Axes, study: Json) -> None:
    """Differences to the cleaned folds, of test images whose case is in train too (touched) and of the others."""
    pairs = study["blocks"]["official"]["pairs"]
    records = [r for r in pairs if r["reference"] == CLEAN and r["among"] != APART]
    score = "auroc" if records and all(r["auroc"]["value"] is not None for r in records) else "accuracy"
    title = "The authors' folds,\nagainst cleaned ones"
    label_axes(axes, title, f"image {NAMES[score]}, difference in points")
    if not records:
        say_empty(axes, "No cleaned folds\nto compare with.")
        return
    names = []
    for row, record in enumerate(reversed(records)):
        colour, marker = (style.BLUE, "o") if record["arm"] == OFFICIAL[0] else (style.VERMILLION, "D")
        value, low, high = (record[score][key] for key in ("value", "low", "high"))
        if low is not None:
            axes.plot([100 * low, 100 * high], [row, row], color=colour, **BAR)
        if value is not None:
            axes.plot([100 * value], [row], marker, color=colour, **POINT)
        names.append(f"{record['among'].split()[0]},\n{CONTROLS[record['arm']]}")
    axes.axvline(0, color=style.GREY, linewidth=0.9, linestyle=":", zorder=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)

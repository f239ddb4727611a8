"""Tables of the data set's report, as HTML: what the copy holds, and what is wrong with it."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from html import escape

import numpy as np

from histo_lightning.data.breakhis.names import (
    CLASSES,
    MAGNIFICATIONS,
    SUBTYPE_CLASS,
    SUBTYPE_NAMES,
    SUBTYPES,
)
from histo_lightning.data.breakhis.problems import BLOCKING, KINDS, missing_by_group
from histo_lightning.data.breakhis.records import Record
from histo_lightning.data.pixels.stains import COLUMNS
from histo_lightning.report.dataset_facts import DatasetFacts
from histo_lightning.report.page import paragraph
from histo_lightning.report.score_tables import row, table

SHOWN = 50  # problems of each kind, groups of identical images; problems.csv holds all
OPEN = 8  # rows; a longer list is folded


def _counted(counts: Iterable[int]) -> list[str]:
    return [f"{count:,}" for count in counts]


def _by_magnification(
    records: list[Record], heading: str, groups: dict[str, str], group_of: Callable[[Record], Hashable]
) -> str:
    """Images by group and magnification; ``groups``: the group's value and its title in HTML."""
    counts = Counter((group_of(record), record.magnification) for record in records)
    rows = []
    for group, title in groups.items():
        cells = [counts[group, magnification] for magnification in MAGNIFICATIONS]
        rows.append(row(title, _counted([*cells, sum(cells)])))
    totals = [sum(counts[group, magnification] for group in groups) for magnification in MAGNIFICATIONS]
    rows.append(row("<b>all</b>", [f"<b>{text}</b>" for text in _counted([*totals, sum(totals)])]))
    return table([heading, *(f"{m}X" for m in MAGNIFICATIONS), "all"], rows)


def count_tables(facts: DatasetFacts) -> str:
    """Images by class and subtype at each magnification."""
    named = [record for record in facts.records if record.magnification]
    classes = _by_magnification(named, "class", {c: c for c in CLASSES}, lambda r: r.class_name)
    titles = {s: f"{s} <small>{SUBTYPE_NAMES[s].replace('_', ' ')}</small>" for s in SUBTYPES}
    subtypes = _by_magnification(named, "subtype", titles, lambda r: r.subtype)
    strange = len(facts.records) - len(named)
    note = paragraph(f"Not counted here, since their names say no magnification: {strange:,}.", "small")
    return f"{classes}<h3>By subtype</h3>{subtypes}{note if strange else ''}"


def group_tables(facts: DatasetFacts) -> str:
    """Slides and cases by class, and a folded table of every case."""
    named = [record for record in facts.records if record.case]
    rows = []
    for class_name in CLASSES:
        here = [record for record in named if record.class_name == class_name]
        by_case = Counter(record.case for record in here)
        largest = max(by_case, key=lambda case: (by_case[case], case), default="none")
        cells = _counted([len({r.slide for r in here}), len(by_case), len(here)])
        rows.append(row(class_name, [*cells, f"{escape(largest)} ({by_case[largest]:,})"]))
    summary = table(["class", "slides", "cases", "images", "largest case (images)"], rows)
    cases = []
    for case in sorted({record.case for record in named}):
        here = [record for record in named if record.case == case]
        counts = Counter(record.magnification for record in here)
        slides = ", ".join(sorted({record.slide for record in here}))
        numbers = _counted([*(counts[m] for m in MAGNIFICATIONS), len(here)])
        cases.append(row(escape(case), [here[0].class_name, escape(slides), *numbers]))
    head = ["case", "class", "slides", *(f"{m}X" for m in MAGNIFICATIONS), "all"]
    said = paragraph(
        "A case is the slide number without its section letters: equal numbers are read as one surgical case.",
        "small",
    )
    return summary + said + _folded(f"All {len(cases)} cases", table(head, cases))


def size_table(facts: DatasetFacts) -> str:
    """Native image sizes, and the megabytes of all files."""
    counts = Counter(size for size in facts.sizes if size != (0, 0))
    rows = [
        row(f"{width} × {height}", [f"{count:,}"])
        for (width, height), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    unreadable = len(facts.records) - sum(counts.values())
    if unreadable:
        rows.append(row("unreadable", [f"{unreadable:,}"]))
    total = sum(facts.bytes) / 1e6
    return table(["width × height (pixels)", "images"], rows[:SHOWN]) + paragraph(
        f"All files together: {total:,.1f} MB."
    )


def stain_table(facts: DatasetFacts) -> str:
    """Mean stain statistics by subtype, over the readable images."""
    subtypes = np.array([record.subtype for record in facts.records])
    readable = np.array([state == "ok" for state in facts.states], dtype=bool)
    rows = []
    for subtype in SUBTYPES:
        here = facts.stains[(subtypes == subtype) & readable]
        if len(here):
            mean = dict(zip(COLUMNS, here.mean(axis=0), strict=True))
            colour = " / ".join(f"{mean[c]:.0f}" for c in ("red", "green", "blue"))
            amounts = [f"{mean[c]:.3f}" for c in ("haematoxylin", "eosin")]
            title = f"{subtype} <small>{SUBTYPE_CLASS[subtype]}</small>"
            rows.append(row(title, [f"{len(here):,}", colour, *amounts, f"{100 * mean['tissue']:.0f} %"]))
    head = ["subtype", "images", "red / green / blue", "haematoxylin", "eosin", "tissue"]
    note = paragraph(
        "Means over images of the mean over pixels. Haematoxylin and eosin: decadic optical density, unmixed after "
        "Ruifrok and Johnston 2001. Tissue: share of pixels with an optical density above 0.15.",
        "small",
    )
    return table(head, rows, note)


def problem_tables(facts: DatasetFacts) -> str:
    """The first problems of each kind, what the kinds mean, and missing images by slide and magnification."""
    if not facts.problems:
        return paragraph("No problem was found.")
    body = ""
    for kind, meaning in KINDS.items():
        found = facts.of_kind(kind)
        if not found:
            continue
        blocking = " Training refuses such a copy." if kind in BLOCKING else ""
        body += f"<h3>{escape(kind)}: {len(found):,}</h3>{paragraph(f'{meaning[:1].upper()}{meaning[1:]}.{blocking}')}"
        if kind == "missing":
            body += _missing_table(facts)
        rows = [
            row(escape(p.path or p.image or "the set"), [escape(p.detail)], "words") for p in found[:SHOWN]
        ]
        more = len(found) - SHOWN
        below = paragraph(f"{more:,} more in problems.csv.", "small") if more > 0 else ""
        listing = table(["file", "what is wrong"], rows, below)
        body += listing if len(found) <= OPEN else _folded(f"The first {len(rows)}", listing)
    return body


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def _missing_table(facts: DatasetFacts) -> str:
    groups = missing_by_group(facts.problems)
    slides: dict[str, dict[int, str]] = {}
    for group in groups:
        slides.setdefault(group.slide, {})[group.magnification] = f"{group.missing} of {group.of}"
    rows = [row(escape(s), [by.get(m, "none") for m in MAGNIFICATIONS]) for s, by in slides.items()]
    listing = table(["slide", *(f"{m}X" for m in MAGNIFICATIONS)], rows)
    return _folded(f"By slide ({len(slides)})", listing)


def identical_table(facts: DatasetFacts) -> str:
    """Groups of images with the same pixels, with the cases that they stand in."""
    if not facts.identical:
        return paragraph("No two images have the same pixels.")
    cases = {record.image: record.case for record in facts.records}
    across = [g for g in facts.identical if len({cases.get(image, "") for image in g}) > 1]
    said = f"Groups of images with the same pixels: {len(facts.identical):,}, of them in more than one case: {len(across):,}."
    shown = [*across, *(g for g in facts.identical if g not in across)][:SHOWN]
    rows = [
        row(
            "<br>".join(escape(image) for image in group),
            [", ".join(sorted({escape(cases.get(i) or "unknown") for i in group}))],
            "words",
        )
        for group in shown
    ]
    more = len(facts.identical) - len(shown)
    below = paragraph(f"{more:,} more groups: equal pixel_sha256 in images.csv.", "small") if more else ""
    listing = table(["images", "cases"], rows, below)
    return paragraph(said) + (listing if len(shown) <= OPEN else _folded(f"The first {len(shown)}", listing))

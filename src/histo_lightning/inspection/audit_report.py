"""What an audit says: one sentence a split, a table, and the figures as JSON."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from histo_lightning.inspection.leaks import Findings, Shared
from histo_lightning.data.splits.reading import printable

LISTED = 10  # names of a kind that are printed; all stand in the JSON


def _some(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def table(findings: list[Findings]) -> Table:
    """A row for the held-out side against all others, and one for every two parts where there are three.

    It fits 80 columns, as long as the names of the splits are short.
    """
    found = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    found.add_column("split", overflow="fold", min_width=6)
    found.add_column("sides", no_wrap=True)
    headings = (
        "images",
        "slides\nshared",
        "cases\nshared",
        "images\ntouched",
        "images\nshared",
        "twins",
        "same\npixels",
    )
    for heading in headings:
        found.add_column(heading, justify="right", no_wrap=True)
    for each in findings:
        rows = [each.headline, *(each.pairs if len(each.pairs) > 1 else ())]
        for row, shared in enumerate(rows):
            numbers = (
                len(shared.slides),
                len(shared.cases),
                shared.touched,
                len(shared.images),
                len(shared.twins),
            )
            found.add_row(
                Text(each.name if row == 0 else ""),
                " | ".join(shared.sides).replace(" or ", "+"),
                f"{shared.first:,} | {shared.held:,}",
                *(f"{number:,}" for number in numbers),
                "-" if shared.identical is None else f"{len(shared.identical):,}",
            )
    return found


def _shared_sentence(shared: Shared) -> str:
    """What two sides share, in words; empty where they share nothing."""
    said = []
    held = shared.sides[1]
    if shared.cases:
        touched = f"{shared.touched:,} of {shared.held:,} {held} images ({shared.touched / shared.held:.1%})"
        cases = _some(len(shared.cases), "case stands", "cases stand")
        slides = f" ({_some(len(shared.slides), 'slide')} too)" if shared.slides else ""
        said.append(f"{cases} on both sides{slides}, which touches {touched}")
    if shared.images:
        said.append(f"{_some(len(shared.images), 'image is', 'images are')} in both parts")
    if shared.identical:
        number = _some(len(shared.identical), f"{held} image has", f"{held} images have")
        said.append(f"{number} a pixel-identical copy under another name on the other side")
    if shared.twins:
        slides = ", ".join(shared.twins)
        said.append(f"slide {slides}, which the set holds under two subtypes, stands on both sides")
    return f"{shared.sides[0]} | {held}: {'; '.join(said)}" if said else ""


def verdict(findings: Findings) -> str:
    """One plain sentence: what leaks, or that nothing was found and by what means."""
    unknown = ""
    if findings.unknown:
        unknown = (
            f". GROUPING UNKNOWN: {findings.unknown:,} of {findings.images:,} images do not say their case in their "
            "names, so cases that they share cannot be seen"
        )
    if findings.leak:
        parts = [findings.headline] if findings.headline.leak else []
        held = findings.headline.sides[1]
        parts += [pair for pair in findings.pairs if pair.leak and held not in pair.sides]
        sentence = "LEAK. " + ". ".join(_shared_sentence(shared) for shared in parts)
        return sentence + unknown
    if findings.compared is None:
        means = "; by names only: dataset.root=<folder> compares the pixels too"
    else:
        means = f"; the pixels of {findings.compared:,} of {findings.images:,} images were compared"
    return f"no leak found: no case, slide or image stands in two parts{means}{unknown}"


def details(findings: Findings) -> list[str]:
    """What a person needs to mend a split: names by kind, a line each, and how many more there are."""
    headline = findings.headline
    cases = sorted({case for pair in findings.pairs for case in pair.cases})
    images = sorted({image for pair in findings.pairs for image in pair.images})
    identical = sorted({pair for shared in findings.pairs for pair in shared.identical or ()})
    suspicious = sorted({pair for shared in findings.pairs for pair in shared.suspicious})
    kinds = [
        ("cases on both sides", cases),
        ("images in two parts", images),
        ("identical pixels", [f"{a} = {b}" for a, b in identical]),
        ("alike, look at them", [f"{a} ~ {b}" for a, b in suspicious]),
        ("listed more than once in a part", list(findings.repeated)),
        ("not below dataset.root", list(findings.missing)),
        ("unreadable", list(findings.unreadable.values())),
    ]
    lines = []
    for kind, names in kinds:
        if names:
            limit = len(names) if names is cases else LISTED
            more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
            shown = (", " if kind != "unreadable" else "; ").join(printable(name) for name in names[:limit])
            lines.append(f"{kind} ({len(names):,}): {shown}{more}")
    if headline.identical is not None and findings.compared != findings.images:
        lines.append(f"pixels compared: {findings.compared:,} of {findings.images:,} images")
    return [*lines, *findings.notes]


def _numbers(shared: Shared) -> dict[str, Any]:
    return {
        "slides_on_both_sides": len(shared.slides),
        "cases_on_both_sides": len(shared.cases),
        "test_images_touched": shared.touched,
        "twin_slides_on_both_sides": len(shared.twins),
        "identical_pixels_on_both_sides": None if shared.identical is None else len(shared.identical),
        "images_in_two_parts": len(shared.images),
    }


def as_json(findings: Findings) -> dict[str, Any]:
    """The figures of one split. Counts and lists at the top are of the held-out part against all others together."""
    headline = findings.headline
    return {
        "name": findings.name,
        "leak": findings.leak,
        "verdict": verdict(findings),
        "parts": findings.parts,
        "held_out": headline.sides[1],
        **_numbers(headline),
        "cases": list(headline.cases),
        "slides": list(headline.slides),
        "images": list(headline.images),
        "identical_pixels": [list(pair) for pair in headline.identical or ()],
        "suspicious_pairs": [list(pair) for pair in headline.suspicious],
        "pairs": [
            {"sides": list(s.sides), "leak": s.leak, **_numbers(s), "cases": list(s.cases)}
            for s in findings.pairs
        ],
        "grouping_unknown": findings.unknown,
        "repeated": findings.repeated,
        "images_compared": findings.compared,
        "missing": list(findings.missing),
        "unreadable": findings.unreadable,
    }

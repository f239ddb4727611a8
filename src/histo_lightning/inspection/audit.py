"""What ``audit`` does and prints: a table, one sentence a split, and the figures as JSON."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from histo_lightning.config.schema import AuditConfig
from histo_lightning.data.splits.reading import printable, read_splits
from histo_lightning.errors import UserError
from histo_lightning.inspection.leaks import Findings, Shared, audit_split, image_key
from histo_lightning.report.console import StepProgress, console

LISTED = 10  # names of a kind that are printed; the JSON has all
COLUMNS = {
    "slides\nshared": "slides_on_both_sides",
    "cases\nshared": "cases_on_both_sides",
    "images\ntouched": "test_images_touched",
    "images\nshared": "images_in_two_parts",
    "twins": "twin_slides_on_both_sides",
    "same\npixels": "identical_pixels_on_both_sides",
}  # of the table: figures by heading


def audit(config: AuditConfig) -> list[Findings]:
    """Audit every split of ``split_file``, by names, and by pixels where ``dataset.root`` says where the images are.

    Raises:
        UserError: the split cannot be read, no name says anything and there are no pixels, or no image can be read.
    """
    splits = read_splits(config.split_file)
    pixels = None
    if config.dataset.root:
        from histo_lightning.inspection.pixel_comparison import compare_pixels  # decoders

        paths = [path for split in splits for images in split.parts.values() for path in images]
        with ExitStack() as stack:
            pixels = compare_pixels(
                {image_key(path): path for path in paths},
                config.dataset,
                config.cache_dir,
                lambda text: stack.enter_context(StepProgress(text)),
            )
    findings = [audit_split(split, pixels) for split in splits]
    for split, each in zip(splits, findings, strict=True):
        if each.unknown == each.images and not each.compared and not each.leak:
            example = printable(next(iter(split.parts.values()))[0])
            raise UserError(
                f"{printable(config.split_file)}: GROUPING UNKNOWN: no name says its case as BreakHis names do, e.g. "
                f"{example}, so nothing can be checked; give the original names, or dataset=folders "
                "dataset.root=<folder> to compare pixels"
            )
    return findings


def report(findings: list[Findings], json_file: str | None = None) -> bool:
    """Print a table over all splits, then for each the verdict and the names to look at; whether any leaks."""
    leak = any(each.leak for each in findings)
    if json_file:
        from histo_lightning.runs import write_json

        figures = [as_json(each) for each in findings]
        write_json(Path(json_file), figures[0] if len(figures) == 1 else {"folds": figures, "leak": leak})
    out = console()
    out.print(table(findings))
    for each in findings:
        out.print("\n  ".join([f"{each.name}: {verdict(each)}", *details(each)]), markup=False)
    return leak


def table(findings: list[Findings]) -> Table:
    """A row for the held-out side against all others, and one for every two parts where there are three.

    It fits 80 columns, as long as the names of the splits are short.
    """
    rows = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    rows.add_column("split", overflow="fold", min_width=6)
    rows.add_column("sides", no_wrap=True)
    for heading in ("images", *COLUMNS):
        rows.add_column(heading, justify="right", no_wrap=True)
    for each in findings:
        for row, shared in enumerate([each.headline, *(each.pairs if len(each.pairs) > 1 else ())]):
            figures = _figures(shared)
            counts = [figures[key] for key in COLUMNS.values()]
            rows.add_row(
                Text(each.name if row == 0 else ""),
                " | ".join(shared.sides).replace(" or ", "+"),
                f"{shared.first:,} | {shared.held:,}",
                *("-" if count is None else f"{count:,}" for count in counts),
            )
    return rows


def _some(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _sentence(shared: Shared) -> str:
    """What two sides share, in words."""
    clauses = []
    held = shared.sides[1]
    if shared.cases:
        cases = _some(len(shared.cases), "case is", "cases are")
        slides = f" ({_some(len(shared.slides), 'slide')} too)" if shared.slides else ""
        touched = f"{shared.touched:,} of {shared.held:,} {held} images ({shared.touched / shared.held:.1%})"
        clauses.append(f"{cases} on both sides{slides}, which touches {touched}")
    if shared.images:
        clauses.append(f"{_some(len(shared.images), 'image is', 'images are')} in both parts")
    if shared.identical:
        number = _some(len(shared.identical), f"{held} image has", f"{held} images have")
        clauses.append(f"{number} a pixel-identical copy under another name on the other side")
    if shared.twins:
        slides = ", ".join(shared.twins)
        clauses.append(f"slide {slides}, which the set holds under two subtypes, is on both sides")
    return f"{shared.sides[0]} | {held}: {'; '.join(clauses)}"


def verdict(findings: Findings) -> str:
    """One plain sentence: what leaks, or that nothing was found and by what means."""
    unknown = (
        f". GROUPING UNKNOWN: {findings.unknown:,} of {findings.images:,} images do not say their case in their "
        "names, so cases that they share cannot be seen"
        if findings.unknown
        else ""
    )
    if findings.leak:
        held = findings.headline.sides[1]
        sides = [findings.headline, *(pair for pair in findings.pairs if held not in pair.sides)]
        return "LEAK. " + ". ".join(_sentence(shared) for shared in sides if shared.leak) + unknown
    means = f"; the pixels of {findings.compared} of {findings.images:,} images were compared"
    if findings.compared is None:
        means = "; by names only: dataset.root=<folder> compares the pixels too"
    return f"no leak found: no case, slide or image is in two parts{means}{unknown}"


def details(findings: Findings) -> list[str]:
    """What a person needs to mend a split: names by kind, a line each, and how many more there are."""
    pairs = findings.pairs
    kinds = {
        "cases on both sides": sorted({case for pair in pairs for case in pair.cases}),
        "images in two parts": sorted({image for pair in pairs for image in pair.images}),
        "identical pixels": sorted({f"{a} = {b}" for pair in pairs for a, b in pair.identical or ()}),
        "alike, look at them": sorted({f"{a} ~ {b}" for pair in pairs for a, b in pair.suspicious}),
        "listed more than once in a part": list(findings.repeated),
        "not below dataset.root": list(findings.missing),
        "unreadable": list(findings.unreadable.values()),
    }
    lines = []
    for kind, names in kinds.items():
        if names:
            limit = len(names) if kind.startswith("cases") else LISTED
            more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
            shown = ("; " if kind == "unreadable" else ", ").join(printable(name) for name in names[:limit])
            lines.append(f"{kind} ({len(names):,}): {shown}{more}")
    if findings.headline.identical is not None and findings.compared != findings.images:
        lines.append(f"pixels compared: {findings.compared:,} of {findings.images:,} images")
    if findings.passed_over:
        lines.append(f"{findings.passed_over:,} images are in no part's folder and were passed over")
    return lines


def _figures(shared: Shared) -> dict[str, Any]:
    return {
        "slides_on_both_sides": len(shared.slides),
        "cases_on_both_sides": len(shared.cases),
        "test_images_touched": shared.touched,
        "twin_slides_on_both_sides": len(shared.twins),
        "identical_pixels_on_both_sides": None if shared.identical is None else len(shared.identical),
        "images_in_two_parts": len(shared.images),
        "cases": shared.cases,
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
        **_figures(headline),
        "slides": headline.slides,
        "images": headline.images,
        "identical_pixels": headline.identical or (),
        "suspicious_pairs": headline.suspicious,
        "pairs": [{"sides": pair.sides, "leak": pair.leak, **_figures(pair)} for pair in findings.pairs],
        "grouping_unknown": findings.unknown,
        "repeated": findings.repeated,
        "images_compared": findings.compared,
        "missing": findings.missing,
        "unreadable": findings.unreadable,
    }

"""What ``audit`` does and prints: a table, one sentence a split, and the figures as JSON."""

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from histo_lightning.config.schema import AuditConfig
from histo_lightning.data.splits.reading import printable, read_splits
from histo_lightning.errors import UserError
from histo_lightning.inspection.leaks import Figures, audit_split, image_key
from histo_lightning.report.console import console

LISTED = 10  # names of a kind that are printed; the JSON has all
COLUMNS = {
    "slides\nshared": "slides_on_both_sides",
    "cases\nshared": "cases_on_both_sides",
    "images\ntouched": "test_images_touched",
    "images\nshared": "images_in_two_parts",
    "twins": "twin_slides_on_both_sides",
    "same\npixels": "identical_pixels_on_both_sides",
}  # of the table: figures by heading


def audit(config: AuditConfig) -> list[Figures]:
    """The figures of every split of ``split_file``, by names, and by pixels where ``dataset.root`` says where images are.

    Raises:
        UserError: the split cannot be read, no name says anything and there are no pixels, or no image can be read.
    """
    splits = read_splits(config.split_file)
    pixels = None
    if config.dataset.root:
        from histo_lightning.inspection.pixel_comparison import compare_pixels  # decoders

        paths = [path for split in splits for images in split.parts.values() for path in images]
        pixels = compare_pixels({image_key(path): path for path in paths}, config.dataset, config.cache_dir)
    audits = [audit_split(split, pixels) for split in splits]
    for split, figures in zip(splits, audits, strict=True):
        images = sum(figures["parts"].values())
        if figures["grouping_unknown"] == images and not figures["images_compared"] and not figures["leak"]:
            example = printable(next(iter(split.parts.values()))[0])
            raise UserError(
                f"{printable(config.split_file)}: GROUPING UNKNOWN: no name says its case as BreakHis names do, e.g. "
                f"{example}, so nothing can be checked; give the original names, or dataset=folders "
                "dataset.root=<folder> to compare pixels"
            )
    return [{**figures, "verdict": verdict(figures)} for figures in audits]


def report(audits: list[Figures], json_file: str | None = None) -> bool:
    """Print a table over all splits, then for each the verdict and the names to look at; whether any leaks."""
    leak = any(figures["leak"] for figures in audits)
    if json_file:
        from histo_lightning.runs import write_json

        write_json(Path(json_file), audits[0] if len(audits) == 1 else {"folds": audits, "leak": leak})
    out = console()
    out.print(table(audits))
    for figures in audits:
        lines = [f"{figures['name']}: {figures['verdict']}", *details(figures)]
        out.print("\n  ".join(lines), markup=False)
    return leak


def table(audits: list[Figures]) -> Table:
    """A row for the held-out side against all others, and one for every two parts where there are three.

    It fits 80 columns, as long as the names of the splits are short.
    """
    rows = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    rows.add_column("split", overflow="fold", min_width=6)
    rows.add_column("sides", no_wrap=True)
    for heading in ("images", *COLUMNS):
        rows.add_column(heading, justify="right", no_wrap=True)
    for figures in audits:
        pairs = figures["pairs"]
        for name, shared in [(figures["name"], figures), *(("", pair) for pair in pairs if len(pairs) > 1)]:
            counts = [shared[key] for key in COLUMNS.values()]
            rows.add_row(
                Text(name),
                " | ".join(shared["sides"]).replace(" or ", "+"),
                " | ".join(f"{count:,}" for count in shared["images_by_side"]),
                *("-" if count is None else f"{count:,}" for count in counts),
            )
    return rows


def _some(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _sentence(shared: Figures) -> str:
    """What two sides share, in words; empty where they share nothing."""
    side, held = shared["sides"]
    clauses = []
    if shared["cases"]:
        cases = _some(len(shared["cases"]), "case is", "cases are")
        slides = f" ({_some(len(shared['slides']), 'slide')} too)" if shared["slides"] else ""
        touched, images = shared["test_images_touched"], shared["images_by_side"][1]
        share = f"{touched:,} of {images:,} {held} images ({touched / images:.1%})"
        clauses.append(f"{cases} on both sides{slides}, which touches {share}")
    if shared["images"]:
        clauses.append(f"{_some(len(shared['images']), 'image is', 'images are')} in both parts")
    if shared["identical_pixels"]:
        number = _some(len(shared["identical_pixels"]), f"{held} image has", f"{held} images have")
        clauses.append(f"{number} a pixel-identical copy under another name on the other side")
    if shared["twins"]:
        slides = ", ".join(shared["twins"])
        clauses.append(f"slide {slides}, which the set holds under two subtypes, is on both sides")
    return f"{side} | {held}: {'; '.join(clauses)}" if clauses else ""


def verdict(figures: Figures) -> str:
    """One plain sentence: what leaks, or that nothing was found and by what means."""
    images = sum(figures["parts"].values())
    unknown = (
        f". GROUPING UNKNOWN: {figures['grouping_unknown']:,} of {images:,} images do not say their case in their "
        "names, so cases that they share cannot be seen"
        if figures["grouping_unknown"]
        else ""
    )
    if figures["leak"]:
        sides = [figures, *(pair for pair in figures["pairs"] if figures["held_out"] not in pair["sides"])]
        return "LEAK. " + ". ".join(filter(None, map(_sentence, sides))) + unknown
    means = f"; the pixels of {figures['images_compared']} of {images:,} images were compared"
    if figures["images_compared"] is None:
        means = "; by names only: dataset.root=<folder> compares the pixels too"
    return f"no leak found: no case, slide or image is in two parts{means}{unknown}"


def details(figures: Figures) -> list[str]:
    """What a person needs to mend a split: names by kind, a line each, and how many more there are."""

    def in_pairs(key: str, sign: str = "") -> list[str]:
        return sorted({sign.join(name) for pair in figures["pairs"] for name in pair[key]})

    kinds = {
        "cases on both sides": in_pairs("cases"),
        "images in two parts": in_pairs("images"),
        "identical pixels": in_pairs("identical_pixels", " = "),
        "alike, look at them": in_pairs("suspicious_pairs", " ~ "),
        "listed more than once in a part": list(figures["repeated"]),
        "not below dataset.root": figures["missing"],
        "unreadable": list(figures["unreadable"].values()),
    }
    lines = []
    for kind, names in kinds.items():
        if names:
            limit = len(names) if kind.startswith("cases") else LISTED
            more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
            shown = ("; " if kind == "unreadable" else ", ").join(printable(name) for name in names[:limit])
            lines.append(f"{kind} ({len(names):,}): {shown}{more}")
    compared, images = figures["images_compared"], sum(figures["parts"].values())
    if figures["identical_pixels_on_both_sides"] is not None and compared != images:
        lines.append(f"pixels compared: {compared:,} of {images:,} images")
    if figures["passed_over"]:
        lines.append(f"{figures['passed_over']:,} images are in no part's folder and were passed over")
    return lines

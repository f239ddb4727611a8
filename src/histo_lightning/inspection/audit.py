"""What ``audit`` prints: a table and one sentence a split, or the files of results that are not what was written."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from histo_lightning.comparison.folders import listed_folders
from histo_lightning.config.schema import AuditConfig
from histo_lightning.data.splits.reading import printable, read_splits
from histo_lightning.errors import UserError
from histo_lightning.inspection.leaks import Figures, audit_split, image_key
from histo_lightning.report.console import console
from histo_lightning.runs import RunFolder, write_json
from histo_lightning.runs.manifest import MANIFEST, damaged, read_manifest

CHECKED = (MANIFEST, "status.json")
LISTED = 10  # names of a kind that are printed; the JSON has all
TEXTS = Environment(  # plain; report.pages would load NumPy and Pillow, which an audit of names does without
    loader=PackageLoader("histo_lightning.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    extensions=["jinja2.ext.do"],
)  # fmt: skip
COLUMNS = {  # of the table: figures by heading
    "slides\nshared": "slides_on_both_sides",
    "cases\nshared": "cases_on_both_sides",
    "images\ntouched": "test_images_touched",
    "images\nshared": "images_in_two_parts",
    "twins": "twin_slides_on_both_sides",
    "same\npixels": "identical_pixels_on_both_sides",
}


def audit(config: AuditConfig) -> list[Figures]:
    """The figures of every split of ``split_file``, by names, and by pixels where ``dataset.root`` says where images are."""
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
            problem = f"no name says its case as BreakHis names do, e.g. {example}, so nothing can be checked"
            mend = "give the original names, or dataset=folders dataset.root=<folder> to compare pixels"
            raise UserError(f"{printable(config.split_file)}: GROUPING UNKNOWN: {problem}; {mend}")
    return [{**figures, "verdict": verdict(figures)} for figures in audits]


def report(audits: list[Figures], json_file: str | None = None) -> bool:
    """Print a table over all splits, then for each the verdict and the names to look at; whether any leaks."""
    leak = any(figures["leak"] for figures in audits)
    if json_file:
        write_json(Path(json_file), audits[0] if len(audits) == 1 else {"folds": audits, "leak": leak})
    out = console()
    out.print(table(audits))
    for figures in audits:
        lines = [f"{figures['name']}: {figures['verdict']}", *details(figures)]
        out.print("\n  ".join(lines), markup=False)
    return leak


def table(audits: list[Figures]) -> Table:
    """A row for the held-out side against all others, and one for every two parts where there are three."""
    rows = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    rows.add_column("split", overflow="fold", min_width=6)
    rows.add_column("sides", no_wrap=True)
    for heading in ("images", *COLUMNS):
        rows.add_column(heading, justify="right", no_wrap=True)
    for figures in audits:
        pairs = figures["pairs"]
        for name, shared in [(figures["name"], figures), *(("", pair) for pair in pairs if len(pairs) > 1)]:
            rows.add_row(
                Text(name),
                " | ".join(shared["sides"]).replace(" or ", "+"),
                " | ".join(f"{count:,}" for count in shared["images_by_side"]),
                *("-" if shared[key] is None else f"{shared[key]:,}" for key in COLUMNS.values()),
            )
    return rows


def verdict(figures: Figures) -> str:
    """One plain sentence: what leaks, or that nothing was found and by what means."""
    return " ".join(TEXTS.get_template("audit.sentence").render(figures=figures).split())


def details(figures: Figures) -> list[str]:
    """What a person needs to mend a split: names by kind, a line each, and how many more there are."""

    def in_pairs(key: str, sign: str = "") -> list[str]:
        return sorted({sign.join(name) for pair in figures["pairs"] for name in pair[key]})

    names = {
        "cases on both sides": in_pairs("cases"),
        "images in two parts": in_pairs("images"),
        "identical pixels": in_pairs("identical_pixels", " = "),
        "alike, look at them": in_pairs("suspicious_pairs", " ~ "),
        "listed more than once in a part": figures["repeated"],
        "not below dataset.root": figures["missing"],
        "unreadable": figures["unreadable"].values(),
    }
    kinds = {kind: list(map(printable, texts)) for kind, texts in names.items()}
    template = TEXTS.get_template("audit.details")
    return template.render(figures=figures, kinds=kinds, limit=LISTED).splitlines()


def audit_folders(runs: str, json_file: str | None = None) -> bool:
    """Print a line for each damaged file of runs, sweeps, studies or exports, and how many were checked; whether none is damaged."""
    files = [path for root in listed_folders(runs) for name in CHECKED for path in root.rglob(name)]
    folders = sorted({path.parent for path in files})
    problems, count = list[str](), 0
    for folder in folders:
        try:
            listed = read_manifest(folder)
            if not listed and RunFolder(folder).state == "finished":
                problems.append(f"{folder / MANIFEST}: is missing; train again writes it, unchecked")
            count += len(listed)
            problems += [f"{folder / name}: is damaged ({why})" for name, why in damaged(folder).items()]
        except UserError as error:
            problems.append(str(error))
    if not folders:
        raise UserError(f"run={runs}: holds no {MANIFEST}, so there is nothing to check it against")
    counts = f"{count:,} files of {len(folders):,} folders"
    print(*problems, f"{counts}: {len(problems) or 'none'} damaged", sep="\n")
    if json_file:
        write_json(Path(json_file), {"folders": len(folders), "files": count, "damaged": problems})
    return not problems

"""What ``prepare`` does: names against the census, every image decoded once, duplicates, stains, report."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histo_lightning.config.schema import DatasetConfig, PrepareConfig
from histo_lightning.data.breakhis.problems import BLOCKING, Problem, inspect_names
from histo_lightning.data.breakhis.records import Record, census_message, record_of, select_magnification
from histo_lightning.data.pixels.cache import default_cache_dir, load_pixels
from histo_lightning.data.pixels.duplicates import identical_pixels, nearest_pairs
from histo_lightning.data.pixels.stains import COLUMNS, measure_stains
from histo_lightning.data.sources.dataset import find_root, native_sizes, open_source
from histo_lightning.data.sources.folder import image_paths
from histo_lightning.errors import UserError
from histo_lightning.report.console import StepProgress, console
from histo_lightning.report.dataset_page import DatasetFacts, image_table, write_dataset_report
from histo_lightning.report.pages import render_text
from histo_lightning.runs import write_json

LISTED = 20  # problems of a kind that are printed; problems.csv has all


def prepare(config: PrepareConfig, folder: Path) -> DatasetFacts:
    """Verify a data set, build its pixel cache, and write ``report.html``, ``images.csv`` and ``problems.csv`` to ``folder``."""
    shown = config.trainer.progress != "none"
    cache_dir = Path(config.cache_dir) if config.cache_dir else default_cache_dir()
    dataset = config.dataset
    with StepProgress("fetching (bytes)" if dataset.download else "drawing images", shown) as progress:
        root = find_root(dataset, cache_dir, progress)
    records, problems, message = _read_names(dataset, root)
    records = select_magnification(records, config.magnification)
    if not records:
        raise UserError(f"magnification={config.magnification}: the data set has no such image")
    side, full = dataset.short_side or round(config.image_size * 8 / 7), config.verify == "full"
    options: dict[str, Any] = {"sizes": native_sizes(dataset), "tolerant": True, "verify": full}
    with StepProgress("decoding images", shown) as progress:
        pixels = load_pixels(root, records, side, cache_dir, progress=progress, **options)
    by_image = {record.image: record for record in records}
    records = [by_image[image] for image in pixels.images]
    for image, reason in pixels.unreadable.items():
        problems.append(Problem("unreadable", image, by_image[image].path, reason))
    rows = np.flatnonzero([record.image not in pixels.unreadable for record in records])
    readable = [records[row] for row in rows]
    stains = np.full((len(records), len(COLUMNS)), np.nan)
    stains[rows] = measure_stains(lambda chosen: pixels.take(rows[chosen]), len(rows))
    with StepProgress("comparing images", shown) as progress:
        pairs = nearest_pairs(lambda chosen: pixels.take(rows[chosen]), readable, progress=progress)
    states = [pixels.unreadable.get(record.image, "ok") for record in records]
    sizes = [path.stat().st_size if (path := root / record.path).is_file() else 0 for record in records]
    shown_root = str(root) if dataset.name != "synthetic" else "drawn by this program"
    images = image_table(records, pixels.sizes, sizes, pixels.digests, states, stains)
    identical = identical_pixels([record.image for record in readable], [pixels.digests[row] for row in rows])
    facts = DatasetFacts(dataset.name, shown_root, message, images, problems, identical, pairs, pixels)
    write_dataset_report(folder, facts)
    if config.json:
        kinds = dict(sorted(Counter(problem.kind for problem in problems).items()))
        counts = {"images": len(images), "unreadable": len(pixels.unreadable), "problems": kinds}
        figures: dict[str, Any] = {"dataset": dataset.name} | counts | {"identical_pixels": identical}
        figures["suspicious_pairs"] = [(pair.first, pair.second) for pair in pairs if pair.suspicious]
        figures["fingerprint"] = pixels.fingerprint(pixels.images)
        figures["stored"] = {"height": pixels.shape[0], "width": pixels.shape[1], "bytes": pixels.nbytes}
        write_json(Path(config.json), figures)
    return facts


def _read_names(dataset: DatasetConfig, root: Path) -> tuple[Sequence[Record], list[Problem], str]:
    """Records, problems of names, and a sentence about the copy."""
    if dataset.name != "breakhis":
        source = open_source(dataset, root)
        return source.records, [], source.message
    paths = image_paths(root)
    first: dict[str, Record] = {}
    for record in filter(None, map(record_of, paths)):
        first.setdefault(record.image, record)
    if not first:
        example, advice = f", e.g. {paths[0]}" if paths else "", "give the folder that holds BreaKHis_v1"
        raise UserError(f"dataset.root={root}: no image below it is named as in BreakHis{example}; {advice}")
    records = list(first.values())
    return records, inspect_names(paths), census_message({record.image for record in records})


def print_outcome(facts: DatasetFacts, folder: Path, preview: bool) -> None:
    """Print the verdict and where the report is; what training would refuse is listed on stderr."""
    text = render_text("prepare.console", facts=facts, folder=folder, preview=preview)
    console().print(text, markup=False, end="")
    problems = render_text("prepare.problems", facts=facts, folder=folder, blocking=BLOCKING, limit=LISTED)
    print(problems, end="", file=sys.stderr)

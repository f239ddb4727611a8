"""``python -m histo_lightning.balance``: the balance table of the case folds, from the census or from a copy on disk."""

import sys
from collections import Counter
from pathlib import Path

from histo_lightning.data.cache import default_cache_dir
from histo_lightning.data.census import census_names
from histo_lightning.data.names import CLASSES, MAGNIFICATIONS
from histo_lightning.data.records import Record, record_of
from histo_lightning.data.sources import find_files, open_source
from histo_lightning.data.splits import Split, SplitPlan, build_split
from histo_lightning.launch import guard, launch
from histo_lightning.schema import Config


def balance_table(records: list[Record], plan: SplitPlan) -> list[list[str]]:
    """A heading and a row a fold: cases by class, images by class and magnification, share of benign images."""
    heading = ["fold", *(f"{c} cases" for c in CLASSES)]
    heading += [f"{c} {m}x" for c in CLASSES for m in MAGNIFICATIONS]
    heading += [*(f"{c} images" for c in CLASSES), "benign share"]
    known = {record.image: record for record in records}
    rows = [heading]
    for fold in range(plan.folds):
        split: Split = build_split(
            records, SplitPlan(fold=fold, folds=plan.folds, seed=plan.seed, repeat=plan.repeat)
        )
        members = [known[image] for image in split.parts["test"]]
        cases = {(r.class_name, r.case) for r in members}
        counts = Counter((r.class_name, r.magnification) for r in members)
        images = Counter(r.class_name for r in members)
        row = [str(fold), *(str(sum(c == name for c, _ in cases)) for name in CLASSES)]
        row += [str(counts[c, m]) for c in CLASSES for m in MAGNIFICATIONS]
        row += [*(str(images[c]) for c in CLASSES), f"{images['benign'] / len(members):.3f}"]
        rows.append(row)
    return rows


def markdown(rows: list[list[str]]) -> str:
    """Rows as a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def run(config: Config, hydra: dict[str, str]) -> None:
    """Print the table of a copy (``dataset=breakhis dataset.root=...``), else of the full census."""
    on_disk = config.dataset.name == "breakhis"
    cache = Path(config.cache_dir) if config.cache_dir else default_cache_dir()
    records = (
        list(open_source("breakhis", find_files("breakhis", config.dataset.root, cache)).records)
        if on_disk
        else [r for n in sorted(census_names()) if (r := record_of(n))]
    )
    split = config.split
    print(
        markdown(balance_table(records, SplitPlan(folds=split.folds, seed=split.seed, repeat=split.repeat)))
    )


def main() -> int:
    launch("train", run)
    return 0


if __name__ == "__main__":
    sys.exit(guard(main))

"""``python -m histo_lightning.audit``: does a split keep cases, slides and images on one side each?"""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from histo_lightning.inspection.audit_report import as_json, details, table, verdict
from histo_lightning.inspection.leaks import Findings, audit_split
from histo_lightning.data.splits.reading import NamedSplit, member, read_splits
from histo_lightning.data.splits.reading import printable
from histo_lightning.display import StepProgress, console
from histo_lightning.errors import UserError
from histo_lightning.launch import EXIT_FOUND, guard, launch
from histo_lightning.schema import AuditConfig, Config


def audit(config: AuditConfig) -> list[Findings]:
    """Audit every split of ``split_file``, by names, and by pixels where ``dataset.root`` says where the images are.

    Raises:
        UserError: the split cannot be read, no name says anything and there are no pixels, or no image can be read.
    """
    splits = read_splits(config.split_file)
    with ExitStack() as stack:
        pixels = None
        if config.dataset.root:
            from histo_lightning.data.split_pixels import (
                compare_pixels,
            )  # decoders: not where names are enough

            def progress(text: str) -> Callable[[int, int], None]:
                return stack.enter_context(StepProgress(text))

            members = [member(path) for split in splits for paths in split.parts.values() for path in paths]
            pixels = compare_pixels(members, config.dataset, config.cache_dir, progress)
        findings = [audit_split(split, pixels) for split in splits]
    for split, found in zip(splits, findings, strict=True):
        if found.blind and not found.leak:
            raise UserError(_nothing_known(config.split_file, split))
    return findings


def _nothing_known(split_file: str, split: NamedSplit) -> str:
    example = printable(next(iter(split.parts.values()))[0])
    return (
        f"{printable(split_file)}: GROUPING UNKNOWN: no name says its case as BreakHis names do, e.g. {example}, so "
        "nothing can be checked; give the original names, or dataset=folders dataset.root=<folder> to compare pixels"
    )


def say(findings: list[Findings]) -> None:
    """Print one table over all splits, then for each the verdict and the names to look at."""
    out = console()
    out.print(table(findings))
    for found in findings:
        out.print(f"{found.name}: {verdict(found)}", markup=False)
        for line in details(found):
            out.print(f"  {line}", markup=False)


def run(config: Config, hydra: dict[str, str]) -> int:
    """One file or folder; returns the exit status: 3 where something leaks."""
    if not isinstance(config, AuditConfig):
        raise TypeError(f"{type(config).__name__} instead of AuditConfig")
    findings = audit(config)
    leak = any(found.leak for found in findings)
    if config.json:
        from histo_lightning.runs import write_json

        each = [as_json(found) for found in findings]
        write_json(Path(config.json), each[0] if len(each) == 1 else {"folds": each, "leak": leak})
    say(findings)
    return EXIT_FOUND if leak else 0


def main() -> int:
    return max(launch("audit", run), default=0)


if __name__ == "__main__":
    sys.exit(guard(main))

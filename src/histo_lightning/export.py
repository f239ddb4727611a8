"""``python -m histo_lightning.export``: a checkpoint as a file for other programs, compared with it."""

import sys
from pathlib import Path

from histo_lightning.config.command_line import launch
from histo_lightning.config.exits import guard
from histo_lightning.config.schema import ExportConfig


def run(config: ExportConfig) -> None:
    """One checkpoint in one format."""
    from histo_lightning.inference.export import export, print_export  # torch: not for --help or a typo
    from histo_lightning.report.index import refresh_index

    print_export(*export(config))
    refresh_index(Path(config.output_dir))


def main() -> int:
    return launch("export", run)


if __name__ == "__main__":
    sys.exit(guard(main))

"""``python -m histo_lightning.export``: a checkpoint as a file for other programs, compared with it."""

import sys

from histo_lightning.launch import guard, launch
from histo_lightning.schema import ExportConfig


def run(config: ExportConfig, hydra: dict[str, str]) -> None:
    """One checkpoint in one format."""
    from histo_lightning.inference.export import export, print_export  # torch: not for --help or a typo

    print_export(*export(config))


def main() -> int:
    launch("export", run)
    return 0


if __name__ == "__main__":
    sys.exit(guard(main))

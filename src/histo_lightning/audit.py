"""``python -m histo_lightning.audit``: does a split keep cases, slides and images on one side each?"""

import sys

from histo_lightning.config.command_line import launch
from histo_lightning.config.exits import EXIT_FOUND, guard
from histo_lightning.config.schema import AuditConfig, Config
from histo_lightning.inspection.audit import audit, report


def run(config: Config) -> int:
    """One file or folder; returns the exit status: 3 where something leaks."""
    if not isinstance(config, AuditConfig):
        raise TypeError(f"{type(config).__name__} instead of AuditConfig")
    return EXIT_FOUND if report(audit(config), config.json) else 0


def main() -> int:
    return launch("audit", run)


if __name__ == "__main__":
    sys.exit(guard(main))

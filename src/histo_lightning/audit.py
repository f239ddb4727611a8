"""``python -m histo_lightning.audit``: does a split keep cases, slides and images on one side each?"""

import sys

from histo_lightning.inspection.audit import audit, report
from histo_lightning.launch import EXIT_FOUND, guard, launch
from histo_lightning.schema import AuditConfig, Config


def run(config: Config, hydra: dict[str, str]) -> int:
    """One file or folder; returns the exit status: 3 where something leaks."""
    if not isinstance(config, AuditConfig):
        raise TypeError(f"{type(config).__name__} instead of AuditConfig")
    return EXIT_FOUND if report(audit(config), config.json) else 0


def main() -> int:
    return max(launch("audit", run), default=0)


if __name__ == "__main__":
    sys.exit(guard(main))

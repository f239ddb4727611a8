"""``python -m histo_lightning.audit``: does a split keep cases, slides and images on one side each?"""

from histo_lightning.config.command_line import front_door
from histo_lightning.config.exits import EXIT_FOUND
from histo_lightning.config.schema import AuditConfig
from histo_lightning.inspection.audit import audit, report


def run(config: AuditConfig) -> int:
    """One file or folder; returns the exit status: 3 where something leaks."""
    return EXIT_FOUND if report(audit(config), config.json) else 0


main = front_door("audit", run, __name__)

"""``python -m histo_lightning.audit``: does a split keep cases, slides and images on one side each; is a run whole?"""

from histo_lightning.config.command_line import front_door
from histo_lightning.config.exits import EXIT_FOUND, EXIT_USER
from histo_lightning.config.schema import AuditConfig
from histo_lightning.inspection.audit import audit, audit_folders, report


def run(config: AuditConfig) -> int:
    """One split, or one folder of results; returns the exit status: 3 where something leaks, 2 where a file is damaged."""
    if config.run:
        return 0 if audit_folders(config.run, config.json) else EXIT_USER
    return EXIT_FOUND if report(audit(config), config.json) else 0


main = front_door("audit", run, __name__)

"""``python -m histo_lightning.export``: a checkpoint as a file for other programs, compared with it."""

from pathlib import Path

from histo_lightning.config.command_line import front_door
from histo_lightning.config.schema import ExportConfig


def run(config: ExportConfig) -> None:
    """One checkpoint in one format."""
    from histo_lightning.inference.export import export  # torch: not for --help or a typo
    from histo_lightning.report.index import refresh_index
    from histo_lightning.report.pages import render_text

    folder, metadata = export(config)
    print(render_text("export.console", folder=folder, metadata=metadata))
    refresh_index(Path(config.output_dir))


main = front_door("export", run, __name__)

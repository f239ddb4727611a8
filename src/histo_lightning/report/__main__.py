"""``python -m histo_lightning.report``: one index page of everything below a folder."""

from pathlib import Path

from histo_lightning.config.command_line import front_door
from histo_lightning.config.schema import IndexConfig
from histo_lightning.errors import UserError
from histo_lightning.runs import write_json


def run(config: IndexConfig) -> None:
    """One index, and TensorBoard on request."""
    from histo_lightning.report.index import entries, write_index  # templates: not for --help or a typo
    from histo_lightning.report.tensorboard import serve

    page = write_index(Path(config.output_dir))
    if page is None:
        nothing = "no run, sweep, study or evaluation below it; name another folder"
        raise UserError(f"output_dir={config.output_dir}: {nothing}")
    if config.json:
        write_json(Path(config.json), list(entries(Path(config.output_dir))))
    print(f"index: {page}")
    if config.tensorboard:
        serve(Path(config.output_dir), config.port)


main = front_door("report", run, __name__)

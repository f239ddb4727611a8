"""``python -m histo_lightning.prepare``: verify a data set, build its pixel cache, report on it."""

from pathlib import Path

from histo_lightning.config.command_line import front_door
from histo_lightning.config.exits import EXIT_USER
from histo_lightning.config.schema import PrepareConfig


def run(config: PrepareConfig) -> int:
    """One data set; returns the exit status: 2 where training would refuse the copy."""
    # Matplotlib and codecs: not for --help or a typo.
    from histo_lightning.inspection.preparation import prepare, print_outcome
    from histo_lightning.report.index import refresh_index

    folder = Path(config.output_dir) / "datasets" / (config.run_name or config.dataset.name)
    facts = prepare(config, folder)
    if config.preview:
        from histo_lightning.inspection.preview import write_preview

        write_preview(config, folder / "preview.png")
    refresh_index(Path(config.output_dir))
    print_outcome(facts, folder, config.preview)
    return EXIT_USER if facts.verdict()[1] else 0


main = front_door("prepare", run, __name__)

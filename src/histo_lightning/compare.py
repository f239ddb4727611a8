"""``python -m histo_lightning.compare``: any mix of runs in one table, compared."""

from pathlib import Path

from histo_lightning.config.command_line import front_door
from histo_lightning.config.schema import CompareConfig
from histo_lightning.runs import write_json


def run(config: CompareConfig) -> None:
    """One comparison."""
    from histo_lightning.comparison.folders import listed_folders

    folders = listed_folders(config.runs)
    print(f"reading the runs below {', '.join(str(folder) for folder in folders)}", flush=True)
    # Numbers and pictures: not for --help, nor before the first line.
    from histo_lightning.comparison.results import compare_runs
    from histo_lightning.report.index import refresh_index
    from histo_lightning.report.summaries import print_comparison

    out = Path(config.output_dir) / (f"comparisons/{config.run_name}" if config.run_name else "")
    names = ("factor", "reference", "score", "select", "standard_error")
    options = {name: getattr(config, name) for name in names}
    results = compare_runs(folders, out, **options, formats=config.report.formats)
    if config.json:
        write_json(Path(config.json), results)
    refresh_index(Path(config.output_dir))
    print_comparison(results, out)


main = front_door("compare", run, __name__)

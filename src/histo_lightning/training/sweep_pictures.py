"""Pictures and reports of a sweep's runs, drawn together at its end so that no training waits for them."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from histo_lightning.classifier.hardware import cores
from histo_lightning.config.checks import to_config
from histo_lightning.config.schema import Config
from histo_lightning.config.targets import import_modules
from histo_lightning.errors import UserError
from histo_lightning.report.console import StepProgress
from histo_lightning.training.results import draw_run
from histo_lightning.training.run import prepare_data

FEWEST_FOR_PROCESSES = 6  # below that, starting processes (imports) takes longer than it saves


def draw_missing(runs: Sequence[Path], shown: bool) -> list[str]:
    """Draw every run that has no ``report.html`` yet.

    Returns:
        What went wrong, a line a run: pictures that cannot be drawn lose no result.
    """
    missing = [run for run in runs if not (run / "report.html").is_file()]
    wrong: list[str] = []
    with StepProgress("drawing pictures", shown) as progress:
        if len(missing) < FEWEST_FOR_PROCESSES or cores() == 1:
            for done, run in enumerate(missing, start=1):
                wrong += _draw(run)
                progress(done, len(missing))
            return wrong
        context = multiprocessing.get_context("spawn")  # forks of a process that has run torch can hang
        with ProcessPoolExecutor(min(cores(), len(missing)), mp_context=context) as pool:
            for done, found in enumerate(pool.map(_draw, missing), start=1):
                wrong += found
                progress(done, len(missing))
    return wrong


def _draw(run: Path) -> list[str]:
    try:
        stored = OmegaConf.load(run / "config.yaml")
        assert isinstance(stored, DictConfig)
        config = to_config(stored)
        assert isinstance(config, Config)
        import_modules(config.imports)
        silent = replace(config, trainer=replace(config.trainer, progress="none"))
        draw_run(silent, run, prepare_data(silent))
    except (UserError, OSError) as error:
        return [f"{run}: its pictures cannot be drawn ({error})"]
    return []

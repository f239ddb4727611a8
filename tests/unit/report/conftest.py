"""Records of comparisons: what the report's pages and figures are made from."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from factories.sweeps import config_of, write_run, write_sweep
from histo_lightning.comparison.results import analyse

Json = dict[str, Any]


@pytest.fixture(scope="session")
def depths(swept: Path) -> Json:
    """Two depths at two magnifications, five folds and two seeds, with a selection."""
    return analyse([swept], select="best")[0]


@pytest.fixture(scope="session")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """A true/false key compared at two depths times three learning rates: twelve cells of five folds."""
    folder = tmp_path_factory.mktemp("crossed")
    for model, rate, frozen, fold in product(
        ("resnet101", "resnet18"), (0.1, 0.02, 0.003), (True, False), range(5)
    ):
        config = config_of(model, fold=fold)
        model_config = {**config.model, "freeze_backbone": frozen}
        write_run(folder, replace(config, model=model_config, optimizer={**config.optimizer, "lr": rate}))
    return analyse([folder], factor="model.freeze_backbone", reference="true")[0]


@pytest.fixture(scope="session")
def one_fold(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json]:
    """The README's sweep: one fold only; one run failed. The sweep's folder and its record."""
    folder = write_sweep(
        tmp_path_factory.mktemp("one fold") / "sweep",
        optimizers=("sgd", "adam"), magnifications=("40x", "100x"), folds=(0,),
    )  # fmt: skip
    write_run(folder, config_of(seed=5), name="no_luck", state="failed", error="<b>boom</b>")
    return folder, analyse([folder])[0]

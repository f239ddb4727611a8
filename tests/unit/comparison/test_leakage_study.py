"""The shipped leakage study: every job is valid, and keys that contradict each other are refused."""

import itertools
from copy import deepcopy
from dataclasses import asdict

import pytest
import yaml

from histo_lightning.comparison.leakage import arm_of
from histo_lightning.config.checks import check, flatten, to_config
from histo_lightning.config.identity import hashed, readable_name
from histo_lightning.config.tree import conf_dir


def study_file() -> dict:
    return yaml.safe_load((conf_dir() / "experiment" / "leakage_study.yaml").read_text())


def test_every_job_of_the_shipped_study_is_a_valid_config_with_a_name_of_its_own() -> None:
    from hydra import compose, initialize_config_dir

    study = study_file()
    names, hashes, arms = [], set(), set()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        bases = {
            kind: to_config(compose("train", overrides=[f"split={kind}"]))
            for kind in ("injection", "image_random", "slide_kfold", "case_kfold", "official")
        }
    for product in study["hydra"]["sweeper"]["products"]:
        for values in itertools.product(*(str(v).split(",") for v in product.values())):
            job = dict(zip(product, values, strict=True))
            config = deepcopy(bases[job.pop("split")])
            for key in ("epochs", "scored_weights", "image_size", "batch_size"):
                setattr(config, key, study[key])
            for key, value in job.items():
                home = config.split if key.startswith("split.") else config
                assert hasattr(home, key.split(".")[-1])
                setattr(home, key.split(".")[-1], yaml.safe_load(value))
            check(config)
            names.append(readable_name(config))
            hashes.add(hashed(config))
            settings = dict(flatten(asdict(config)))
            arms.add((arm_of(settings), settings["split.shuffle_labels"]))
    assert len(names) == len(set(names)) == len(hashes) == 170
    assert {arm for arm, shuffled in arms if not shuffled} == {
        "injected 0", "injected 0.25", "injected 0.5", "injected 1", "image_random", "slide_kfold", "case_kfold",
        "official", "official clean", "official matched",
    }  # fmt: skip
    assert {arm for arm, shuffled in arms if shuffled} == {
        "injected 0",
        "injected 1",
        "image_random",
        "case_kfold",
    }


def test_nothing_is_chosen_on_validation_in_the_study() -> None:
    study = study_file()
    assert study["scored_weights"] == "last"
    assert study["callbacks"]["early_stopping"] is None
    assert study["callbacks"]["ema"]["decay"] is not None
    assert study["hydra"]["mode"] == "MULTIRUN"


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["split.injected=1"], "only split=injection"),
        (["split=injection", "split.injected=0.1"], "allowed are 0"),
        (["split=injection", "split.injected=2"], "a number from 0 to 1"),
        (["split=injection", "magnification=all"], "split=injection needs one"),
        (["split=injection", "split.group=slide"], "groups by case"),
        (["split.matched=true"], "only split=official"),
        (["split=official", "split.matched=true", "split.clean=true"], "give one of them"),
        (["split=official", "split.shuffle_labels=true"], "only split=case_kfold"),
        (["split.shuffle_labels=true", "task=subtype"], "use task=binary"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(overrides: list[str], text: str) -> None:
    from histo_lightning.config.compose import config_of
    from histo_lightning.errors import UserError
    from histo_lightning.training.checks import check_keys

    with pytest.raises(UserError, match=text):
        check_keys(config_of("train", overrides))

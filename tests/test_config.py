"""Configuration: every shipped file composes, and what is wrong is said in one line before any work."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from histo_lightning.launch import compose_all
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st

from histo_lightning.config import CHOICES, MEANT_FOR, NOT_HASHED, RANGES
from histo_lightning.config.checks import schema_keys, to_config
from histo_lightning.config.compose import expand, parse, prepare_argument
from histo_lightning.config.identity import hashed, readable_name
from histo_lightning.config.schema import SCHEMAS, Config
from histo_lightning.config.tree import conf_dir
from histo_lightning.errors import UserError

GROUPS = {
    "model": "resnet10 resnet14 resnet18 resnet26 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d "
    "resnext101_32x8d wide_resnet50_2 wide_resnet101_2",
    "optimizer": "sgd adam adamw rmsprop",
    "scheduler": "constant step cosine onecycle plateau",
    "magnification": "40x 100x 200x 400x all",
    "dataset": "synthetic breakhis folders",
    "split": "case_kfold slide_kfold official folders file image_random injection",
    "augment": "none thesis thesis_pillow d4 d4_stain",
    "head": "linear mlp",
    "trainer": "auto cpu gpu ddp",
    "experiment": "thesis modern depth_study leakage_study smoke",
}


@pytest.fixture(autouse=True)
def composer():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


def config_of(*overrides: str) -> Config:
    prepared = [prepare_argument(override) for override in overrides]
    return compose_all("train", expand(parse(prepared), multirun=False))[0]


def shipped() -> list[str]:
    files = sorted(
        p
        for p in conf_dir().rglob("*.yaml")
        if p.parent.parent == conf_dir()
        and p.parent.name != "tune"  # spaces belong to tune: test_tune_space.py
    )
    return [f"{path.parent.name}={path.stem}" for path in files]


@pytest.mark.parametrize("option", shipped())
def test_every_shipped_config_composes(option: str) -> None:
    needed = {"dataset=folders": [], "split=folders": ["dataset=folders"]}.get(option, [])
    group, name = option.split("=")
    command = "tune" if group == "tune" else "train"
    prepared = [prepare_argument(override) for override in (option, *needed)]
    (config,) = compose_all(command, expand(parse(prepared, command), multirun=False))
    if group not in ("experiment", "magnification", "optimizer", "tune"):
        assert getattr(config, group).name == {"synthetic_large": "synthetic"}.get(name, name)
    if group == "magnification":
        assert config.magnification == name


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_command_s_config_composes(name: str) -> None:
    (config,) = compose_all(name, [["json=figures.json"]])
    assert type(config) is SCHEMAS[name]
    assert config.json == "figures.json"
    with pytest.raises(UserError, match="unknown key"):
        parse(["suite=quick" if name != "benchmark" else "verify=full"], name)


@pytest.mark.parametrize("group", GROUPS)
def test_the_contract_s_options_are_there(group: str) -> None:
    assert set(GROUPS[group].split()) <= {path.stem for path in (conf_dir() / group).glob("*.yaml")}


def test_every_file_says_what_it_decides() -> None:
    for path in conf_dir().rglob("*.yaml"):
        lines = [line for line in path.read_text().splitlines() if "@package" not in line]
        assert lines[0].startswith("# "), path


def test_the_thesis_is_to_the_letter() -> None:
    config = config_of("experiment=thesis")
    assert config.model.name == "resnet50"
    assert config.model.freeze_backbone
    assert (config.head.name, config.head.hidden, config.head.dropout) == ("mlp", 512, 0.05)
    sgd = config.optimizer
    assert (sgd.name, sgd.lr, sgd.momentum, sgd.weight_decay, sgd.nesterov) == (
        "sgd",
        1e-4,
        0.09,
        0.01,
        False,
    )
    step = config.scheduler
    assert (step.name, step.step_size, step.gamma) == ("step", 50, 0.1)
    assert (config.epochs, config.batch_size, config.image_size) == (300, 32, 224)
    assert (config.early_stopping.monitor, config.early_stopping.patience) == ("val_loss", 30)
    assert (config.monitor, config.scored_weights) == ("val_accuracy", "best")
    assert config.augment.normalisation == "imagenet"
    other = config_of(
        "experiment=thesis", "model=resnet34", "optimizer=thesis_adam", "model.freeze_backbone=false"
    )
    assert (other.model.name, other.model.freeze_backbone) == ("resnet34", False)
    assert (other.optimizer.name, other.optimizer.lr, other.optimizer.weight_decay) == ("adam", 1e-4, 1e-3)
    assert other.optimizer.momentum is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle=resnet34", "unknown key 'modle'; did you mean 'model'"),
        ("+typo=1", "unknown key 'typo'"),
        ("++optimizer.lrr=1", r"unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'"),
        ("optimizer.lrr=1", r"unknown key 'optimizer.lrr'"),
        ("model=resnet35", "model=resnet35: no such option; allowed are .*resnet34"),
        ("magnification=45x", "did you mean '40x'"),
        ("model.name=resnt18", r"model.name=resnt18: allowed are .*did you mean 'resnet18'"),
        ("epochs=abc", "epochs: Value 'abc' .* allowed is a number from 1"),
        ("epochs=0", "epochs=0: allowed is a number from 1"),
        ("seed=1.5", "seed: Value '1.5'"),
        ("test=maybe", "test: Value 'maybe' is not a valid bool"),
        ("task=eight", "task=eight: allowed are binary, subtype"),
        ("optimizer=[a,b]", "no such option|mapping|Could not"),
        ("split.fold", "cannot read 'split.fold'"),
        ("run_name=a/b", "run_name=a/b: allowed are letters"),
        ("augment.crop_scale=[1,0.5]", "the smaller first"),
        ("split.group=slide", "split=case_kfold groups by case"),
        ("split.clean=true", "only split=official"),
        ("split=folders", "split=folders needs dataset=folders"),
        ("trainer.devices=2", "several devices need trainer=ddp"),
        ("optimizer.alpha=0.9", "has no effect with optimizer=adamw; it belongs to rmsprop"),
        ("batch_size=1", "batch_size=1: allowed"),
    ],
)
def test_bad_input_is_one_clear_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        config_of(override)
    assert "\n" not in str(error.value)


def test_all_jobs_of_a_sweep_are_validated_before_the_first() -> None:
    jobs = expand(parse(["epochs=1,abc", "model=glob(resnet1*)"]), multirun=True)
    assert len(jobs) == 2 * 5  # resnet10, 101, 14, 152, 18
    with pytest.raises(UserError, match="abc"):
        compose_all("train", jobs)


@given(st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r\n"), min_size=1))
def test_literal_values_come_through_unchanged(value: str) -> None:
    (override,) = parse([prepare_argument(f"dataset.root={value}")])
    if value == "null":
        assert override.value() is None
    else:
        from omegaconf import OmegaConf

        assert OmegaConf.create({"root": override.value()}).root == value


def test_literal_values_survive_a_real_composition() -> None:
    for value in (
        "a b,c=d",
        "it's",
        'say "x"',
        "${HOME}",
        "back\\slash\\",
        "[1,2]",
        "x'y\\'z",
        "${oc.env:HOME}\\",
    ):
        assert config_of("dataset=breakhis", f"dataset.root={value}").dataset.root == value


def test_tables_of_the_schema_name_real_keys() -> None:
    keys = {key for schema in SCHEMAS.values() for key in schema_keys(schema)}
    for table in (CHOICES, RANGES, MEANT_FOR, NOT_HASHED):
        assert set(table) <= keys
    fields = {key for key in keys if key.endswith(".name")}
    assert fields <= set(CHOICES) | {"augment.name", "trainer.name", "tune.name"}


def test_the_hash_is_of_the_experiment_alone() -> None:
    base = config_of()
    assert hashed(
        config_of("output_dir=elsewhere", "json=x.json", "resume=never", "trainer.threads=1")
    ) == hashed(base)
    for change in (
        "seed=1",
        "epochs=3",
        "model=resnet34",
        "split.fold=1",
        "magnification=100x",
        "ema.decay=0.9",
    ):
        assert hashed(config_of(change)) != hashed(base)
    assert re.fullmatch(r"[A-Za-z0-9._-]+_[0-9a-f]{8}", readable_name(base))
    named = readable_name(replace(base, run_name="mine"))
    assert named == f"mine_{hashed(base)}"


def test_composed_yaml_merges_into_a_fresh_schema() -> None:
    composed = compose("train", overrides=["+surprise=1"])
    with pytest.raises(UserError, match="unknown key 'surprise'"):
        to_config(composed)


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["modle=resnet34"], 2, "did you mean 'model'"),
        (["-m", "epochs=1,abc"], 2, "epochs: Value 'abc'"),
        (["--frob"], 2, "unrecognized arguments: --frob"),
        (["model=resnet18,resnet34"], 2, "add -m"),
        (["trainer=gpu"], 2, "this machine shows 0 GPU"),
    ],
)
def test_the_real_command_refuses_in_one_line(
    command, tmp_path: Path, arguments, status: int, text: str
) -> None:
    done = command("train", *arguments, CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout) == (status, "")
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "outputs").exists() or not any((tmp_path / "outputs").rglob("*.*"))


def test_help_and_refusals_import_no_torch() -> None:
    code = (
        "import sys\nsys.argv = ['train', 'modle=1']\n"
        "from histo_lightning import train, launch\n"
        "status = launch.guard(train.main)\n"
        "print(status, sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'pytorch_lightning', 'torchvision'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "2 []\n"

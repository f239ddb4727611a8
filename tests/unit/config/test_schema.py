"""The schema: what a value may be stands beside its field, and one generic check reads it."""

import re
from dataclasses import fields, replace

import pytest
from omegaconf import OmegaConf

from factories.configs import composed
from histo_lightning.config.checks import (
    check,
    keys_with,
    schema_fields,
    to_config,
)
from histo_lightning.config.compose import config_of
from histo_lightning.config.help import help_text
from histo_lightning.config.identity import hashed
from histo_lightning.config.schema import SCHEMAS, Config, EvaluateConfig, TrainerConfig, short_name
from histo_lightning.config.tree import conf_dir
from histo_lightning.errors import UserError

RULES = {"choices", "low", "high", "pattern", "only", "pair", "items", "hashed", "literal"}


@pytest.mark.parametrize("name", SCHEMAS)
def test_metadata_is_known_and_every_default_keeps_to_it(name: str) -> None:
    schema = SCHEMAS[name]
    for key, entry in schema_fields(schema):
        assert set(entry.metadata) <= RULES, key
        assert ("low" in entry.metadata) == ("high" in entry.metadata), key
        if only := entry.metadata.get("only"):
            group = key.split(".")[0]
            assert set(only) <= {path.stem for path in (conf_dir() / group).glob("*.yaml")}, key
    check(schema())


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_key_is_in_a_file_of_conf_with_a_comment(name: str) -> None:
    """Keys at the root of a command's file; keys of its groups are in the groups' files."""
    shown = help_text(name)
    files = {path.stem: path.read_text() for path in conf_dir().glob("*.yaml")}
    for entry in fields(SCHEMAS[name]):
        if (conf_dir() / entry.name).is_dir():
            continue
        assert re.search(rf"^{entry.name}:", files[name] + files["train"], re.MULTILINE), entry.name
        assert re.search(rf"^  {entry.name}\b", shown, re.MULTILINE), entry.name


def test_literal_keys_are_the_contract_s() -> None:
    assert keys_with("literal", True) >= {
        *("input", "checkpoint", "runs", "split_file", "json", "output_dir", "dataset.root", "split.path", "resume"),
    }  # fmt: skip


def test_keys_that_change_no_result_are_the_contract_s() -> None:
    keys = set(dict(schema_fields(Config)))
    named = {"output_dir", "run_name", "sweep_name", "resume", "json", "trainer.devices", "trainer.threads"}
    assert named <= keys_with("hashed", False)
    assert named <= keys
    for changing in ("seed", "epochs", "test", "monitor", "dataset.name", "trainer.precision", "split.path"):
        assert changing not in keys_with("hashed", False)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("torch.optim.AdamW", "adamw"),
        ("torch.optim.RMSprop", "rmsprop"),
        ("torch.optim.lr_scheduler.OneCycleLR", "onecycle"),
        ("torch.optim.lr_scheduler.ReduceLROnPlateau", "plateau"),
        ("histo_lightning.models.schedules.Cosine", "cosine"),
        ("histo_lightning.models.resnet.resnet18", "resnet18"),
    ],
)
def test_results_call_an_object_by_the_name_of_its_option(target: str, name: str) -> None:
    assert short_name(target) == name


def test_names_of_options_and_of_what_they_build_are_the_same() -> None:
    for group in ("model", "optimizer", "scheduler"):
        for path in (conf_dir() / group).glob("*.yaml"):
            target = (OmegaConf.load(path) or {}).get("_target_")
            if target and not path.stem.startswith("thesis_"):
                assert short_name(target) == path.stem


def test_defaults_are_those_of_the_files() -> None:
    shipped = composed()
    for entry in fields(Config):
        mine, theirs = getattr(Config(), entry.name), getattr(shipped, entry.name)
        if entry.name == "dataset":  # the option's file says what is drawn
            mine = replace(mine, images_per_slide=4, image_size=350, seed=0)
        assert mine == theirs, entry.name


def test_what_a_group_s_file_leaves_out_is_off() -> None:
    config = composed("augment=none")
    assert (config.augment.dihedral, config.augment.brightness) == (False, 0.0)
    assert composed("optimizer=sgd").optimizer.keys() == {
        "_target_", "name", "lr", "momentum", "nesterov", "weight_decay",
    }  # fmt: skip


def test_composed_yaml_merges_into_a_fresh_schema() -> None:
    tree = OmegaConf.create({"seed": 3, "surprise": 1})
    with pytest.raises(UserError, match=r"unknown key 'surprise'"):
        to_config(tree)
    tree = OmegaConf.create({"seed": 3, "trainer": {"compile": True, "max_steps": 4}})
    config = to_config(tree)
    assert (config.seed, config.trainer.compile, config.trainer.flags) == (3, "true", {"max_steps": 4})
    with pytest.raises(UserError, match=r"optimizer\._target_ is missing"):
        to_config(OmegaConf.create({"optimizer": {"lr": 1.0}}))
    with pytest.raises(UserError, match=r"model\.name=x: follows from model\._target_"):
        to_config(OmegaConf.create({"model": {"_target_": "a.b.net", "name": "x"}}))


def test_a_command_without_training_takes_a_group_s_other_keys_and_no_flags() -> None:
    given = {"dataset": {"name": "breakhis"}, "epochs": 60, "batch_size": 8}
    config = to_config(OmegaConf.create(given), EvaluateConfig)
    assert isinstance(config, EvaluateConfig)
    assert (config.dataset.name, config.batch_size) == ("breakhis", 8)
    with pytest.raises(UserError, match=r"unknown key 'trainer\.max_steps'"):
        to_config(OmegaConf.create({"trainer": {"max_steps": 3}}), EvaluateConfig)


def test_a_config_written_to_yaml_reads_back_the_same() -> None:
    from dataclasses import asdict

    config = composed("experiment=thesis", "trainer.max_steps=3", "logger=[tensorboard,csv]", "debug=limit")
    assert to_config(OmegaConf.create(asdict(config))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs=0: allowed is a number from 1 to 100000"),
        ({"task": "eight"}, "task=eight: allowed are binary, subtype"),
        ({"run_name": "a b"}, "run_name=a b: allowed are letters"),
        ({"trainer": TrainerConfig(precision="bf16")}, "trainer.precision=bf16: .*did you mean 'bf16-mixed'"),
    ],
)
def test_one_check_reads_the_fields(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(replace(Config(), **changes))


def test_picture_formats_are_a_list_of_known_ones_and_change_no_hash() -> None:
    both = config_of("train", ["report.formats=[png,svg]"])
    assert both.report.formats == ["png", "svg"]
    assert hashed(both) == hashed(config_of("train", []))
    for command in ("train", "compare", "evaluate"):
        with pytest.raises(UserError, match=r"report\.formats=\['gif'\]: allowed are lists of png, svg, pdf"):
            config_of(command, ["report.formats=[gif]"])

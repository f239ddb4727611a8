"""What a search may be over: every space that ships, every mistake in one line, the protocol's refusals."""

import copy
import math
import subprocess
import sys
from collections.abc import Sequence
from functools import cache

import pytest
import yaml
from histo_lightning.launch import compose_all
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from histo_lightning.config.checks import schema_keys, to_config
from histo_lightning.config.compose import expand, parse, prepare_argument
from histo_lightning.config.identity import hashed
from histo_lightning.config.schema import Config, TuneConfig
from histo_lightning.config.tree import conf_dir
from histo_lightning.errors import UserError
from histo_lightning.tuning.results import TrialRow, best_row, edges, overrides
from histo_lightning.tuning.space import Dimension, apply, arms, read_space, study_name

SPACES = sorted(path.stem for path in (conf_dir() / "tune").glob("*.yaml"))


def tune_config(*arguments: str) -> TuneConfig:
    """What a command line gives, through every check before work."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        overrides = parse([prepare_argument(argument) for argument in arguments], "tune")
        (config,) = compose_all("tune", expand(overrides, multirun=False))
    assert isinstance(config, TuneConfig)
    return config


@cache
def composed(*groups: str):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("tune", overrides=list(groups))


def settled(*arguments: str) -> TuneConfig:
    """As ``tune_config``, without Hydra's grammar: a tenth of the time."""
    groups = tuple(a for a in arguments if a.split("=")[0] in ("tune", "scheduler", "trainer", "experiment"))
    config = copy.deepcopy(composed(*groups))
    OmegaConf.set_struct(config, False)
    for argument in (a for a in arguments if a not in groups):
        key, _, value = argument.partition("=")
        OmegaConf.update(config, key, yaml.safe_load(value.replace(":", ": ")), force_add=True)
    found = to_config(config, TuneConfig)
    assert isinstance(found, TuneConfig)
    return found


def space_of(*arguments: str) -> dict[str, Dimension]:
    return {dimension.key: dimension for dimension in read_space(settled(*arguments))}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_space_that_ships_searches_keys_of_a_training_run(name: str, optimizer: str) -> None:
    config = tune_config(f"tune={name}", f"optimizer={optimizer}")
    assert config.tune.name == name
    space = read_space(config)
    assert {dimension.key for dimension in space} <= set(schema_keys(Config))
    assert sum(arm.trials for arm in arms(config, space)) == config.tune.trials
    assert len({arm.trials for arm in arms(config, space)}) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tune.space.optimzer.lr.low=1"], "unknown key 'optimzer.lr'; did you mean 'optimizer.lr'?"),
        (["tune.space.optimizer.lr.hgih=1"], "unknown key 'hgih'; did you mean 'high'?"),
        (["tune.space.optimizer.lr.high=1000"], "optimizer.lr=1000.0: allowed is a number from 0 to 100"),
        (["tune.space.optimizer.lr.low=abc"], "optimizer.lr.low=abc: a number is needed"),
        (["tune.space.optimizer.lr.low=.nan"], "a number is needed"),
        (["tune.space.optimizer.lr.low=true"], "a number is needed"),
        (["tune.space.optimizer.lr.low=0"], "must be above 0 on a logarithmic scale"),
        (["tune.space.optimizer.lr.low=1"], "low=1 must be below high=0.1"),
        (["tune.space.optimizer.lr.low=null"], "low is missing"),
        (["tune.space.optimizer.lr.log=maybe"], "allowed are true and false"),
        (["tune.space.optimizer.lr.step=0.01"], "without log"),
        (["tune.space.batch_size={low:16,high:40,step:16}"], "high - low = 24 must be a multiple"),
        (["tune.space.optimizer.lr=3"], "give low and high, or choices"),
        (["tune.space.optimizer.lr.choices=[1e-3,1e-2]"], "choices and low exclude each other"),
        (["tune.space.batch_size={low:16,high:32.5}"], "takes whole numbers"),
        (["tune.space.batch_size={choices:[16]}"], "a list of two or more"),
        (["tune.space.batch_size={choices:[16,16]}"], "stands there twice"),
        (["tune.space.batch_size={choices:[16,1]}"], "batch_size=1: allowed is a number from 2 to 65536"),
        (["tune.space.sampler={choices:[shuffle,case_balancd]}"], "did you mean 'case_balanced'?"),
        (["tune.space.sampler={low:0,high:1}"], "is no number, so give choices"),
        (["tune.space.augment.crop_scale={choices:[[0.5,1],[0.8,1]]}"], "it is a list"),
        (["tune.space.model.zero_init_residual={choices:[1,0]}"], "1 is of a wrong type"),
        (["tune.space.optimizer.name={choices:[sgd,adam]}"], "each choice has keys of its own"),
        (["tune.space.seed={low:0,high:9}"], "choosing the luckiest seed"),
        (["tune.space.split.fold={low:0,high:4}"], "a study belongs to one split"),
        (["tune.space.magnification={choices:[40x,100x]}"], "a study for each magnification"),
        (["tune.space.monitor={choices:[val_loss,val_auroc]}"], "what trials are compared by"),
        (["tune.space.test={choices:[true,false]}"], "never read the test part"),
        (["tune.space.output_dir={choices:[a,b]}"], "where things go"),
        (["tune.space.trainer.precision={choices:[auto,32-true]}"], "how fast a run is"),
        (["tune.space.scheduler.warmup_epochs={low:0,high:3}", "scheduler=onecycle"], "no effect with scheduler=onecycle"),
        (["tune.space.optimizer=null"], "nothing to search"),
        (["tune=depth", "tune.space.optimizer=null"], "nothing to search but the depth"),
        (["tune=depth", "tune.trials=20"], "must be a multiple of 3 (18 or 21)"),
        (["tune=depth", "tune.trials=2"], "must be a multiple of 3 (3)"),
        (["tune=depth", "tune.space.model.name.choices=[resnet18,resnet43]", "tune.trials=2"], "did you mean 'resnet34'?"),
        (["tune.trails=3"], "unknown key 'tune.trails'; did you mean 'tune.trials'?"),
        (["tune.trials=0"], "allowed is a number from 1"),
        (["tune.sampler=tpee"], "did you mean 'tpe'?"),
        (["study_name=a/b"], "allowed are letters"),
        (["tune.folds=[0,1]"], "test cases of another; nested=false allows it"),
        (["tune.folds=[0,0]", "nested=false"], "stands there twice"),
        (["trainer=ddp"], "a trial runs in one process"),
        (["resume=best.ckpt"], "a study takes auto or never"),
    ],
)  # fmt: skip
def test_a_wrong_space_ends_in_one_line(arguments: Sequence[str], said: str) -> None:
    with pytest.raises(UserError) as raised:
        settled(*arguments)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_command_line_takes_them_too() -> None:
    with pytest.raises(UserError, match=r"unknown key 'optimzer.lr'; did you mean 'optimizer.lr'\?"):
        tune_config("tune.space.optimzer.lr.low=1")
    with pytest.raises(UserError, match=r"tune=optmizer: no such option.*did you mean 'optimizer'\?"):
        tune_config("tune=optmizer")
    config = tune_config(
        "~tune.space.optimizer.weight_decay", "tune.space.batch_size={low:16,high:32}", "trainer.threads=1"
    )
    assert [dimension.key for dimension in read_space(config)] == ["batch_size", "optimizer.lr"]


def test_other_commands_do_not_take_a_space() -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for name in ("train", "prepare", "evaluate"):
            with pytest.raises(UserError, match="unknown key"):
                parse(["tune.space.optimizer.lr.low=1"], name)


def test_types_come_from_the_schema() -> None:
    space = space_of(
        "tune.space.batch_size={low:16,high:64,step:16}",
        "tune.space.ema.decay={choices:[null,0.9]}",
        "tune.space.model.zero_init_residual={choices:[true,false]}",
    )
    assert (space["batch_size"].kind, space["batch_size"].high) == ("int", 64)
    assert space["optimizer.lr"].kind == "float"
    assert space["ema.decay"].choices == (None, 0.9)
    assert space["model.zero_init_residual"].choices == (True, False)
    assert list(space) == sorted(space)
    assert "optimizer.weight_decay" not in space_of("tune.space.optimizer.weight_decay=null")


def test_a_setting_is_checked_and_typed_like_a_command_line() -> None:
    config = settled()
    run = apply(config, {"batch_size": 48, "optimizer.lr": 0.02, "test": False})
    assert type(run) is Config
    assert (run.batch_size, run.optimizer.lr, run.test) == (48, 0.02, False)
    assert config.batch_size != 48
    with pytest.raises(UserError, match="image_size"):
        apply(config, {"image_size": 3})
    assert hashed(apply(config, {})) == hashed(apply(config, {"optimizer.lr": config.optimizer.lr}))


@pytest.mark.parametrize(
    ("dimension", "value", "position", "edge"),
    [
        (Dimension("optimizer.lr", "float", 1e-5, 1e-1, log=True), 1e-3, 0.5, None),
        (Dimension("optimizer.lr", "float", 1e-5, 1e-1, log=True), 10**-4.85, 0.0375, "low"),
        (Dimension("optimizer.lr", "float", 1e-5, 1e-1, log=True), 0.09, (math.log10(0.09) + 5) / 4, "high"),
        (Dimension("label_smoothing", "float", 0.0, 0.2), 0.2, 1.0, "high"),
        (Dimension("label_smoothing", "float", 0.0, 0.2), 0.02, 0.1, None),
        (Dimension("batch_size", "int", 16, 64, step=16), 16, 0.0, "low"),
        (Dimension("batch_size", "int", 16, 64, step=16), 48, 2 / 3, None),
        (Dimension("image_size", "choice", choices=(160, 64, 96)), 160, 1.0, "high"),
        (Dimension("image_size", "choice", choices=(160, 64, 96)), 96, 0.5, None),
        (Dimension("sampler", "choice", choices=("shuffle", "case_balanced")), "shuffle", None, None),
        (Dimension("ema.decay", "choice", choices=(None, 0.9)), 0.9, None, None),
        (Dimension("model.zero_init_residual", "choice", choices=(True, False)), True, None, None),
    ],
)  # fmt: skip
def test_the_edge_of_a_range(dimension: Dimension, value, position, edge) -> None:
    assert dimension.edge(value) == edge
    assert dimension.position(value) == (None if position is None else pytest.approx(position))


def test_an_edge_says_whether_the_key_allows_more() -> None:
    space = [
        Dimension("label_smoothing", "float", 0.0, 0.2),
        Dimension("optimizer.lr", "float", 1e-5, 1e-1, log=True),
    ]
    smoothing, lr = edges(space, {"label_smoothing": 0.001, "optimizer.lr": 1e-5})
    assert (smoothing["edge"], smoothing["limit"]) == ("low", True)
    assert (lr["edge"], lr["limit"]) == ("low", False)


def test_the_best_is_the_first_of_equals_and_never_a_pruned_one() -> None:
    def row(trial: int, state: str, value: float | None) -> TrialRow:
        return TrialRow(trial, "resnet18", state, value, {}, (), 1, None, (), "")

    rows = [row(0, "pruned", None), row(1, "complete", 0.4), row(2, "complete", 0.3), row(3, "complete", 0.3)]
    assert best_row(rows, minimise=True) == rows[2]
    assert best_row(rows, minimise=False) == rows[1]
    assert best_row(rows[:1], minimise=True) is None


def test_overrides_can_be_given_back_to_training() -> None:
    values = {
        "optimizer.lr": 1.2345678901234567e-5,
        "ema.decay": None,
        "model.zero_init_residual": False,
        "sampler": "shuffle",
    }
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        given = parse([prepare_argument(line) for line in overrides(values)], "train")
        (config,) = compose_all("train", expand(given, multirun=False))
    assert isinstance(config, Config)
    assert config.optimizer.lr == 1.2345678901234567e-5
    assert (config.ema.decay, config.model.zero_init_residual, config.sampler) == (None, False, "shuffle")


def test_the_same_settings_have_the_same_name_whatever_the_budget() -> None:
    name = study_name(settled())
    for same in (
        "tune.trials=40",
        "tune.workers=2",
        "tune.final=false",
        "test=false",
        "output_dir=x",
        "trainer.threads=1",
    ):
        assert study_name(settled(same)) == name
    for other in (
        "tune.space.optimizer.lr.low=1e-4",
        "tune.sampler=random",
        "split.fold=1",
        "seed=1",
        "epochs=3",
    ):
        assert study_name(settled(other)) != name
    assert study_name(settled("study_name=mine")) == "mine"
    assert study_name(settled("tune=depth")).startswith("depth_adamw_40x_case_kfold-0_s0_")


def test_a_typo_needs_neither_torch_nor_optuna() -> None:
    script = (
        "import sys; sys.argv = ['tune', 'tune.trails=3']\n"
        "from histo_lightning import tune\nfrom histo_lightning.launch import guard\n"
        "status = guard(tune.main); print(status, sorted({'torch', 'optuna', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "2 []"
    assert (
        done.stderr
        == "error: unknown key 'tune.trails'; did you mean 'tune.trials'? (all keys stand in conf/train.yaml)\n"
    )


def test_without_optuna_one_line_names_the_extra() -> None:
    script = (
        "import sys; sys.modules['optuna'] = None; sys.argv = ['tune', 'tune.trials=3']\n"
        "from histo_lightning import tune\nfrom histo_lightning.launch import guard\nprint(guard(tune.main))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "2"
    assert done.stderr == "error: tune: needs Optuna; pip install 'histo-lightning[tune]'\n"

"""What a search may be over: every space that ships, every mistake in one line, the protocol's refusals."""

import math
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from factories.configs import read_line
from factories.studies import settled
from histo_lightning.config.compose import config_of, config_tree, parse, prepare_argument
from histo_lightning.config.identity import hashed
from histo_lightning.config.schema import Config, TuneConfig
from histo_lightning.config.tree import conf_dir
from histo_lightning.errors import UserError
from histo_lightning.training.checks import check_runs
from histo_lightning.tuning.results import best_row
from histo_lightning.tuning.space import (
    Plan,
    check_tuning,
    corners,
    edge,
    overrides,
    searches,
    study_name,
)

SPACES = sorted(path.stem for path in (conf_dir() / "tune").glob("*.yaml"))
LR = FloatDistribution(1e-5, 1e-1, log=True)


def tune_config(*arguments: str) -> TuneConfig:
    """What a command line gives, through every check before work."""
    config = config_of("tune", arguments)
    assert isinstance(config, TuneConfig)
    check_tuning(config)
    return config


def run_of(given: Sequence[str], settings: dict) -> Config:
    plan = Plan(Path("study"), settled(), {"overrides.yaml": yaml.safe_dump(list(given))})
    return plan.run_config(settings, plan.folds[0])


def space_of(*arguments: str) -> dict:
    return dict(searches(settled(*arguments))[0].space)


@pytest.mark.parametrize("name", SPACES)
def test_every_space_that_ships_can_be_composed_at_its_ends(name: str) -> None:
    config = tune_config(f"tune={name}", "optimizer=sgd")
    assert config.tune.name == name
    plan = searches(config)
    assert sum(search.trials for search in plan) == config.tune.trials
    assert len({search.trials for search in plan}) == 1
    for setting in corners(plan[-1]):
        run = run_of(["optimizer=sgd", "++tune.trials=3", "nested=false"], setting)
        assert (run.optimizer["lr"], run.optimizer["name"]) == (setting["optimizer.lr"], "sgd")
        assert run.model["name"] == setting.get("model", config.model["name"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tune.space.optimzer.lr.low=1"], "unknown key 'optimzer.lr'; did you mean 'optimizer.lr'?"),
        (["tune.space.optimizer.lr.hgih=1"], "unknown key 'hgih'; did you mean 'high'?"),
        (["tune.space.optimizer.lr.low=abc"], "could not convert string to float: 'abc'"),
        (["tune.space.optimizer.lr.low=0"], "`low > 0`"),
        (["tune.space.optimizer.lr.low=1"], "`low <= high` must hold, but got (low=1.0, high=0.1)"),
        (["tune.space.optimizer.lr.low=null"], "low or high is missing"),
        (["tune.space.optimizer.lr.log=maybe"], "is not a valid bool"),
        (["tune.space.optimizer.lr.step=0.01"], "`step` is not supported when `log` is true"),
        (["tune.space.batch_size={low:16,high:40,step:16}"], "the range is not divisible by `step`"),
        (["tune.space.optimizer.lr=3"], "give low and high, or choices"),
        (["tune.space.optimizer.lr.choices=[1e-3,1e-2]"], "choices and a range exclude each other"),
        (["tune.space.batch_size={low:16,high:32.5}"], "takes whole numbers"),
        (["tune.space.batch_size={choices:[16]}"], "two or more are needed"),
        (["tune.space.batch_size={choices:[16,16]}"], "each once"),
        (["tune.space.sampler={low:0,high:1}"], "is no number, so give choices"),
        (["tune.space.model={low:0,high:1}"], "is no number, so give choices"),
        (["tune.space.seed={low:0,high:9}"], "trials share data, split, seed"),
        (["tune.space.split.fold={low:0,high:4}"], "cannot be searched"),
        (["tune.space.magnification={choices:[40x,100x]}"], "cannot be searched"),
        (["tune.space.early_stopping.monitor={choices:[val_loss,val_auroc]}"], "what compares them"),
        (["tune.space.output_dir={choices:[a,b]}"], "cannot be searched"),
        (["tune.space.optimizer=null"], "nothing to search"),
        (["tune=depth", "tune.space.optimizer=null"], "nothing to search but the depth"),
        (["tune=depth", "tune.trials=20"], "3 depths share them equally; a multiple is 21"),
        (["tune.trails=3"], "unknown key 'tune.trails'; did you mean 'tune.trials'?"),
        (["tune.trials=0"], "allowed is a number from 1"),
        (["tune.sampler=tpee"], "did you mean 'tpe'?"),
        (["study_name=a/b"], "allowed are letters"),
        (["tune.folds=[0,1]"], "test cases of another; nested=false allows it"),
        (["tune.folds=[0,0]", "nested=false"], "a fold is given twice"),
        (["trainer=ddp"], "a trial runs in one process"),
        (["resume=best.ckpt"], "a study takes auto or never"),
    ],
)  # fmt: skip
def test_a_wrong_space_ends_in_one_line(arguments: Sequence[str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        settled(*arguments)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        (["tune.space.optimizer.eps={low:-1.0,high:1.0}"], [], "Invalid epsilon"),
        (["tune.space.batch_size={choices:[16,1]}"], [], "batch_size=1: allowed is a number from 2 to 65536"),
        (["tune.space.sampler={choices:[shuffle,case_balancd]}"], [], "did you mean 'case_balanced'?"),
        (["tune.space.scheduler.warmup_epochs={low:0,high:3}"], ["scheduler=onecycle"], "OneCycleLR has no such argument"),
        (["tune.space.model={choices:[resnet18,resnet43]}", "tune.trials=2"], [], "resnet43"),
    ],
)  # fmt: skip
def test_the_ends_of_a_range_are_checked_as_settings_of_a_run(
    arguments: Sequence[str], given: list[str], message: str
) -> None:
    settings = [setting for search in searches(settled(*arguments)) for setting in corners(search)]
    with pytest.raises(UserError) as raised:
        check_runs(list(map(partial(run_of, given), settings)))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_command_line_takes_them_too() -> None:
    with pytest.raises(UserError, match=r"unknown key 'optimzer.lr'; did you mean 'optimizer.lr'\?"):
        tune_config("tune.space.optimzer.lr.low=1")
    with pytest.raises(UserError, match=r"tune=optmizer: no such option.*did you mean 'optimizer'\?"):
        tune_config("tune=optmizer")
    config = tune_config("~tune.space.optimizer.weight_decay", "tune.space.batch_size={low:16,high:32}")
    assert list(searches(config)[0].space) == ["batch_size", "optimizer.lr"]


def test_other_commands_do_not_take_a_space() -> None:
    with config_tree():
        for name in ("train", "prepare", "evaluate"):
            with pytest.raises(UserError, match="unknown key"):
                parse(["tune.space.optimizer.lr.low=1"], name)


def test_numbers_are_whole_where_the_key_s_are() -> None:
    space = space_of(
        "tune.space.batch_size={low:16,high:64,step:16}",
        "tune.space.scheduler.warmup_epochs={low:0,high:3}",
        "tune.space.head.dropout={low:0.0,high:1}",
        "tune.space.optimizer.eps={low:1e-9,high:1e-6,log:true}",
        "tune.space.label_smoothing={low:0,high:1}",
        "tune.space.head.hidden={choices:[null,64]}",
        "tune.space.model.zero_init_residual={choices:[true,false]}",
    )
    assert space["batch_size"] == IntDistribution(16, 64, step=16)
    assert space["scheduler.warmup_epochs"] == IntDistribution(0, 3)
    assert space["head.dropout"] == FloatDistribution(0, 1)
    assert space["optimizer.eps"] == FloatDistribution(1e-9, 1e-6, log=True)
    assert space["label_smoothing"] == FloatDistribution(0, 1)
    assert space["optimizer.lr"] == LR
    assert space["head.hidden"] == CategoricalDistribution([None, 64])
    assert space["model.zero_init_residual"] == CategoricalDistribution([True, False])
    assert list(space) == sorted(space)
    assert "optimizer.weight_decay" not in space_of("tune.space.optimizer.weight_decay=null")


def test_a_setting_takes_the_place_of_what_the_command_line_says() -> None:
    given = [
        "model=resnet34",
        "++optimizer.lr=1",
        "++tune.trials=3",
        "~tune.space.x",
        "nested=false",
        "study_name=a",
    ]
    run = run_of(
        given, {"model": "resnet10", "optimizer.lr": 0.02, "test": False, "batch_size": 48, "json": None}
    )
    assert type(run) is Config
    assert (run.model["name"], run.optimizer["lr"], run.test, run.batch_size) == ("resnet10", 0.02, False, 48)
    assert run_of(given, {}).model["name"] == "resnet34"
    assert hashed(run_of([], {})) == hashed(run_of([], {"optimizer.lr": run_of([], {}).optimizer["lr"]}))


def test_runs_read_a_user_s_own_config_folder(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "nadam.yaml").write_text("_target_: torch.optim.NAdam\nlr: 0.002\n")
    (job,) = read_line("--config-dir", str(tmp_path), "optimizer=nadam", command="tune").jobs
    assert isinstance(job.config, TuneConfig)
    run = Plan(tmp_path, job.config, job.hydra).run_config({"optimizer.lr": 0.01}, 0)
    assert (run.optimizer["name"], run.optimizer["lr"]) == ("nadam", 0.01)


def test_overrides_can_be_given_back_to_training() -> None:
    values = {
        "optimizer.lr": 1.2345678901234567e-5,
        "head.hidden": None,
        "model.zero_init_residual": False,
        "sampler": "shuffle",
    }
    config = config_of("train", overrides(values))
    assert isinstance(config, Config)
    assert config.optimizer["lr"] == 1.2345678901234567e-5
    assert (config.head.hidden, config.model["zero_init_residual"], config.sampler) == (
        None,
        False,
        "shuffle",
    )


@pytest.mark.parametrize(
    ("distribution", "value", "expected"),
    [
        (LR, 1e-3, None),
        (LR, 10**-4.85, "low"),
        (LR, 10**-4.75, None),
        (LR, 0.09, "high"),
        (FloatDistribution(0.0, 0.2), 0.2, "high"),
        (FloatDistribution(0.0, 0.2), 0.02, None),
        (FloatDistribution(0.2, 0.2), 0.2, None),
        (IntDistribution(16, 64, step=16), 16, "low"),
        (IntDistribution(16, 64, step=16), 48, None),
        (CategoricalDistribution([160, 64, 96]), 160, "high"),
        (CategoricalDistribution([160, 64, 96]), 96, None),
        (CategoricalDistribution(["shuffle", "case_balanced"]), "shuffle", None),
        (CategoricalDistribution([None, 0.9]), 0.9, None),
        (CategoricalDistribution([True, False]), True, None),
    ],
)
def test_the_edge_of_a_range(distribution, value, expected) -> None:
    assert edge(distribution, value) == expected
    if isinstance(distribution, FloatDistribution) and distribution.high > distribution.low:  # by hand
        scale = math.log10 if distribution.log else float
        low, high = scale(distribution.low), scale(distribution.high)
        share = (scale(value) - low) / (high - low)
        assert (share <= 0.05, share >= 0.95) == (expected == "low", expected == "high")


def test_the_best_is_the_first_of_equals_and_never_a_pruned_one() -> None:
    values = [("pruned", None), ("complete", 0.4), ("complete", 0.3), ("complete", 0.3)]
    rows = [{"trial": i, "state": state, "value": value} for i, (state, value) in enumerate(values)]
    assert best_row(rows, minimise=True) is rows[2]
    assert best_row(rows, minimise=False) is rows[1]
    assert best_row(rows[:1], minimise=True) is None


def test_the_same_settings_have_the_same_name_whatever_the_budget() -> None:
    name = study_name(settled())
    for same in ("tune.trials=40", "tune.final=false", "test=false", "output_dir=x", "trainer.threads=1"):
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
        "from histo_lightning import tune\nfrom histo_lightning.config.exits import guard\n"
        "status = guard(tune.main); print(status, sorted({'torch', 'optuna', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "2 []"
    assert (
        done.stderr
        == "error: unknown key 'tune.trails'; did you mean 'tune.trials'? (every key is in conf/, with a comment; --help lists them)\n"
    )


def test_without_optuna_one_line_names_the_extra() -> None:
    script = (
        "import sys; sys.modules['optuna'] = None; sys.argv = ['tune', 'tune.trials=3']\n"
        "from histo_lightning import tune\nfrom histo_lightning.config.exits import guard\nprint(guard(tune.main))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "2"
    assert done.stderr == "error: tune: needs Optuna; pip install 'histo-lightning[tune]'\n"


def test_what_was_quoted_once_is_not_quoted_again() -> None:
    root = "/a b/it's, here=1"
    run = run_of([prepare_argument(f"dataset.root={root}"), "dataset=breakhis"], {"optimizer.lr": 0.02})
    assert run.dataset.root == root

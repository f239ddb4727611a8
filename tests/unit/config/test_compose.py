"""From a command line to checked configs: every shipped file composes, what is wrong is one line before any work."""

import itertools
import re
from itertools import product
from pathlib import Path

import pytest
from hydra import compose
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from factories.configs import composed, configs_of, read_line
from histo_lightning.config.compose import config_tree, job_tree, parse, prepare_argument, read_jobs
from histo_lightning.config.schema import SCHEMAS
from histo_lightning.config.tree import conf_dir
from histo_lightning.errors import UserError
from histo_lightning.training.checks import check_runs

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
    "callbacks": "default none model_checkpoint early_stopping lr_monitor ema progress dashboard",
    "logger": "tensorboard csv mlflow wandb none",
    "debug": "fast_dev_run limit overfit profile",
    "experiment": "thesis modern depth_study leakage_study smoke",
    "hydra/launcher": "joblib submitit_local submitit_slurm ray",
}
NEEDED = {"split=folders": ["dataset=folders"]}
MANY_JOBS = (
    "experiment=depth_study",
    "experiment=leakage_study",
    "experiment=official_table",
    "experiment=ensemble",
)
ONE_JOB = ["model=resnet18", "magnification=100x", "split.fold=1", "seed=0"]  # of each product of a study


def shipped() -> list[str]:
    """Every option of every group of ``train``."""
    files = sorted(path for path in conf_dir().glob("*/*.yaml") if path.parent.name != "tune")
    return [f"{path.parent.name}={path.stem}" for path in files if not path.stem.startswith("_")]


@pytest.mark.parametrize("option", shipped())
def test_every_shipped_option_composes_and_can_be_built(option: str) -> None:
    needed = NEEDED.get(option, ONE_JOB if option in MANY_JOBS else [])
    jobs = read_line(option, *needed).jobs  # check_runs builds what _target_ names
    config = jobs[0].config
    group, name = option.split("=")
    content = OmegaConf.load(conf_dir() / group / f"{name}.yaml") or {}
    if group in ("callbacks", "logger"):
        given = [key for key in content if key != "defaults"]
        assert set(given) <= set(getattr(config, group))
    elif group in ("magnification", "debug"):
        assert getattr(config, group) == name
    elif "_target_" in content:
        assert getattr(config, group)["_target_"] == content["_target_"]
    elif group != "experiment":
        assert getattr(config, group).name == {"synthetic_large": "synthetic"}.get(name, name)


@pytest.mark.parametrize("group", GROUPS)
def test_the_contract_s_options_are_there(group: str) -> None:
    assert set(GROUPS[group].split()) <= {path.stem for path in (conf_dir() / group).glob("*.yaml")}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_command_s_config_composes(name: str) -> None:
    (job,) = read_line("json=figures.json", command=name).jobs
    assert type(job.config) is SCHEMAS[name]
    assert job.config.json == "figures.json"
    with config_tree(), pytest.raises(UserError, match=r"unknown key"):
        parse(["suite=quick" if name != "benchmark" else "verify=full"], name)


def test_every_file_says_what_it_decides() -> None:
    for path in conf_dir().rglob("*.yaml"):
        lines = [line for line in path.read_text().splitlines() if "@package" not in line]
        assert lines[0].startswith("# "), path


def test_the_thesis_is_to_the_letter() -> None:
    config = composed("experiment=thesis")
    assert config.model["name"] == "resnet50"
    assert config.model["freeze_backbone"]
    assert (config.head.name, config.head.hidden, config.head.dropout) == ("mlp", 512, 0.05)
    assert config.optimizer == {
        "_target_": "torch.optim.SGD", "name": "sgd", "lr": 1e-4, "momentum": 0.09, "weight_decay": 0.01, "nesterov": False,
    }  # fmt: skip
    step = config.scheduler
    assert (step["name"], step["step_size"], step["gamma"]) == ("step", 50, 0.1)
    assert (config.epochs, config.batch_size, config.image_size) == (300, 32, 224)
    stopping = config.callbacks["early_stopping"]
    assert (stopping["monitor"], stopping["patience"]) == ("val_loss", 30)
    assert (config.monitor, config.scored_weights) == ("val_accuracy", "best")
    assert config.augment.normalisation == "imagenet"
    other = composed(
        "experiment=thesis", "model=resnet34", "optimizer=thesis_adam", "model.freeze_backbone=false"
    )
    assert (other.model["name"], other.model["freeze_backbone"]) == ("resnet34", False)
    assert {name: other.optimizer[name] for name in ("name", "lr", "weight_decay")} == {
        "name": "adam",
        "lr": 1e-4,
        "weight_decay": 1e-3,
    }
    assert "momentum" not in other.optimizer


REFUSED = [
    ("modle=resnet34", "unknown key 'modle'; did you mean 'model'"),
    ("+typo=1", "unknown key 'typo'"),
    ("++optimizer.lrr=1", "optimizer.lrr: AdamW has no such argument; did you mean 'lr'"),
    ("optimizer.lrr=1", "optimizer.lrr: AdamW has no such argument; did you mean 'lr'"),
    ("optimizer.lr=fast", "optimizer.lr=fast: is of another type; allowed is a number"),
    ("model=resnet35", "model=resnet35: no such option; allowed are .*resnet34"),
    ("model=null", "model=null: no such option; allowed are .*resnet34"),
    ("magnification=45x", "did you mean '40x'"),
    ("model.name=resnt18", "unknown key 'model.name'; here it is model=<option>"),
    ("model.stm=deep", "model.stm: ResNet has no such argument; did you mean 'stem'"),
    ("model.frozen_norm=off", "model.frozen_norm=off: allowed are train, eval"),
    ("scheduler.warmup_epochs=x", "scheduler.warmup_epochs=x: is of another type; allowed is a whole number"),
    ("epochs=abc", "epochs: Value 'abc' .* allowed is a number from 1"),
    ("epochs=0", "epochs=0: allowed is a number from 1"),
    ("seed=1.5", "seed: Value '1.5'"),
    ("test=maybe", "test: Value 'maybe' is not a valid bool"),
    ("task=eight", "task=eight: allowed are binary, subtype"),
    ("optimizer=[a,b]", "optimizer=a: no such option"),
    ("split.fold", "cannot read 'split.fold'"),
    ("run_name=a/b", "run_name=a/b: allowed are letters"),
    ("augment.crop_scale=[1,0.5]", "the smaller first"),
    ("split.group=slide", "split=case_kfold groups by case"),
    ("split.clean=true", "only split=official"),
    ("split=folders", "split=folders needs dataset=folders"),
    ("trainer.devices=2", "several devices need trainer=ddp"),
    ("optimizer.alpha=0.9", "optimizer.alpha: AdamW has no such argument"),
    ("batch_size=1", "batch_size=1: allowed"),
    ("head.hidden=8", "head.hidden=8: has no effect with head=linear; it belongs to mlp"),
    ("trainer.acumulate_grad_batches=2", "did you mean 'accumulate_grad_batches'"),
    ("trainer.accumulate_grad_batches=two", "allowed is a whole number"),
    ("callbacks=[default,emma]", "callbacks=emma: no such option; allowed are .*did you mean 'ema'"),
    ("callbacks.early_stopping.patince=3", "EarlyStopping has no such argument; did you mean 'patience'"),
    ("callbacks.early_stopping=true", "give _target_ and arguments, or ~callbacks.early_stopping"),
    ("+callbacks.x._target_=torch.optim.SGD", "callbacks.x._target_=torch.optim.SGD: is no Callback"),
    ("+logger.x._target_=torch.optim.SGD", "logger.x._target_=torch.optim.SGD: is no Logger"),
    ("logger=csv logger.csv.flush=1", "logger.csv.flush: CSVLogger has no such argument"),
    ("optimizer._target_=torch.optim.LBFGS optimizer.lr=-1", "optimizer.betas: LBFGS has no such argument"),
    ("augment.steps.blur.sigma=1", "augment.steps.blur: no such step"),
    ("imports=[no_such_module]", r"imports=\[no_such_module\]: cannot be imported"),
    ("hydra.run.dir=x", "hydra.run.dir: use output_dir=<folder>"),
    ("hydra.sweep.dir=x", "hydra.sweep.dir: use output_dir=<folder>"),
    ("hydra.job.chdir=true", "use output_dir"),
    ("monitor=val_f1", "monitor=val_f1: allowed are"),
    ("study.factor=modle", "study.factor=modle: is no key or group; did you mean 'model'"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "message"), REFUSED, ids=[override for override, _ in REFUSED])
def test_bad_input_is_one_clear_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_line(*override.split(" "))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("task=subtype", "monitor=val_auroc"), "is not defined with task=subtype; allowed are val_case_log_loss, val_loss, val_accuracy"),
        (("-m", "task=binary,subtype", "monitor=val_case_log_loss", "callbacks.early_stopping.monitor=val_auroc"), "not defined with task=subtype"),
        (("augment=thesis_pillow", "augment.dihedral=true"), "has no effect with augment=thesis_pillow"),
        (("dataset.download=true",), "dataset=synthetic is not downloaded"),
        (("trainer=ddp", "trainer.devices=3"), "must be a multiple"),
        (("trainer.limit_val_batches=0",), "leaves nothing to stop by; add ~callbacks.early_stopping"),
        (("-m", "epochs=1,abc"), "epochs: Value 'abc'"),
        (("-m", "model=resnet18,resnet19"), "did you mean 'resnet18'"),
        (("-m", "seed=0,1", "hydra/launcher=jobli"), "launcher"),
        (("seed=0,1",), "seed=0,1: several values make a sweep; add -m"),
        (("--cfg", "jobs"), "invalid choice"),
    ],
)  # fmt: skip
def test_lines_that_contradict_themselves(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        read_line(*arguments)
    assert "\n" not in str(error.value)


def test_every_job_of_a_sweep_in_hydra_s_order() -> None:
    for line in (
        ("-m", "model=resnet18,resnet34", "optimizer=sgd,adam", "seed=1"),
        ("model=resnet18,resnet34", "--multirun", "optimizer=sgd,adam", "seed=1"),
        ("model=resnet18,resnet34", "optimizer=sgd,adam", "seed=1", "-m"),
    ):
        read = read_line(*line, check=None)
        assert read.multirun
        assert [(j.config.model["name"], j.config.optimizer["name"], j.config.seed) for j in read.jobs] == [
            (model, optimizer, 1)
            for model, optimizer in itertools.product(("resnet18", "resnet34"), ("sgd", "adam"))
        ]
        names = {job.config.sweep_name for job in read.jobs}
        assert len(names) == 1
        assert re.fullmatch("sweep_[0-9a-f]{8}", str(names.pop()))
    assert len(configs_of("-m", "epochs=1,2", "model=glob(resnet10*)")) == 2 * 2  # resnet10, 101


def test_the_sweep_s_name_depends_on_what_is_run_not_on_how() -> None:
    def name(*arguments: str) -> str:
        return str(configs_of("-m", *arguments)[0].sweep_name)

    plain = name("seed=0,1", "model=resnet34")
    assert plain == name("model=resnet34", "seed=0,1", "hydra/launcher=joblib", "output_dir=elsewhere")
    assert plain != name("model=resnet34", "seed=0,2")
    assert name("seed=0,1", "sweep_name=mine") == "mine"


def test_an_experiment_may_be_a_sweep_and_the_command_line_wins() -> None:
    params = OmegaConf.load(conf_dir() / "experiment" / "depth_study.yaml").hydra.sweeper.params
    assert [len(values.split(",")) for values in params.values()] == [3, 4, 5, 5]
    read = read_line("experiment=depth_study", "split.fold=0", "seed=0", "magnification=40x")
    assert read.multirun
    assert [job.config.model["name"] for job in read.jobs] == ["resnet18", "resnet34", "resnet50"]
    for job in read.jobs:  # equal budget, no choice on validation
        assert (job.config.scored_weights, job.config.callbacks["ema"]["decay"]) == ("last", 0.99)
        assert "early_stopping" not in job.config.callbacks
    fewer = configs_of("experiment=depth_study", "magnification=100x", "seed=3", "model=resnet10")
    assert {(c.model["name"], c.magnification, c.seed) for c in fewer} == {("resnet10", "100x", 3)}
    assert [c.split.fold for c in fewer] == [0, 1, 2, 3, 4]


def test_the_official_table_is_every_published_hold_out_at_each_depth() -> None:
    read = read_line("experiment=official_table", "dataset.root=/data")
    assert read.multirun
    assert len(read.jobs) == 60
    configs = [job.config for job in read.jobs]
    assert {(c.dataset.name, c.split.name, c.scored_weights) for c in configs} == {
        ("breakhis", "official", "last")
    }
    cells = {(c.model["name"], c.magnification, c.split.fold) for c in configs}
    assert cells == set(
        product(("resnet18", "resnet34", "resnet50"), ("40x", "100x", "200x", "400x"), (1, 2, 3, 4, 5))
    )
    assert {(c.image_size, c.epochs) for c in configs} == {(224, 60)}


@pytest.mark.parametrize(
    "line",
    [
        "model=resnet34 seed=1 ++split.fold=2 optimizer=sgd ++optimizer.lr=0.5",
        "++optimizer.lr=0.5 optimizer=sgd ++augment.brightness=0 augment=d4_stain seed=3 seed=4",
        "experiment=modern ++augment.steps=[] ++dataset.root='a=b,c' ++label_smoothing=0.3",
        "hydra/launcher=joblib hydra.launcher.n_jobs=2 seed=2 ++trainer.max_time=00:01:00:00",
        "callbacks=[default,ema] ++callbacks.ema.decay=${optimizer.lr} ++callbacks.ema={decay:0.5,new:[1,{a:2}]}",
        "~callbacks.progress seed=2 ++callbacks.progress.x=1",
        "+trainer.new=1 seed=2 trainer=cpu",
        "hydra.job.config.override_dirname.kv_sep=: hydra.job.config.override_dirname.exclude_keys=[seed] seed=2 ++split.fold=1",
        "debug=limit magnification=all class_weights=balanced json=null",
    ],
)
def test_jobs_that_share_their_options_are_what_hydra_composes(line: str) -> None:
    """Values set in a copy give the tree of Hydra's own composition, and leave no trace in the next job's."""
    with config_tree():
        trees: dict[tuple[str, ...], DictConfig] = {}
        for end in ("epochs=7", "++callbacks.progress.y={z:1}", "seed=9", "epochs=7"):
            overrides = [parse([text])[0] for text in [*line.split(), end]]
            hydras = compose(
                "train", overrides=[str(o.input_line) for o in overrides], return_hydra_config=True
            )
            ours = job_tree("train", overrides, trees)
            assert OmegaConf.to_container(ours) == OmegaConf.to_container(hydras)
            assert OmegaConf.to_yaml(ours) == OmegaConf.to_yaml(hydras)
        assert len(trees) <= 1


PRODUCTS = """# @package _global_
hydra:
  mode: MULTIRUN
  sweeper:
    products:
      - {split: "image_random,case_kfold", split.fold: "0,1"}
      - {split: official, split.fold: "1,2", split.clean: "true,false"}
"""


def test_products_are_sweeps_of_their_own_from_a_user_s_experiment(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "study.yaml").write_text(PRODUCTS)
    line = ("experiment=study", "seed=3")
    first = [(s, f, False, r) for s in ("image_random", "case_kfold") for f in (0, 1) for r in (3,)]
    second = [("official", f, clean, r) for f in (1, 2) for clean in (True, False) for r in (3,)]
    for arguments in (
        ("--config-dir", str(tmp_path), *line),
        (*line, f"hydra.searchpath=[file://{tmp_path}]"),
    ):
        found = configs_of(*arguments)
        assert [(c.split.name, c.split.fold, c.split.clean, c.seed) for c in found] == first + second


@pytest.mark.parametrize("how", ["--config-dir", "hydra.searchpath"])
def test_a_user_s_own_options_count_like_ours(tmp_path: Path, how: str) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "nadam.yaml").write_text("_target_: torch.optim.NAdam\nlr: 0.002\n")
    given = [how, str(tmp_path)] if how == "--config-dir" else [f"{how}=[file://{tmp_path}]"]
    (job,) = read_line(*given, "optimizer=nadam").jobs
    assert job.config.optimizer == {"_target_": "torch.optim.NAdam", "lr": 0.002, "name": "nadam"}
    both = read_line(*given, "-m", "optimizer=nadam,adam").jobs
    assert [job.config.optimizer["name"] for job in both] == ["nadam", "adam"]
    with pytest.raises(UserError, match=r"allowed are adam, adamw, nadam, rmsprop.*did you mean 'nadam'"):
        read_line(*given, "optimizer=nadan")
    with pytest.raises(UserError, match=r"no such option"):
        read_line("optimizer=nadam")


def test_a_config_dir_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"--config-dir nowhere: no such folder"):
        read_line("--config-dir", "nowhere")


def test_callbacks_and_loggers_are_put_in_and_taken_out() -> None:
    names = list(composed().callbacks)
    assert names == ["model_checkpoint", "early_stopping", "lr_monitor", "progress", "dashboard"]
    without = ("~callbacks.early_stopping", "callbacks.early_stopping=null")
    for line in without:
        assert list(composed(line).callbacks) == [n for n in names if n != "early_stopping"]
    added = read_line("+callbacks.timer._target_=pytorch_lightning.callbacks.Timer").jobs[0].config
    assert added.callbacks["timer"] == {"_target_": "pytorch_lightning.callbacks.Timer"}
    assert composed("callbacks=none").callbacks == {}
    assert composed("callbacks=[default,ema]", "callbacks.ema.decay=0.9").callbacks["ema"]["decay"] == 0.9
    assert list(composed("logger=[tensorboard,csv]").logger) == ["tensorboard", "csv"]
    assert composed("logger=none").logger == {}


def test_plus_before_a_group_of_ours_means_nothing() -> None:
    for group in ("experiment=smoke", "debug=limit", "model=resnet34"):
        assert composed(f"+{group}") == composed(group)


def test_flags_of_lightning_s_trainer_go_through() -> None:
    (job,) = read_line("trainer.gradient_clip_val=0.5", "trainer.max_steps=7", "trainer.profiler=simple").jobs
    assert job.config.trainer.flags == {"gradient_clip_val": 0.5, "max_steps": 7, "profiler": "simple"}
    assert composed("debug=limit").trainer.flags["limit_val_batches"] == 4


@given(st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r\n"), min_size=1))
def test_literal_values_come_through_unchanged(value: str) -> None:
    with config_tree():
        (override,) = parse([prepare_argument(f"dataset.root={value}")])
    if value == "null":
        assert override.value() is None
    else:
        assert OmegaConf.create({"root": override.value()}).root == value


@pytest.mark.parametrize(
    "value",
    [
        "a b,c=d",
        "it's",
        'say "x"',
        "${HOME}",
        r"\${HOME}",
        "back\\slash\\",
        "[1,2]",
        "x'y\\'z",
        "${oc.env:HOME}\\",
    ],
)
def test_literal_values_survive_a_real_composition(value: str) -> None:
    assert composed("dataset=breakhis", f"dataset.root={value}").dataset.root == value
    assert composed(f"resume={value}", f"output_dir={value}").resume == value


def test_what_is_prepared_for_hydra() -> None:
    assert prepare_argument("optimizer.lr=1") == "++optimizer.lr=1"
    assert prepare_argument("+experiment=smoke") == "experiment=smoke"
    assert prepare_argument("++experiment=smoke") == "++experiment=smoke"
    assert prepare_argument("seed=1") == "seed=1"
    assert prepare_argument("~callbacks.ema") == "~callbacks.ema"
    assert prepare_argument("json=null") == "json=null"


def test_a_job_keeps_the_texts_for_its_run_folder() -> None:
    with config_tree():
        read = read_jobs("train", ["seed=3"], multirun=False)
    assert not read.multirun
    assert read.launcher == "basic"
    (job,) = read.jobs
    assert set(job.hydra) == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert OmegaConf.create(job.hydra["config.yaml"]).seed == 3
    assert OmegaConf.create(job.hydra["overrides.yaml"]) == ["seed=3"]
    check_runs([job.config])

"""What identifies a run: its hash holds all that changes results and nothing else."""

import re
from dataclasses import replace

import pytest

from factories.configs import composed
from histo_lightning.config.identity import hashed, readable_name, shortened
from histo_lightning.config.schema import Config

BASE = composed()


@pytest.mark.parametrize(
    "change",
    [
        ("seed=1",),
        ("epochs=3",),
        ("model=resnet34",),
        ("model.stem=deep",),
        ("split.fold=1",),
        ("magnification=100x",),
        ("test=false",),
        ("optimizer._target_=torch.optim.NAdam",),
        ("optimizer.lr=0.01",),
        ("scheduler=constant",),
        ("callbacks.early_stopping.patience=3",),
        ("callbacks=[default,ema]",),
        ("~callbacks.early_stopping",),
        ("+callbacks.timer._target_=pytorch_lightning.callbacks.Timer",),
        ("trainer.gradient_clip_val=1",),
        ("trainer.accumulate_grad_batches=2",),
        ("trainer.precision=32-true",),
        ("trainer.limit_train_batches=2",),
        ("trainer.max_steps=9",),
        ("debug=limit",),
        ("augment.brightness=0.2",),
    ],
)
def test_what_changes_results_enters_the_hash(change: tuple[str, ...]) -> None:
    assert hashed(composed(*change)) != hashed(BASE)


@pytest.mark.parametrize(
    "change",
    [
        ("output_dir=elsewhere", "json=x.json", "resume=never"),
        ("run_name=mine", "sweep_name=s", "cache_dir=c"),
        ("trainer.threads=1", "trainer.workers=2", "trainer.progress=none", "trainer.gpu=0"),
        ("logger=[tensorboard,csv]",),
        ("logger=none",),
        ("trainer.profiler=simple", "trainer.log_every_n_steps=1", "trainer.num_nodes=2"),
        ("~callbacks.progress",),
        ("~callbacks.dashboard",),
        ("study.factor=optimizer",),
        ("imports=[json]",),
    ],
)
def test_what_does_not_change_results_does_not(change: tuple[str, ...]) -> None:
    assert hashed(composed(*change)) == hashed(BASE)


def test_devices_do_not_enter() -> None:
    one, two = (composed("trainer=ddp", f"trainer.devices={n}") for n in (2, 4))
    assert hashed(one) == hashed(two)


def test_a_run_s_name_is_readable_and_safe() -> None:
    assert readable_name(BASE) == f"resnet18_adamw_40x_case_kfold-0_s0_{hashed(BASE)}"
    assert readable_name(replace(BASE, run_name="mine")) == f"mine_{hashed(BASE)}"
    other = composed("dataset=breakhis", "split=official", "split.clean=true", "task=subtype")
    assert readable_name(other).startswith("breakhis_resnet18_adamw_40x_official-1-clean_subtype_s0_")
    injected = composed("split=injection", "split.injected=0.5", "split.shuffle_labels=true")
    assert "injection-0-0.5-shuffled" in readable_name(injected)
    for config in (BASE, other, injected, Config()):
        assert re.fullmatch(r"[A-Za-z0-9._-]+_[0-9a-f]{8}", readable_name(config))


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        ((), ""),
        (("trainer.limit_train_batches=1.0", "trainer.accumulate_grad_batches=2"), ""),
        (("trainer.limit_train_batches=2",), "SHORTENED (limit_train_batches=2)"),
        (("trainer.limit_train_batches=1",), "SHORTENED (limit_train_batches=1)"),
        (("trainer.limit_test_batches=0.5",), "SHORTENED (limit_test_batches=0.5)"),
        (("trainer.limit_val_batches=0",), "SHORTENED (limit_val_batches=0)"),
        (("trainer.fast_dev_run=true",), "SHORTENED (fast_dev_run=True)"),
        (("trainer.overfit_batches=2",), "SHORTENED (overfit_batches=2)"),
        (("debug=limit",), "SHORTENED (debug=limit)"),
        (("debug=fast_dev_run",), "SHORTENED (debug=fast_dev_run)"),
    ],
)
def test_a_shortened_run_is_labelled(overrides: tuple[str, ...], label: str) -> None:
    assert shortened(composed(*overrides)) == label

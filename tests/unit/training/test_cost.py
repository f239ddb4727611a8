"""What a sweep will cost, said before its first job: by hand, and against the runs themselves."""

from dataclasses import replace
from pathlib import Path

import pytest

from factories.configs import composed
from histo_lightning.training import cost
from histo_lightning.training.cost import Sizes, Speed, cost_line, probe, run_seconds

SIZES = Sizes(train=100, val=30, test=20, evaluation=(64, 97))
SPEED = Speed(train=0.1, validate=0.02, predict=0.03, write=0.5, parameters=2_000_000)
SMALL = ("model=resnet10", "image_size=32", "batch_size=16", "epochs=10", "trainer=cpu", "trainer.threads=1")


def test_seconds_of_a_run_by_hand() -> None:
    config = composed(*SMALL)
    # 6 full batches of 16; validation, whose logits are kept; a checkpoint an epoch; then test once.
    expected = 10 * (96 * 0.1 + 30 * 0.02 + 0.5) + 20 * 0.03 + cost.FIXED_SECONDS
    assert run_seconds(config, SIZES, SPEED) == pytest.approx(expected)
    unread = replace(config, test=False)
    assert run_seconds(config, SIZES, SPEED) - run_seconds(unread, SIZES, SPEED) == pytest.approx(20 * 0.03)
    averaged = replace(config, tta="d4")
    assert run_seconds(averaged, SIZES, SPEED) - run_seconds(config, SIZES, SPEED) == pytest.approx(
        50 * 8 * 0.03 - 0.6
    )
    exact = replace(config, exact_predictions=True)
    assert run_seconds(exact, SIZES, SPEED) - run_seconds(config, SIZES, SPEED) == pytest.approx(30 * 0.03)
    passed = replace(config, train_scores="pass")
    assert run_seconds(passed, SIZES, SPEED) - run_seconds(config, SIZES, SPEED) == pytest.approx(3)


def test_one_line_counts_runs_time_and_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    probed: list[str] = []

    def known(config: cost.Config, sizes: Sizes, folder: Path) -> Speed:
        probed.append(config.model["name"])
        return SPEED

    monkeypatch.setattr(cost, "probe", known)
    configs = [
        composed(*SMALL, f"model={model}", f"seed={seed}")
        for model in ("resnet10", "resnet14")
        for seed in range(3)
    ]
    runs = [(config, SIZES) for config in configs]
    each = run_seconds(configs[0], SIZES, SPEED)
    assert probed == []
    line = cost_line(runs, 2, tmp_path)
    assert probed == ["resnet10", "resnet14"]  # one probe a network
    minutes, seconds = divmod(round(6 * each / 2), 60)
    assert line.startswith(f"6 runs to do: about {minutes} min {seconds} s on this machine, 2 at a time, ")
    assert line.endswith(f"{6 * (4 * 2e6 + cost.FIXED_BYTES) / 1e9:.1f} GB of disk when finished")
    assert cost_line(runs[:1], 1, tmp_path).startswith("1 run to do: about ")


def test_the_probe_times_what_grows_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    small = probe(composed(*SMALL), SIZES, folder)
    large = probe(composed(*SMALL, "image_size=128"), SIZES._replace(evaluation=(256, 388)), folder)
    assert 0 < small.train < large.train
    assert 0 < small.validate < large.validate
    assert 0 < small.predict < large.predict
    assert (
        small.parameters == large.parameters == 11_177_538 - 6_270_720
    )  # ResNet-18's, less its second blocks
    assert list(folder.iterdir()) == []

"""The benchmark: its verdicts are right, its opponent trains, and its rows come from real runs."""

import ast
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from factories.configs import configs_of
from histo_lightning.benchmark import benchmarks
from histo_lightning.config.checks import to_config
from histo_lightning.config.schema import BenchmarkConfig
from histo_lightning.config.tree import conf_dir
from histo_lightning.errors import UserError
from histo_lightning.training.objects import build_datamodule

measure = benchmarks("measure")
judged = measure.judged


@pytest.mark.parametrize(
    ("asked", "rounds", "verdict"),
    [
        ("<= 1.05", [1.0, 1.04, 1.3], "met"),
        ("<= 1.05", [1.0, 1.06, 1.3], "short"),  # one good round is not enough
        (">= 2.5", [2.0, 2.5, 2.6], "met"),
        (">= 2.5", [2.0, 2.4, 9.0], "short"),
        ("no limit", [1.0, 2.0, 3.0], "met"),
    ],
)
def test_a_row_is_met_when_its_median_is(asked: str, rounds: list[float], verdict: str) -> None:
    assert judged("P1", "", asked, rounds, "").verdict == verdict


def test_a_row_keeps_its_spread() -> None:
    row = judged("P3", "title", ">= 2.5", [2.0, 2.6, 2.4], "why")
    assert row.as_dict() == {
        "id": "P3",
        "title": "title",
        "asked": ">= 2.5",
        "measured": 2.4,
        "spread": [2.0, 2.6],
        "verdict": "short",
        "why": "why",
    }
    assert measure.unmeasured("P11", "", "<= 1", "no GPU").as_dict()["spread"] is None


def test_rounds_are_interleaved_and_the_first_is_thrown_away() -> None:
    calls: list[str] = []

    def recorder(name: str):
        def call() -> float:
            calls.append(name)
            return float(len(calls))

        return call

    found = measure.interleaved([recorder("a"), recorder("b")], 2)
    assert calls == ["a", "b"] * 3
    assert found == [[3.0, 5.0], [4.0, 6.0]]
    assert measure.ratios([2.0, 9.0], [4.0, 3.0]) == [0.5, 3.0]


@pytest.fixture
def small(cache_dir: Path) -> BenchmarkConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("benchmark", overrides=["model=resnet10", "trainer=cpu"])
    config = to_config(composed, BenchmarkConfig)
    assert isinstance(config, BenchmarkConfig)
    return replace(
        config,
        dataset=replace(config.dataset, image_size=140, images_per_slide=2),
        magnification="40x",
        image_size=32,
        batch_size=16,
        cache_dir=str(cache_dir / "histo_lightning"),
    )


def test_epochs_compute_and_the_opponent_are_measured_in_the_same_rounds(small: BenchmarkConfig) -> None:
    measured = benchmarks("epochs").measure_epochs(small, 2, naive_workers=0)
    names = {"epoch", "train", "first batch", "pure train", "pure validation", "data", "checkpoints", "naive"}
    assert set(measured.found) == names
    for name, values in measured.found.items():
        assert len(values) == 2, name
        assert all(value > 0 and math.isfinite(value) for value in values), name
    assert all(t < e for t, e in zip(measured.found["train"], measured.found["epoch"], strict=True))
    assert "resnet10 at 32, batch 16" in measured.conditions
    assert measured.images % 16 == 0


def test_lightning_s_overhead_comes_from_two_lengths_of_epochs(small: BenchmarkConfig) -> None:
    step, epoch = benchmarks("overhead").lightning_rows(small, 2)
    assert (step.id, epoch.id) == ("P8 step", "P8 epoch")
    assert step.measured is not None
    assert abs(step.measured) < 50  # milliseconds; two rounds are too few for its sign


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_without_a_gpu_its_rows_say_so(small: BenchmarkConfig) -> None:
    rows = benchmarks("epochs").gpu_rows(small, 1, lambda _: True)
    rows += [*benchmarks("gpu_traffic").traffic_rows(small), benchmarks("whole").shared_gpu_row()]
    assert [row.id for row in rows] == ["P11a", "P11b", "P13", "P12 copies", "P12 syncs", "P20"]
    assert {row.verdict for row in rows} == {"not measured"}
    assert all("no GPU" in row.why for row in rows)


def test_a_shared_gpu_is_measured_by_sweeps_that_the_command_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweeps themselves need a GPU; what is asked of the command is checked without one."""
    whole, asked = benchmarks("whole"), []

    def run(command: list[str], environment: dict[str, str]) -> float:
        jobs = configs_of(*command[4:])
        asked.append((len(jobs), jobs[0].trainer.jobs_per_gpu, jobs[0].trainer.accelerator, environment))
        return 100.0 / jobs[0].trainer.jobs_per_gpu

    monkeypatch.setattr(whole, "_run", run)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    row = whole.shared_gpu_row()
    assert asked[:2] == [(20, n, "gpu", {"CUDA_VISIBLE_DEVICES": "0"}) for n in (1, whole.SHARES)]
    assert (row.id, row.measured, row.verdict) == ("P20", whole.SHARES, "met")


def test_an_unknown_row_is_refused(small: BenchmarkConfig) -> None:
    with pytest.raises(UserError, match="select=P99: no such row"):
        benchmarks("suite").measure(replace(small, select=["P99"]))


def test_the_plain_lightning_opponent_trains_and_tests(
    small: BenchmarkConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = build_datamodule(small)
    data.setup()
    for part in ("train", "val", "test"):
        records = data.parts[part].records
        chosen = [next(r for r in records if r.class_name == name) for name in ("benign", "malignant")]
        benchmarks("naive").link_tree(data.source.root, chosen, tmp_path / "tree" / part)
    opponent = benchmarks("plain_lightning")
    opponent.main(tmp_path / "tree", tmp_path / "out", size=64, batch=2, epochs=1, model="resnet18")
    scores = ast.literal_eval(capsys.readouterr().out.splitlines()[-1])
    assert {"test_loss", "test_accuracy", "test_auroc"} <= scores.keys()
    assert math.isfinite(scores["test_loss"])
    assert any(tmp_path.rglob("last.ckpt"))
    assert any(tmp_path.rglob("events.*"))

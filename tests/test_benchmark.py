"""The benchmark: its verdicts are right, its opponent trains, and its rows come from real runs."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from histo_lightning.benchmarks.epochs import gpu_rows, measure_epochs
from histo_lightning.benchmarks.gpu_traffic import traffic_rows
from histo_lightning.benchmarks.measure import interleaved, judged, ratios, unmeasured
from histo_lightning.benchmarks.overhead import lightning_rows
from histo_lightning.config import to_config
from histo_lightning.errors import UserError
from histo_lightning.launch import conf_dir
from histo_lightning.schema import BenchmarkConfig


def test_short_means_that_the_whole_spread_lies_beyond_what_is_asked() -> None:
    assert judged("P1", "", "<= 1.05", [1.04, 1.2, 1.3], "").verdict == "met"
    assert judged("P1", "", "<= 1.05", [1.06, 1.2, 1.3], "").verdict == "short"
    assert judged("P3", "", ">= 2.5", [2.0, 2.4, 2.6], "").verdict == "met"
    assert judged("P3", "", ">= 2.5", [2.0, 2.4, 2.49], "").verdict == "short"
    row = judged("P3", "title", ">= 2.5", [2.0, 2.6, 2.4], "why")
    assert (row.measured, row.spread) == (2.4, (2.0, 2.6))
    assert row.as_dict() == {
        "id": "P3",
        "title": "title",
        "asked": ">= 2.5",
        "measured": 2.4,
        "spread": [2.0, 2.6],
        "verdict": "met",
        "why": "why",
    }
    assert unmeasured("P11", "", "<= 1", "no GPU").as_dict()["spread"] is None


def test_rounds_are_interleaved_and_the_first_is_thrown_away() -> None:
    calls: list[str] = []

    def recorder(name: str):
        def call() -> float:
            calls.append(name)
            return float(len(calls))

        return call

    found = interleaved([recorder("a"), recorder("b")], 2)
    assert calls == ["a", "b"] * 3
    assert found == [[3.0, 5.0], [4.0, 6.0]]
    assert ratios([2.0, 9.0], [4.0, 3.0]) == [0.5, 3.0]


@pytest.fixture
def small(cache_dir: Path) -> BenchmarkConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("benchmark", overrides=["model=resnet10", "trainer=cpu"])
    config = to_config(composed, BenchmarkConfig)
    assert isinstance(config, BenchmarkConfig)
    return replace(
        config,
        dataset=replace(config.dataset, image_size=140),
        magnification="40x",
        image_size=32,
        batch_size=16,
        cache_dir=str(cache_dir / "histo_lightning"),
    )


def test_epochs_compute_and_the_opponent_are_measured_in_the_same_rounds(small: BenchmarkConfig) -> None:
    measured = measure_epochs(small, 2, naive_workers=0)
    names = {"epoch", "train", "first batch", "pure train", "pure validation", "data", "checkpoints", "naive"}
    assert set(measured.found) == names
    for name, values in measured.found.items():
        assert len(values) == 2, name
        assert all(value > 0 and math.isfinite(value) for value in values), name
    assert all(t < e for t, e in zip(measured.found["train"], measured.found["epoch"], strict=True))
    assert "resnet10 at 32, batch 16" in measured.conditions
    assert measured.images % 16 == 0


def test_lightning_s_overhead_comes_from_two_lengths_of_epochs(small: BenchmarkConfig) -> None:
    step, epoch = lightning_rows(small, 2)
    assert (step.id, epoch.id) == ("P8 step", "P8 epoch")
    assert step.measured is not None
    assert abs(step.measured) < 50  # milliseconds; two rounds are too few for its sign


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_without_a_gpu_its_rows_say_so(small: BenchmarkConfig) -> None:
    rows = gpu_rows(small, 1, lambda _: True) + traffic_rows(small)
    assert [row.id for row in rows] == ["P11a", "P11b", "P13", "P12 copies", "P12 syncs"]
    assert {row.verdict for row in rows} == {"not measured"}
    assert all("no GPU" in row.why for row in rows)


def test_the_command_measures_what_is_selected_and_writes_json(command, tmp_path: Path) -> None:
    chosen = ["select=[P5a]", "dataset.image_size=140", "magnification=40x", "json=found.json"]
    done = command("benchmark", *chosen)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "found.json").read_text())
    assert [row["id"] for row in rows] == ["P5a", "P5a native", "P5b"]
    for row in rows:
        assert row["spread"][0] <= row["measured"] <= row["spread"][1]
        assert row["verdict"] in ("met", "short")
    assert "P5a" in done.stdout


def test_an_unknown_row_is_refused(small: BenchmarkConfig) -> None:
    from histo_lightning.benchmarks.suite import measure

    with pytest.raises(UserError, match="select=P99: no such row"):
        measure(replace(small, select=["P99"]))

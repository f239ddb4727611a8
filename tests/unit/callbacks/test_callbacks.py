"""What watches or steers a fit, on fits whose scores are given."""

import csv
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from factories.modules import fit_scripted
from histo_lightning.callbacks.checkpoints import BestAndLast
from histo_lightning.callbacks.progress import COLUMNS, EpochProgress, History, Pruned, Pruning, merged
from histo_lightning.classifier.checkpoint import link_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty.*")


def epoch_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["epoch"])


# --- best.ckpt and last.ckpt ---


@pytest.mark.parametrize(
    ("losses", "mode", "best"),
    [([3.0, 1.0, 2.0], "min", 1), ([3.0, 1.0, 2.0], "max", 0), ([2.0, 1.0, 1.0, 1.0], "min", 1)],
)
def test_the_first_best_epoch_and_the_last_are_kept(
    tmp_path: Path, losses: list[float], mode: str, best: int
) -> None:
    kept = BestAndLast(tmp_path / "checkpoints", monitor="val/loss", mode=mode)
    fit_scripted(tmp_path, losses, [kept])
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert epoch_of(tmp_path / "checkpoints" / "best.ckpt") == best
    assert epoch_of(tmp_path / "checkpoints" / "last.ckpt") == len(losses) - 1


@pytest.mark.parametrize("links", [True, False])
def test_the_epoch_before_the_last_is_kept_where_the_best_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("no links on this file system")

    if not links:
        monkeypatch.setattr("os.link", refuse)
    kept = BestAndLast(tmp_path / "checkpoints", save_best=False)
    fit_scripted(tmp_path, [1.0, 3.0, 2.0], [kept])
    best, last = (tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    assert sorted(path.name for path in best.parent.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert (epoch_of(best), epoch_of(last)) == (1, 2)
    link_checkpoint(last, best)
    assert best.read_bytes() == last.read_bytes()
    assert best.samefile(last) == links
    assert sorted(path.name for path in best.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize("after", [[5.0, 5.0], [0.5, 5.0]])
def test_a_moved_folder_goes_on_with_its_best_epoch(tmp_path: Path, after: list[float]) -> None:
    losses = [3.0, 1.0, 2.0]
    fit_scripted(tmp_path, losses, [BestAndLast(tmp_path / "before" / "checkpoints")])
    shutil.move(tmp_path / "before", tmp_path / "elsewhere")
    there = tmp_path / "elsewhere" / "checkpoints"
    kept = BestAndLast(there)
    fit_scripted(tmp_path, losses + after, [kept], start=there / "last.ckpt")
    assert epoch_of(there / "best.ckpt") == (1 if after[0] > 1 else 3)
    assert epoch_of(there / "last.ckpt") == 4
    assert float(kept.best_model_score or 0) == min(losses + after)
    assert Path(kept.best_model_path) == there / "best.ckpt"
    assert sorted(path.name for path in there.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert not (tmp_path / "before").exists()


def test_without_validation_the_last_epoch_is_kept_alone(tmp_path: Path) -> None:
    fit_scripted(tmp_path, [1.0, 2.0], [BestAndLast(tmp_path / "c")], limit_val_batches=0)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["last.ckpt"]
    fit_scripted(tmp_path, [1.0], [BestAndLast(tmp_path / "d")], fast_dev_run=True)
    assert not (tmp_path / "d").exists()


# --- history.csv ---


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_history_has_a_row_an_epoch_and_is_carried_through_a_resume(tmp_path: Path) -> None:
    losses = [3.0, 1.0, 2.0]
    one = History(tmp_path / "history.csv", "val_loss", 20, seed=1)
    fit_scripted(tmp_path, losses[:2], [one, BestAndLast(tmp_path / "c")])
    two = History(tmp_path / "again.csv", "val_loss", 20, seed=1)
    fit_scripted(tmp_path, losses, [two, BestAndLast(tmp_path / "c")], start=tmp_path / "c" / "last.ckpt")
    found = rows_of(tmp_path / "again.csv")
    assert list(found[0]) == list(COLUMNS)
    assert [row["epoch"] for row in found] == ["0", "1", "2"]
    assert [float(row["val_loss"]) for row in found] == losses == two.monitored
    assert found[:2] == rows_of(tmp_path / "history.csv")
    assert {row["train_loss"] for row in found} == {"0.5"}
    assert {row["lr"] for row in found} == {"1.0"}
    assert all(float(row["images_per_second"]) > 0 for row in found)
    assert {row["val_auroc"] for row in found} == {""}  # undefined: never logged
    assert "nan" not in (tmp_path / "again.csv").read_text()
    assert len(two.seconds) == 3


def test_history_where_validation_is_left_out(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv", "val_loss", 20, seed=1)
    fit_scripted(tmp_path, [1.0, 1.0], [history, BestAndLast(tmp_path / "c")], limit_val_batches=0)
    found = rows_of(tmp_path / "history.csv")
    assert [row["val_loss"] for row in found] == ["", ""]
    assert [row["train_loss"] for row in found] == ["0.5", "0.5"]
    assert np.isnan(history.monitored).all()


def test_dropout_s_numbers_depend_on_seed_and_epoch_alone(tmp_path: Path) -> None:
    def drawn(seed: int) -> list[float]:
        values = []

        class Draw(History):
            def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
                super().on_train_epoch_start(trainer, pl_module)
                values.append(float(torch.rand(1)))

        fit_scripted(
            tmp_path, [1.0, 1.0], [Draw(tmp_path / "h.csv", "val_loss", 2, seed)], enable_checkpointing=False
        )
        return values

    before = drawn(1)
    torch.rand(7)
    assert drawn(1) == before
    assert before[0] != before[1]
    assert drawn(2) != before


# --- what a person sees ---


@pytest.mark.parametrize(("style", "shown"), [("lines", True), ("none", False), ("auto", True)])
def test_a_line_an_epoch_on_the_screen_and_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], style: str, shown: bool
) -> None:
    kept: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: kept.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("histo_lightning")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        fit_scripted(tmp_path, [3.0, 1.25], [EpochProgress(style)], enable_checkpointing=False)
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    lines = ["epoch 1/2  train_loss 0.500  val_loss 3.000", "epoch 2/2  train_loss 0.500  val_loss 1.250"]
    assert [line for line in kept if line.startswith("epoch")] == lines
    assert [line for line in capsys.readouterr().out.splitlines() if "epoch" in line] == lines * shown


def test_the_lines_of_finished_epochs_stay_above_the_bar(tmp_path: Path, capsys: Any) -> None:
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False,
        num_sanity_val_steps=0, default_root_dir=tmp_path, callbacks=[EpochProgress("bar")], log_every_n_steps=1,
    )  # fmt: skip
    from factories.modules import Scripted

    loader: Any = DataLoader(range(2))  # type: ignore[arg-type]
    trainer.fit(Scripted([2.0]), loader, loader)
    assert "epoch 1/1  train_loss 0.500  val_loss 2.000" in capsys.readouterr().out


# --- predictions ---


class Echo(LightningModule):
    """Predicts each index itself."""

    def predict_step(self, batch: torch.Tensor, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        return {"index": batch, "logits": torch.stack([batch.float(), -batch.float() - dataloader_idx], 1)}


def test_predictions_of_each_loader_come_once_an_image_in_order(tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    # The last batch is filled up with images of its own.
    loaders = [DataLoader([4, 2, 0, 1, 3, 1], batch_size=2), DataLoader([1, 0], batch_size=2)]  # type: ignore[arg-type]
    found = trainer.predict(Echo(), loaders)
    first, second = (merged([(b["index"], b["logits"]) for b in batches], trainer) for batches in found)
    assert first[0].tolist() == [0, 1, 2, 3, 4]
    assert first[0].dtype == np.int64
    assert first[1].tolist() == [[i, -i] for i in range(5)]
    assert first[1].dtype == np.float64
    assert second[1].tolist() == [[0, -1], [1, -2]]


# --- pruning ---


def test_pruning_hands_the_whole_curve_over_and_never_ends_the_last_epoch(tmp_path: Path) -> None:
    curves: list[Sequence[float]] = []

    def judge(curve: Sequence[float]) -> bool:
        curves.append(list(curve))
        return curve[-1] > 2

    def callbacks(epochs: int) -> list[Any]:
        history = History(tmp_path / "h.csv", "val_loss", 2, seed=0)
        return [history, Pruning(judge, epochs), BestAndLast(tmp_path / "c")]

    with pytest.raises(Pruned, match=r"pruned after epoch 2 of 3"):
        fit_scripted(tmp_path, [1.0, 3.0, 1.0], callbacks(3))
    assert curves == [[1.0], [1.0, 3.0]]
    assert epoch_of(tmp_path / "c" / "last.ckpt") == 0  # the epoch that ended it was not saved
    trainer = fit_scripted(tmp_path, [1.0, 3.0], callbacks(2))
    assert trainer.current_epoch == 2

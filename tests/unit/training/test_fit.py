"""The validation set's logits are those of the scored epoch, kept; only images near a decision are predicted again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer

from factories.configs import composed
from factories.runs import SMALL, logits_of, overrides_here, train_here
from histo_lightning.classifier import Classifier
from histo_lightning.classifier.hardware import cpu_has_bf16
from histo_lightning.classifier.module import NEAR
from histo_lightning.training.fit import CHECKED
from histo_lightning.training.run import prepare_data

SLACK = NEAR / 2  # what bfloat16 was seen to change


class Trained:
    """A run without a test set, the images that were predicted after its fit, and what its weights say by themselves."""

    def __init__(
        self, root: Path, cache_dir: Path, *overrides: str, callbacks: Sequence[Callback] = ()
    ) -> None:
        self.predicted = list[int]()
        step = Classifier.predict_step

        def counted(classifier: Classifier, batch: dict[str, Any], *rest: Any) -> Any:
            self.predicted += batch["index"].tolist()
            return step(classifier, batch, *rest)

        with mock.patch.object(Classifier, "predict_step", counted):
            folder = train_here(root, cache_dir, "test=false", *overrides, callbacks=callbacks)
        self.found = np.array(list(logits_of(folder / "predictions" / "val.csv").values()))
        data = prepare_data(composed(*SMALL, *overrides_here(root, cache_dir), *overrides))
        network = Classifier.from_checkpoint(folder / "checkpoints" / "best.ckpt")
        self.exact: NDArray[np.float64] = np.full(self.found.shape, np.nan)
        with torch.no_grad():
            for batch in data.val_dataloader():
                self.exact[batch["index"]] = network.logits(batch["image"]).numpy()
        self.images = data.parts["val"].records


def test_in_float32_the_kept_logits_are_those_of_the_checkpoint(tmp_path: Path, cache_dir: Path) -> None:
    run = Trained(tmp_path, cache_dir, "trainer.precision=32-true", "epochs=3", "optimizer.lr=0.02")
    np.testing.assert_allclose(run.found, run.exact, atol=1e-5)
    assert run.predicted == list(range(CHECKED))
    assert len(run.images) > CHECKED


@pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU trains in float32")
def test_no_decision_hangs_on_the_precision(tmp_path: Path, cache_dir: Path) -> None:
    run = Trained(tmp_path, cache_dir, "trainer.precision=bf16-mixed", "epochs=3", "optimizer.lr=0.02")
    near = np.abs(run.exact[:, 0] - run.exact[:, 1]) < NEAR - SLACK
    assert (run.found.argmax(axis=1) == run.exact.argmax(axis=1)).all()
    np.testing.assert_allclose(run.found, run.exact, atol=SLACK)
    np.testing.assert_allclose(run.found[near], run.exact[near], atol=1e-4)
    assert len(run.predicted) < len(run.images)


class Changing(Callback):
    """A stranger's: turns the classes round after the last validation, before the checkpoint is written."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            last = list(pl_module.parameters())[-2:]
            with torch.no_grad():
                for parameter in last:
                    parameter.copy_(
                        parameter.flip(0) + torch.tensor([1.0, 0.0]).reshape(-1, *[1] * (parameter.dim() - 1))
                    )


@pytest.mark.parametrize(
    "overrides",
    [
        ("callbacks.model_checkpoint=null",),
        ("epochs=3", "trainer.check_val_every_n_epoch=2"),
        ("tta=d4",),
        ("trainer.limit_val_batches=1",),
    ],
    ids=["weights changed since", "no validation in the last epoch", "averaged orientations", "few batches"],
)
def test_what_is_not_of_the_scored_weights_is_predicted(
    overrides: tuple[str, ...], tmp_path: Path, cache_dir: Path
) -> None:
    callbacks = [Changing()] if "model_checkpoint" in overrides[0] else []
    given = [one for one in overrides if "model_checkpoint" not in one]
    run = Trained(tmp_path, cache_dir, "trainer.precision=32-true", *given, callbacks=callbacks)
    assert set(run.predicted) == set(range(len(run.images)))
    if "tta=d4" not in given:
        np.testing.assert_allclose(run.found, run.exact, atol=1e-5)

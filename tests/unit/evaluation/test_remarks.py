"""What a reader of a run must not miss."""

from typing import Any

import pytest

from histo_lightning.evaluation.remarks import remarks


def metrics(
    epochs: int = 10, best: int = 9, case: float | None = 0.9, image: float | None = 0.9
) -> dict[str, Any]:
    levels = {"case": {"auroc": {"value": case}}, "image": {"auroc": {"value": image}}}
    return {"epochs": epochs, "best_epoch": best, "val": levels}


def test_a_plain_run_has_none() -> None:
    assert remarks(metrics(), epochs=10, warmup_epochs=2) == []
    assert remarks(metrics(best=2), epochs=10, warmup_epochs=2) == [], "epoch 3 is after a warm-up of 2"
    assert remarks(metrics(epochs=30), epochs=-1, warmup_epochs=0) == [], "no limit was asked for"
    assert remarks({"val": None}, epochs=10, warmup_epochs=0) == []


def test_early_stop_and_scored_warm_up() -> None:
    first, second = remarks(metrics(epochs=4, best=1), epochs=10, warmup_epochs=2)
    assert first == "Training stopped early, after 4 of 10 epochs."
    assert second.startswith("The scored epoch 2 lies within the warm-up of 2 epochs")


@pytest.mark.parametrize(
    ("case", "image", "words"),
    [
        (0.4312, 0.3, "validation cases worse than chance: AUROC 0.431."),
        (0.5, 0.3, "validation images worse than chance: AUROC 0.300."),
        (None, 0.25, "validation images worse than chance: AUROC 0.250."),
    ],
)
def test_worse_than_chance(case: float | None, image: float, words: str) -> None:
    assert remarks(metrics(case=case, image=image), epochs=10, warmup_epochs=0) == [
        f"The network ranks {words}"
    ]
    eight = metrics(case=0.9, image=0.9)
    eight["val"] = {"case": {"auroc": {"value": 0.8}, "binary": {"auroc": {"value": case or image}}}}
    assert ("worse than chance" in str(remarks(eight, epochs=10, warmup_epochs=0))) == ((case or image) < 0.5)

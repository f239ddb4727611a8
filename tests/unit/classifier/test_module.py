"""The LightningModule: its loss and output, what a frozen backbone does, and checkpoints that say what they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from torch.nn import functional
from torch.utils.data import DataLoader

from histo_lightning.classifier import Classifier, load_state, read_checkpoint
from histo_lightning.classifier.hardware import cores, device_of, resolve, visible_gpus
from histo_lightning.config.schema import TrainerConfig
from histo_lightning.errors import UserError

FORMAT = 2
pytestmark = pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*")


def test_output_is_log_softmax_and_the_loss_its_nll() -> None:
    classifier = Classifier("resnet10", 2, class_weights=[0.5, 2.0])
    images, labels = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 0, 1, 1, 0])
    log_p = classifier(images)
    assert torch.allclose(log_p.exp().sum(dim=1), torch.ones(6), atol=1e-5)
    loss = classifier.training_step({"image": images, "label": labels}, 0)
    expected = functional.nll_loss(log_p, labels, weight=torch.tensor([0.5, 2.0]))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_frozen_backbone_s_batch_norms_are_as_the_key_says() -> None:
    classifier = Classifier("resnet10", 2, head="mlp", freeze_backbone=True).train()
    assert classifier.network.bn1.training  # as in the thesis
    assert {name.split(".")[0] for name, p in classifier.network.named_parameters() if p.requires_grad} == {
        "fc"
    }
    still = Classifier("resnet10", 2, freeze_backbone=True, frozen_norm="eval")
    assert not still.network.bn1.training  # Lightning calls no train() before a fit
    assert not still.eval().train().network.bn1.training
    assert all(p.requires_grad for p in Classifier("resnet10", 2).parameters())


def test_scores_do_not_depend_on_the_trainer_s_precision() -> None:
    classifier = Classifier("resnet10").eval()
    images = torch.randn(2, 3, 32, 32)
    plain = classifier.exact_logits(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(classifier.exact_logits(images), plain)
        assert not torch.equal(classifier.logits(images), plain)


def test_with_tta_the_mean_probability_of_the_eight_orientations_is_scored() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 3, 40, 56)
    plain, averaged = (Classifier("resnet10", tta=tta).eval() for tta in ("none", "d4"))
    averaged.load_state_dict(plain.state_dict())
    pixels = images.permute(0, 2, 3, 1).numpy()
    turned = [np.rot90(pixels, quarters, axes=(1, 2)) for quarters in range(4)]
    views = [*turned, *(view[:, :, ::-1] for view in turned)]
    assert len({view.tobytes() for view in views}) == 8
    with torch.inference_mode():
        each = [plain(torch.from_numpy(view.copy()).permute(0, 3, 1, 2)).exp() for view in views]
        found = averaged.scored_logits(images).softmax(dim=1)
        assert torch.equal(plain.scored_logits(images), plain.exact_logits(images))
    torch.testing.assert_close(found, torch.stack(each).mean(dim=0), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="tta=d8: allowed are none, d4"):
        Classifier("resnet10", tta="d8")


@pytest.mark.parametrize("tta", ["none", "d4"])
def test_near_a_decision_the_precision_decides_nothing(monkeypatch: pytest.MonkeyPatch, tta: str) -> None:
    torch.manual_seed(0)
    images = torch.randn(16, 3, 40, 40) * torch.linspace(0.1, 8, 16)[:, None, None, None]
    fast, exact = (Classifier("resnet10", tta=tta, exact_predictions=each).eval() for each in (False, True))
    exact.load_state_dict(fast.state_dict())
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        with torch.autocast("cpu", enabled=False):
            right = exact.scored_logits(images)
        all_fast = fast.averaged(fast.logits, images) if tta == "d4" else fast.logits(images)
        margins = (all_fast[:, 1] - all_fast[:, 0]).abs()
        monkeypatch.setattr("histo_lightning.classifier.module.NEAR", float(margins.median()) + 1e-4)
        near = margins < float(margins.median()) + 1e-4
        found, again = fast.scored_logits(images), exact.scored_logits(images)
    assert 0 < near.sum() < 16
    torch.testing.assert_close(again, right, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[near], right[near], atol=1e-6, rtol=0)
    assert torch.equal(found[~near], all_fast[~near])
    assert not torch.allclose(all_fast, right, atol=1e-6)


def test_the_learning_rate_can_be_read_and_set() -> None:
    classifier = Classifier("resnet10", optimizer="sgd", lr=0.3)
    assert classifier.lr == 0.3
    classifier.lr = 0.1
    assert classifier.optimizer_settings["lr"] == 0.1
    assert Classifier("resnet10").lr == 1e-3


def test_all_hyper_parameters_are_primitives() -> None:
    settings = {"_target_": "torch.optim.SGD", "lr": 0.1}
    classifier = Classifier({"_target_": "torchvision.models.squeezenet1_1"}, optimizer=settings)
    assert classifier.hparams["optimizer"] == settings
    assert classifier.hparams["model"] == {"_target_": "torchvision.models.squeezenet1_1"}


# --- checkpoints ---


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a plain Trainer after one step."""
    path = tmp_path_factory.mktemp("plain") / "a.ckpt"
    trainer = Trainer(
        max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=path.parent,
    )  # fmt: skip
    images = [{"image": torch.rand(3, 32, 32), "label": i % 2, "case": i, "index": i} for i in range(4)]
    loader: Any = DataLoader(images, batch_size=4)  # type: ignore[arg-type]
    trainer.fit(Classifier("resnet10"), loader, loader)
    trainer.save_checkpoint(path)
    return path


def changed(plain: Path, path: Path, **changes: Any) -> Path:
    """The checkpoint with changes to its hyper-parameters."""
    checkpoint = torch.load(plain, weights_only=True)
    checkpoint["hyper_parameters"] |= changes
    torch.save(checkpoint, path)
    return path


def test_a_plain_trainer_s_checkpoint_loads(plain: Path) -> None:
    classifier = Classifier.from_checkpoint(plain)
    assert not classifier.training
    assert (classifier.metadata["format"], classifier.metadata["output_size"]) == (FORMAT, 2)
    assert "config" not in classifier.metadata  # no data module of ours was there


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"_target_": "os.system", "command": "true"}}, "is not a network of"),
        ({"model": {"_target_": "torchvision.models.resnet.torch.hub.load"}}, "is not a network of|has no"),
        ({"model": {"_target_": "antigravity.fly"}}, r"name its module in imports=\[...\]"),
        ({"model": 3}, "a.ckpt"),
        ({"optimizer": {"_target_": "torch.optim.adam.torch.hub.load", "lr": 1.0}}, "is no Optimizer"),
        ({"scheduler": {"_target_": "subprocess.run"}}, r"no LRScheduler|imports=\[...\]"),
        ({"surprise": 1}, "its hyper-parameters do not fit this version"),
        ({"model": "resnet18"}, "do not fit this network .*use the same model, head and stem"),
        ({"head": "mlp"}, "do not fit this network"),
    ],
)
def test_a_checkpoint_names_nothing_that_is_no_network_optimizer_or_schedule(
    plain: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = changed(plain, tmp_path / "a.ckpt", **changes)
    with pytest.raises(UserError, match=message) as error:
        Classifier.from_checkpoint(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_bad_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such checkpoint"):
        read_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "noise.ckpt").write_bytes(b"PK not a checkpoint")
    with pytest.raises(UserError, match=r"cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "noise.ckpt")
    random = np.random.default_rng(0)
    for number in range(40):  # bytes of every kind: text, pickles' opcodes, headers
        start = [b"", b"root:x:0:0:root:/root", b"\x80\x02", b"\x80\x04]q"][number % 4]
        (tmp_path / "noise.ckpt").write_bytes(start + random.integers(0, 256, number * 7, np.uint8).tobytes())
        with pytest.raises(UserError, match=r"^\S*noise.ckpt: (cannot be read as|not) a checkpoint"):
            read_checkpoint(tmp_path / "noise.ckpt")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.ckpt")
    with pytest.raises(
        UserError, match=r"not a checkpoint of histo_lightning; plain weights go to model.weights"
    ):
        read_checkpoint(tmp_path / "other.ckpt")
    torch.save(
        {"hyper_parameters": {}, "histo_lightning": {"format": 99, "version": "9.9"}}, tmp_path / "new.ckpt"
    )
    with pytest.raises(UserError, match=r"format is 99.*use histo_lightning 9\.9"):
        read_checkpoint(tmp_path / "new.ckpt")
    with pytest.raises(UserError, match=r"do not fit this network"):
        load_state(Classifier("resnet10", 2), Classifier("resnet18", 2).state_dict(), "x.ckpt")


# --- hardware ---


def test_auto_is_what_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("histo_lightning.classifier.hardware.visible_gpus", lambda: 0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = resolve(TrainerConfig())
    assert (found.accelerator, found.compile, found.threads) == ("cpu", False, cores())
    assert found.precision in ("32-true", "bf16-mixed")
    assert resolve(TrainerConfig(devices=2)).threads == max(cores() // 2, 1)
    assert resolve(TrainerConfig(threads=3, compile="true")).threads == 3
    for settings, message in (
        (TrainerConfig(accelerator="gpu"), "this machine shows 0 GPU"),
        (TrainerConfig(precision="16-mixed"), "needs a GPU; on a CPU use bf16-mixed or 32-true"),
    ):
        with pytest.raises(UserError, match=message):
            resolve(settings)
    monkeypatch.setattr("histo_lightning.classifier.hardware.visible_gpus", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    found = resolve(TrainerConfig())
    assert (found.accelerator, found.precision, found.compile) == ("gpu", "bf16-mixed", True)
    assert device_of(TrainerConfig(gpu=1, threads=1)) == torch.device("cuda", 1)
    with pytest.raises(UserError, match=r"trainer\.gpu=2: this machine shows 2 GPU"):
        resolve(TrainerConfig(gpu=2))
    with pytest.raises(UserError, match=r"trainer\.devices=3: this machine shows 2 GPU"):
        resolve(TrainerConfig(accelerator="gpu", devices=3))


@pytest.mark.parametrize(
    ("given", "threads"), [("1", 1), ("3", 3), ("0", cores()), ("many", cores()), ("4096", 8 * cores())]
)
def test_threads_are_those_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, given: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert resolve(TrainerConfig(accelerator="cpu")).threads == threads
    assert resolve(TrainerConfig(accelerator="cpu", threads=2)).threads == 2


def test_more_threads_than_the_machine_can_run_are_refused() -> None:
    assert resolve(TrainerConfig(accelerator="cpu", threads=8 * cores())).threads == 8 * cores()
    with pytest.raises(UserError, match=rf"trainer.threads=4096: .* at most {8 * cores()}$"):
        resolve(TrainerConfig(accelerator="cpu", threads=4096))


def test_gpus_are_counted_by_torch() -> None:
    assert visible_gpus() == (torch.cuda.device_count() if torch.cuda.is_available() else 0)

"""``export``: the files work without this package, agree with the checkpoint, and are whole or absent."""

import hashlib
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import histo_lightning.inference.export as exporting
import histo_lightning.inference.formats as formats
from histo_lightning.classifier import Classifier
from histo_lightning.classifier.checkpoint import save_atomic
from histo_lightning.config.schema import ExportConfig
from histo_lightning.data.breakhis.names import CLASSES, SUBTYPES
from histo_lightning.errors import UserError
from histo_lightning.inference.export import export, export_name, parity
from histo_lightning.inference.formats import reference
from histo_lightning.inference.trained import Trained

METADATA = "metadata.json"
MEAN, STD = [0.79, 0.62, 0.76], [0.11, 0.15, 0.09]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save_checkpoint(run: Path, classes: tuple[str, ...] = CLASSES, size: int = 64, **network: Any) -> Path:
    """A run's best.ckpt of an untrained network whose batch norms have seen something."""
    torch.manual_seed(0)
    classifier = Classifier(**({"model": "resnet10", "num_classes": len(classes), "head": "mlp"} | network))
    with torch.no_grad():
        classifier.network(torch.randn(4, 3, 64, 64) * 2)
    classifier.metadata = {
        "config": {
            "dataset": {"short_side": None},
            "image_size": size,
            "augment": {"crop_scale": [1, 1], "crop_ratio": [1, 1]},
        },
        "class_to_idx": {name: index for index, name in enumerate(classes)},
        "input_size": [3, size, size + 32],
        "batch_size": 8,
        "transforms": f"train: random crop of {size} at native scale; evaluation: whole field",
        "normalisation": {"mean": MEAN, "std": STD},
        "split_hash": "abc",
        "train_cases": ["A-14-22549AB"],
        "val_cases": ["DC-14-2523"],
        "seen_cases": ["A-14-22549AB", "DC-14-2523"],
        "threshold": 0.31,
        "operating_point": {"threshold": 0.31, "sensitivity": 0.95},
        "temperature": {"temperature": 1.7},
    }
    checkpoint: dict[str, Any] = {
        "state_dict": classifier.state_dict(),
        "hyper_parameters": dict(classifier.hparams),
    }
    classifier.on_save_checkpoint(checkpoint)
    path = run / "checkpoints" / "best.ckpt"
    save_atomic(checkpoint, path)
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("runs") / "run_a")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """All three formats of one checkpoint, in one folder."""
    output = tmp_path_factory.mktemp("exported")
    for name in ("onnx", "torch_export", "safetensors"):
        export(ExportConfig(checkpoint=str(checkpoint), format=name, output_dir=str(output)))
    return output / "exports" / "run_a"


def config(checkpoint: Path, output: Path, **more: Any) -> ExportConfig:
    return ExportConfig(
        checkpoint=str(checkpoint), output_dir=str(output), **({"format": "safetensors"} | more)
    )


def entries(folder: Path) -> dict[str, Any]:
    """``metadata.json`` of each file of an export, by file name."""
    newest = json.loads((folder / METADATA).read_text())
    return {newest["file"]: newest, **newest["other_files"]}


def by_hand(checkpoint: Path, images: np.ndarray) -> np.ndarray:
    """Logits of float N x 3 x H x W in [0, 1], normalised as torchvision does."""
    network = Classifier.from_checkpoint(checkpoint).network
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        return network((torch.from_numpy(images) - mean) / std).numpy()


USER = """
import sys
sys.modules["histo_lightning"] = None
import numpy, onnxruntime, torch
images = [numpy.load(path) for path in sys.argv[3:]]
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
module = torch.export.load(sys.argv[2]).module()
out = {}
for i, image in enumerate(images):
    out[f"onnx{i}"], out[f"onnx_p{i}"] = session.run(["logits", "probabilities"], {"image": image})
    out[f"pt{i}"], out[f"pt_p{i}"] = (t.numpy() for t in module(torch.from_numpy(image)))
numpy.savez("out.npz", **out)
"""


def test_the_graphs_run_without_this_package(exported: Path, checkpoint: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    shapes = [(1, 3, 64, 96), (3, 3, 64, 96), (2, 3, 131, 77), (7, 3, 33, 33)]
    images = [generator.random(shape, dtype=np.float32) for shape in shapes]
    for i, image in enumerate(images):
        np.save(tmp_path / f"{i}.npy", image)
    arguments = [str(exported / "model.onnx"), str(exported / "model.pt2")]
    arguments += [str(tmp_path / f"{i}.npy") for i in range(len(images))]
    done = subprocess.run(
        [sys.executable, "-c", USER, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as out:
        for i, image in enumerate(images):
            logits = by_hand(checkpoint, image)
            exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities = exponent / exponent.sum(axis=1, keepdims=True)
            for kind in ("onnx", "pt"):
                np.testing.assert_allclose(out[f"{kind}{i}"], logits, rtol=0, atol=2e-5)
                np.testing.assert_allclose(out[f"{kind}_p{i}"], probabilities, rtol=0, atol=1e-5)


def test_safetensors_fit_networks_with_torchvision_names(tmp_path: Path) -> None:
    from safetensors import safe_open
    from torchvision.models import resnet18

    path = save_checkpoint(tmp_path / "run", model="resnet18", head="linear")
    file = export(config(path, tmp_path))[0] / "model.safetensors"
    network = resnet18(num_classes=2)
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
        network.load_state_dict({name: opened.get_tensor(name) for name in opened.keys()}, strict=True)  # noqa: SIM118
    images = np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32)
    mean, std = (np.reshape(np.float32(values), (1, 3, 1, 1)) for values in (MEAN, STD))
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy((images - mean) / std)).numpy()
    np.testing.assert_allclose(logits, by_hand(path, images), rtol=0, atol=2e-5)
    assert json.loads(header["classes"]) == ["benign", "malignant"]
    assert json.loads(header["input"])["normalisation"] == {"mean": MEAN, "std": STD, "inside_graph": False}


def test_metadata_say_what_a_user_needs(exported: Path, checkpoint: Path) -> None:
    found = entries(exported)
    assert set(found) == {"model.onnx", "model.pt2", "model.safetensors"}
    for name, about in found.items():
        content = (exported / name).read_bytes()
        assert about["sha256"] == hashlib.sha256(content).hexdigest()
        assert about["bytes"] == len(content)
        assert about["class_to_idx"] == {"benign": 0, "malignant": 1}
        assert (about["threshold"], about["temperature"]) == (0.31, {"temperature": 1.7})
        assert about["threshold_rule"] == "malignant where probabilities[:, 1] >= threshold"
        assert about["operating_point"]["sensitivity"] == 0.95
        assert about["seen_cases"] == ["A-14-22549AB", "DC-14-2523"]
        assert about["split_hash"] == "abc"
        assert about["checkpoint"]["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        assert about["versions"]["torch"] == torch.__version__.split("+")[0]
        assert len(about["parity"]["batches"]) == 6
        assert about["parity"]["largest_difference"]["probabilities"] <= 1e-5
        assert about["input"]["normalisation"]["inside_graph"] is (name != "model.safetensors")
        assert "short side of 73" in about["input"]["preparation"]
    assert found["model.onnx"]["input"]["shape"] == ["batch", 3, "height", "width"]
    assert found["model.onnx"]["opset"] >= 18
    assert found["model.safetensors"]["parity"]["largest_difference"] == {"logits": 0, "probabilities": 0}


def test_models_carry_their_metadata_and_no_path_of_this_machine(exported: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    header = session.get_modelmeta().custom_metadata_map
    assert json.loads(header["class_to_idx"]) == {"benign": 0, "malignant": 1}
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    extra = {METADATA: ""}
    torch.export.load(exported / "model.pt2", extra_files=extra)
    assert json.loads(extra[METADATA])["threshold"] == 0.31
    with zipfile.ZipFile(exported / "model.pt2") as archive:
        parts = [archive.read(name) for name in archive.namelist()]
    home = str(Path(exporting.__file__).parent).encode()
    for content in [(exported / "model.onnx").read_bytes(), *parts]:
        assert home not in content
        assert b".py" not in content


def test_eight_classes_and_a_stem_that_fixes_the_size(tmp_path: Path) -> None:
    import onnxruntime

    path = save_checkpoint(
        tmp_path / "run",
        SUBTYPES,
        model={"_target_": "histo_lightning.models.resnet.resnet10", "stem": "deep"},
        head="linear",
    )
    folder, metadata = export(config(path, tmp_path, format="onnx"))
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((3, 3, 64, 96), dtype=np.float32)
    (logits,) = session.run(["logits"], {"image": images})
    assert logits.shape == (3, 8)
    np.testing.assert_allclose(logits, by_hand(path, images), rtol=0, atol=2e-5)
    assert metadata["classes"] == list(SUBTYPES)
    assert metadata["input"]["shape"] == ["batch", 3, 64, 96]
    assert "the sum of probabilities[:, [4, 5, 6, 7]]" in metadata["threshold_rule"]


def test_images_of_32_pixels_have_a_fixed_size(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "run", size=32, head="linear")
    _, metadata = export(config(path, tmp_path, format="torch_export"))
    assert metadata["input"]["shape"] == ["batch", 3, 32, 64]


def test_another_checkpoint_replaces_all_and_a_failure_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(config(checkpoint, tmp_path, format="torch_export", run_name="x"))
    folder, _ = export(config(checkpoint, tmp_path, run_name="x"))
    (folder / "notes.txt").write_text("mine")
    assert {path.name for path in folder.iterdir()} == {
        "model.pt2",
        "model.safetensors",
        METADATA,
        "notes.txt",
        "manifest.json",
    }
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    other = save_checkpoint(tmp_path / "other", head="linear")

    def broken(trained: Trained, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(images), 2), torch.full((len(images), 2), torch.nan)

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "reference", broken)
        with pytest.raises(UserError, match="probabilities differ from the checkpoint's by nan"):
            export(config(other, tmp_path, run_name="x"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError(28, "No space")))
        with pytest.raises(UserError, match="cannot be written"):
            export(config(other, tmp_path, run_name="x"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    export(config(other, tmp_path, run_name="x"))
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        METADATA,
        "notes.txt",
        "manifest.json",
    }
    assert entries(folder).keys() == {"model.safetensors"}


@pytest.mark.parametrize("name", ["onnx", "torch_export"])
def test_parity_failure_leaves_nothing(
    name: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(trained: Trained, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, probabilities = reference(trained, images)
        return logits, probabilities + 2e-4 * (len(images) == 5)

    monkeypatch.setattr(exporting, "reference", shifted)
    with pytest.raises(UserError, match=r"differ from the checkpoint's by 0\.0002, allowed is 0\.0001"):
        export(config(checkpoint, tmp_path, format=name))
    assert not (tmp_path / "exports").exists()


def test_parity_sees_wrong_normalisation_shapes_and_one_wrong_weight(
    checkpoint: Path, tmp_path: Path
) -> None:
    trained = Trained.load(checkpoint, torch.device("cpu"))
    brighter = replace(trained, mean=trained.mean + 0.05)
    with pytest.raises(UserError, match="parity: probabilities differ"):
        parity(lambda images: reference(brighter, images), trained)
    with pytest.raises(UserError, match="parity: logits have the shape"):
        parity(lambda images: (torch.zeros(1, 3), torch.zeros(1, 3)), trained)
    content, _ = formats.FORMATS["safetensors"].build(trained, {})
    (tmp_path / "model.safetensors").write_bytes(content)
    with torch.no_grad():
        trained.classifier.network.fc[0].weight[0, 0] += 100
    read = formats.FORMATS["safetensors"].reader(tmp_path / "model.safetensors", trained)
    with pytest.raises(UserError, match="parity: probabilities differ"):
        parity(read, trained)


def test_a_missing_package_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnxscript", "onnxruntime", "safetensors"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match="format=onnx: needs onnxscript, onnxruntime; pip install"):
        export(config(checkpoint, tmp_path, format="onnx"))
    with pytest.raises(UserError, match="format=safetensors: needs safetensors; pip install"):
        export(config(checkpoint, tmp_path))
    assert not (tmp_path / "exports").exists()


def test_what_cannot_be_exported_or_written(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="checkpoint is not set"):
        export(ExportConfig(format="torch_export"))
    with pytest.raises(UserError, match="no such checkpoint"):
        export(config(tmp_path / "none.ckpt", tmp_path))
    (tmp_path / "noise.ckpt").write_bytes(b"PK not a checkpoint")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        export(config(tmp_path / "noise.ckpt", tmp_path))
    bare = torch.load(checkpoint, weights_only=True)
    del bare["histo_lightning"]["normalisation"]
    save_atomic(bare, tmp_path / "bare.ckpt")
    with pytest.raises(UserError, match="normalisation is missing"):
        export(config(tmp_path / "bare.ckpt", tmp_path))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        export(config(checkpoint, tmp_path / "file"))
    shuffled = torch.load(checkpoint, weights_only=True)
    shuffled["histo_lightning"]["config"]["split"] = {"shuffle_labels": True}
    save_atomic(shuffled, tmp_path / "shuffled.ckpt")
    with pytest.raises(UserError, match="was trained on shuffled labels"):
        export(config(tmp_path / "shuffled.ckpt", tmp_path))


def test_names_of_exports(tmp_path: Path) -> None:
    assert export_name(None, tmp_path / "run_b" / "checkpoints" / "last.ckpt") == "run_b"
    assert export_name(None, tmp_path / "mailed.ckpt") == "mailed"
    assert export_name("mine", tmp_path / "mailed.ckpt") == "mine"
    with pytest.raises(UserError, match=r"run_name=\.\."):
        export_name("..", tmp_path / "mailed.ckpt")


def test_the_command(command, checkpoint: Path, tmp_path: Path) -> None:
    """ONNX, where the exporter has most to say: three lines on the screen, nothing else."""
    done = command("export", f"checkpoint={checkpoint}", "json=out.json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["model", "metadata.json", "parity"]
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["format"] == "onnx"
    assert figures["parity"]["largest_difference"]["probabilities"] <= 1e-5
    model = tmp_path / figures["folder"] / figures["file"]
    assert figures["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()

    done = command("export", f"checkpoint={checkpoint}", "format=onx")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "format=onx: allowed are onnx" in done.stderr

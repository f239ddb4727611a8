"""What TensorBoard is given: of a fit, of a scored run, after a resume, in a plain Trainer."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from sklearn.metrics import precision_score, recall_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.pr_curve.plugin_data_pb2 import PrCurvePluginData
from tensorboard.util.tensor_util import make_ndarray
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from factories.configs import configs_of
from factories.runs import PICTURES, SMALL
from histo_lightning.callbacks.dashboard import LAYOUT, Dashboard, _add_graph, _rank_in_class
from histo_lightning.callbacks.loggers import TensorBoard
from histo_lightning.callbacks.scored import COLUMNS, write_scored
from histo_lightning.config.schema import Config
from histo_lightning.evaluation import read_predictions
from histo_lightning.runs import read_json, write_json
from histo_lightning.training.run import run_training

LINE = (*SMALL, "trainer.progress=none", "epochs=3")


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def config(root: Path, cache_dir: Path, *more: str) -> Config:
    return configs_of(*LINE, f"output_dir={root}", f"cache_dir={cache_dir}", *more)[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """A finished run of three epochs."""
    return run_training(config(tmp_path_factory.mktemp("board"), cache_dir, PICTURES))


def test_curves_are_those_of_the_history_and_nothing_has_two_names(run: Path) -> None:
    board = events(run / "tensorboard")
    tags = board.Tags()["scalars"]
    assert "epoch" not in tags
    groups = {tag.partition("/")[0] for tag in tags}
    assert groups == {"train", "val", "test", "scored", "lr", "images_per_second"}
    header, *rows = (run / "history.csv").read_text().splitlines()
    for column in ("train_loss", "val_loss", "val_case_auroc"):
        expected = [float(row.split(",")[header.split(",").index(column)]) for row in rows]
        curve = [event.value for event in board.Scalars(column.replace("_", "/", 1))]
        assert curve == pytest.approx(expected, rel=1e-6)
    metrics = read_json(run / "metrics.json")
    assert board.Scalars("test/case_auroc")[0].value == pytest.approx(
        metrics["test"]["case"]["auroc"]["value"]
    )
    assert board.Scalars("scored/val_image_accuracy")[0].value == pytest.approx(
        metrics["val"]["image"]["accuracy"]["value"]
    )


def test_everything_else_is_there_once(run: Path) -> None:
    board = events(run / "tensorboard")
    tags = board.Tags()
    assert tags["graph"]
    layout = board.Tensors("custom_scalars__config__")
    assert len(layout) == 1
    for chart in next(iter(LAYOUT.values())):
        assert chart.encode() in layout[0].tensor_proto.string_val[0]
    pictures = {*tags["images"]}
    assert pictures >= {
        "train/augmented",
        "val/gradcam",
        "val/roc",
        "val/worst",
        "test/confusion",
        "test/cases",
    }
    assert [len(board.Images(tag)) for tag in pictures - {"val/gradcam"}] == [1] * (len(pictures) - 1)
    assert len(board.Images("val/gradcam")) == 3  # of three epochs
    texts = {
        tag: board.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        for tag in tags["tensors"]
        if "text" in tag
    }
    assert "SYNTHETIC IMAGES" in texts["label/text_summary"]
    assert "fold 0" in texts["protocol/text_summary"]
    assert "resnet10" in texts["config/text_summary"]
    assert not tags["histograms"]
    assert not tags["distributions"]


def test_the_pr_curve_is_scikit_learn_s(run: Path) -> None:
    board = events(run / "tensorboard")
    metadata = board.SummaryMetadata("precision_recall/test")
    assert PrCurvePluginData.FromString(metadata.plugin_data.content).num_thresholds == 127
    curve = make_ndarray(board.Tensors("precision_recall/test")[0].tensor_proto)
    table = read_predictions(run / "predictions" / "test.csv")
    truth = table.class_name == "malignant"
    for place, threshold in ((40, 40 / 126), (70, 70 / 126)):
        called = table.p_malignant >= threshold
        assert curve[4, place] == pytest.approx(precision_score(truth, called, zero_division=0), abs=1e-6)
        assert curve[5, place] == pytest.approx(recall_score(truth, called), abs=1e-6)


def hparams_of(folder: Path) -> tuple[list[str], dict[str, object], list[str]]:
    """Names in TensorBoard's order, values, names of metrics."""
    board = events(folder / "tensorboard")
    content = board.summary_metadata["_hparams_/experiment"].plugin_data.content
    experiment = HParamsPluginData.FromString(content).experiment
    start = HParamsPluginData.FromString(
        board.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    ).session_start_info
    ordered = sorted(experiment.hparam_infos, key=lambda info: (not info.differs, info.name))
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    return [info.name for info in ordered], values, [info.name.tag for info in experiment.metric_infos]


def test_hparams_has_few_columns_and_real_scores(run: Path) -> None:
    names, values, metrics = hparams_of(run)
    assert set(names) == set(COLUMNS)
    assert set(names[:5]) == {"model", "optimizer", "lr", "magnification", "fold"}
    assert (values["model"], values["image_size"], values["weight_decay"]) == ("resnet10", 32.0, 0.05)
    tags = events(run / "tensorboard").Tags()["scalars"]
    assert len(metrics) == 6
    assert set(metrics) <= set(tags)


def test_what_a_sweep_varies_comes_first(run: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    folder = sweep / "job"
    (folder / "tensorboard").mkdir(parents=True)
    for name in ("config.yaml", "metrics.json", "split.json"):
        (folder / name).write_text((run / name).read_text())
    (folder / "predictions").symlink_to(run / "predictions")
    jobs = [{"run": "job", "overrides": [f"model={m}", f"label_smoothing={s}", "epochs=3", "hydra/launcher=x"]} for m, s in
            (("resnet10", 0.0), ("resnet14", 0.1))]  # fmt: skip
    write_json(sweep / "sweep.json", {"jobs": jobs})
    write_scored(folder, "")
    names, values, _ = hparams_of(folder)
    assert names[:2] == ["label_smoothing", "model"]
    assert set(names) == set(COLUMNS) | {"label_smoothing"}
    assert values["label_smoothing"] == 0.0


def test_a_second_call_replaces_the_first(run: Path) -> None:
    before = events(run / "tensorboard").Tags()
    write_scored(run, "SYNTHETIC IMAGES: says nothing about tissue")
    write_scored(run, "SYNTHETIC IMAGES: says nothing about tissue")
    board = events(run / "tensorboard")
    assert {name: sorted(tags) for name, tags in board.Tags().items() if isinstance(tags, list)} == {
        name: sorted(tags) for name, tags in before.items() if isinstance(tags, list)
    }
    assert len(board.Images("val/roc")) == len(board.Scalars("test/case_auroc")) == 1
    assert len(list((run / "tensorboard").glob("*.scored"))) == 1


class Killed(pl.Callback):
    """Ends the process's work after the checkpoint of an epoch, as a kill in the next one would."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if trainer.current_epoch == 2 and batch_idx == 1:
            raise KeyboardInterrupt


def test_a_resumed_run_has_every_step_once(tmp_path: Path, cache_dir: Path) -> None:
    settings = config(tmp_path, cache_dir, "seed=3", "logger.tensorboard.every_n_steps=2")
    with pytest.raises(KeyboardInterrupt):
        run_training(settings, callbacks=[Killed()])
    folder = run_training(settings)
    board = events(folder / "tensorboard")
    assert len(list((folder / "tensorboard").glob("events*"))) == 3
    for tag in ("train/step_loss", "train/loss", "val/loss", "lr"):
        steps = [event.step for event in board.Scalars(tag)]
        assert steps == sorted(set(steps)), tag
    epochs = len((folder / "history.csv").read_text().splitlines()) - 1
    assert len(board.Scalars("val/loss")) == epochs == 3
    per_epoch = board.Scalars("val/loss")[0].step + 1
    assert [event.step for event in board.Scalars("train/step_loss")] == list(range(1, 3 * per_epoch, 2))
    assert len(board.Tensors("custom_scalars__config__")) == 1


class Plain(pl.LightningModule):
    """Somebody's module: no `network`, batches that are no dict of ours where asked."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def training_step(self, batch: object, batch_idx: int) -> torch.Tensor:
        return self.layer(batch["image"].mean(dim=(2, 3)) if isinstance(batch, dict) else batch[0]).sum()

    validation_step = training_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_it_serves_any_module_and_logger(tmp_path: Path, kind: str, quiet: None) -> None:
    """With histograms on, of a module that it knows nothing of; a CSV logger beside it gets no pictures."""
    images = torch.rand(8, 3, 16, 16)
    data = [{"image": image, "label": i % 2} for i, image in enumerate(images)] if kind == "dict" else [
        (image.mean(dim=(1, 2)), 0) for image in images
    ]  # fmt: skip
    logger = TensorBoard(str(tmp_path), name="tb", version="", every_n_steps=1)
    trainer = pl.Trainer(
        max_epochs=2,
        accumulate_grad_batches=2,
        accelerator="cpu",
        logger=[logger, CSVLogger(str(tmp_path))],
        callbacks=[Dashboard(histograms=True)],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Plain(), DataLoader(data, batch_size=4), DataLoader(data, batch_size=4))
    board = events(tmp_path / "tb")
    tags = board.Tags()
    assert [event.step for event in board.Scalars("train/step_loss")] == [0, 1]  # two batches make a step
    assert len(board.Images("train/augmented") if kind == "dict" else [0]) == 1
    assert set(tags["histograms"]) == {
        f"{what}/layer.{name}" for what in ("weights", "gradients") for name in ("weight", "bias")
    }
    assert ("train/augmented" in tags["images"]) == (kind == "dict")
    assert not tags["graph"]


def test_tracing_leaves_every_module_in_its_mode(tmp_path: Path) -> None:
    """Frozen batch norms are in evaluation mode while the rest trains."""
    module = Plain()
    module.network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    module.network.train()
    module.network[1].eval()
    writer = SummaryWriter(str(tmp_path))
    _add_graph(writer, module, torch.rand(1, 3, 8, 8))
    writer.close()
    assert events(tmp_path).Tags()["graph"]
    assert [part.training for part in module.network.modules()] == [True, True, False, True]


@pytest.mark.parametrize(
    ("epochs", "times", "expected"),
    [(20, 5, [4, 8, 12, 16, 20]), (3, 5, [1, 2, 3]), (7, 2, [4, 7]), (-1, 5, [1, 2, 4, 8, 16]), (4, 1, [4])],
)
def test_heat_maps_are_drawn_as_often_as_asked_the_last_epoch_included(
    epochs: int, times: int, expected: list[int]
) -> None:
    dashboard = Dashboard(gradcam_times=times)
    due = [k for k in range(1, 21) if dashboard._due(SimpleNamespace(max_epochs=epochs, current_epoch=k - 1))]
    assert [k for k in due if k <= (epochs if epochs > 0 else 20)] == expected


def test_the_fixed_images_are_of_both_classes(run: Path) -> None:
    """Validation begins with images of one class; the grid has four columns of a field and its heat."""
    image = events(run / "tensorboard").Images("val/gradcam")[0]
    width, height = (image.width - 2) / 4 - 2, (image.height - 2) / 2 - 2  # of one field, without its margin
    assert width / height == pytest.approx(700 / 460, abs=0.05)
    assert _rank_in_class(torch.tensor([0, 0, 0, 1, 0, 1])).tolist() == [0, 1, 2, 0, 3, 1]


def test_without_the_callback_nothing_is_written_and_no_result_changes(
    run: Path, tmp_path: Path, cache_dir: Path
) -> None:
    other = run_training(config(tmp_path, cache_dir, "~callbacks.dashboard"))
    tags = events(other / "tensorboard").Tags()
    assert not tags["images"]
    assert not [tag for tag in tags["scalars"] if tag.startswith(("test/", "scored/"))]
    for part in ("val", "test"):
        ours, theirs = (folder / "predictions" / f"{part}.csv" for folder in (run, other))
        assert ours.read_bytes() == theirs.read_bytes()
    assert other.name == run.name  # it is not hashed either


def test_without_a_logger_a_run_is_whole(tmp_path: Path, cache_dir: Path) -> None:
    bare = run_training(config(tmp_path, cache_dir, "logger=none", "epochs=1"))
    assert not (bare / "tensorboard").exists()
    assert (bare / "report.html").is_file()

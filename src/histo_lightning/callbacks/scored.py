"""What TensorBoard shows of a run that has been scored, from the files of its folder: HParams, test scores, PR curves, pictures."""

import io
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from histo_lightning.evaluation import read_predictions
from histo_lightning.runs import read_bytes, read_json

SUFFIX = ".scored"
SCORES = ("auroc", "balanced_accuracy", "accuracy")
LEVELS = ("case", "image")
# HParams in every run: where their values are in config.yaml, and by name: model.name as model, split.fold as fold.
PATHS = (
    *("model.name", "optimizer.name", "optimizer.lr", "optimizer.weight_decay"),
    *("magnification", "split.name", "split.fold", "seed"),
    *("epochs", "image_size", "batch_size", "augment.name"),
)
COLUMNS = {path.removesuffix(".name").rpartition(".")[2]: path for path in PATHS}
# Shown first, outside a sweep; TensorBoard shows five.
SHOWN = {"model", "optimizer", "lr", "magnification", "fold"}
PICTURES = ("roc", "cases", "confusion", "reliability", "worst")


def write_scored(folder: Path, labels: str) -> None:
    """Write or replace an event file of its own in a run's ``tensorboard/``, where it has one, with the result's ``labels``."""
    board = folder / "tensorboard"
    if not board.is_dir():
        return
    for old in board.glob(f"*{SUFFIX}"):
        old.unlink()
    metrics = read_json(folder / "metrics.json")
    config = OmegaConf.load(io.BytesIO(read_bytes(folder / "config.yaml")))
    step = int(metrics["best_epoch"])
    with SummaryWriter(str(board), filename_suffix=SUFFIX) as writer:
        for summary in _hparams(config, _varied(folder.parent / "sweep.json")):
            writer._get_file_writer().add_summary(summary)
        for name, text in _texts(folder, metrics.get("remarks") or []).items():
            writer.add_text(name, text, step)
        if labels:
            writer.add_text("label", labels, step)
        for part, prefix in (("val", "scored/val_"), ("test", "test/")):
            if not metrics.get(part):
                continue
            for level, name in product(LEVELS, SCORES):
                value = (metrics[part][level].get(name) or {}).get("value")
                if value is not None:
                    writer.add_scalar(f"{prefix}{level}_{name}", value, step)
            table = read_predictions(folder / "predictions" / f"{part}.csv")
            malignant = np.array(table.class_name) == "malignant"
            writer.add_pr_curve(f"precision_recall/{part}", malignant, table.p_malignant, step)
            for name in PICTURES:
                path = folder / "plots" / f"{name}_{part}.png"
                if path.is_file():
                    writer._get_file_writer().add_summary(_picture(f"{part}/{name}", path.read_bytes()), step)


def _hparams(config: Any, varied: list[str]) -> list[Any]:
    """The summaries of HParams: :data:`COLUMNS` and what a sweep varies, which TensorBoard then shows first."""
    names = {path: path for path in varied} | {path: name for name, path in COLUMNS.items()}
    plain = {}
    for path, name in names.items():
        value = OmegaConf.select(config, path)
        plain[name] = value if isinstance(value, (bool, int, float)) else "-" if value is None else str(value)
    metrics = {f"scored/val_{level}_{name}": 0.0 for level, name in product(LEVELS, SCORES)}
    experiment, *session = hparams(plain, metrics)  # type: ignore[no-untyped-call]  # torch ships no types
    plugin = experiment.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin.content)
    for info in content.experiment.hparam_infos:
        info.differs = info.name in ({names[path] for path in varied} or SHOWN)
    plugin.content = content.SerializeToString()
    return [experiment, *session]


def _picture(tag: str, png: bytes) -> Summary:
    """A PNG file as it is: its size is in its header (ISO/IEC 15948, 11.2.2), and it is not encoded again."""
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
    return Summary(value=[Summary.Value(tag=tag, image=image)])


def _varied(plan: Path) -> list[str]:
    """The keys whose values differ between the jobs of a sweep, a group as its name: ``model.name``; none without a plan."""
    values: dict[str, set[str]] = {}
    for job in read_json(plan).get("jobs") or []:
        for override in job["overrides"]:
            key, _, value = str(override).lstrip("+~").partition("=")
            values.setdefault(key, set()).add(value)
    keys = [key for key, several in values.items() if len(several) > 1 and not key.startswith("hydra")]
    groups = {path.partition(".")[0] for path in COLUMNS.values() if path.endswith(".name")}
    return [f"{key}.name" if key in groups else key for key in keys]


def _texts(folder: Path, remarks: list[str]) -> dict[str, str]:
    """The protocol in sentences, and the config as code."""
    split = read_json(folder / "split.json")
    cases = {part: len(names) for part, names in split["cases"].items()}
    counts = [f"{p} {len(images)} images of {cases.get(p, 0)} cases" for p, images in split["parts"].items()]
    protocol = [f"Split {split['kind']}, fold {split['fold']}: {', '.join(counts)}.", *remarks]
    config = (folder / "config.yaml").read_text(encoding="utf-8").splitlines()
    return {"protocol": "  \n".join(protocol), "config": "\n".join(f"    {line}" for line in config)}

"""The keys of every command: their types, choices, ranges and defaults. ``conf/`` says what each one decides.

Metadata of a field: ``choices``, ``low`` and ``high``, ``pattern``, ``items`` of a list, ``pair``; ``only`` (options of its group
that it belongs to), ``hashed=False`` (it changes no result), ``literal`` (taken from the command line unread).
"""

import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from histo_lightning.config.tree import option

# What a run can be watched by, and whether less or more of it is better.
MONITORS = dict.fromkeys(("val_case_log_loss", "val_loss"), "min")
MONITORS |= dict.fromkeys(("val_accuracy", "val_balanced_accuracy", "val_auroc", "val_case_auroc"), "max")
NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}"


def key(default: Any, **metadata: Any) -> Any:
    """A field with its default, or the function that makes it, and what its value may be."""
    kind = "default_factory" if callable(default) else "default"
    return field(**{kind: default}, metadata=metadata)


def short_name(target: str) -> str:
    """``torch.optim.AdamW`` -> ``adamw``, ``...lr_scheduler.OneCycleLR`` -> ``onecycle``: what results call it."""
    return re.sub(r"^reducelron|lr$", "", target.rsplit(".", 1)[-1].lower())


@dataclass
class HeadConfig:
    name: str = key("linear", choices=("linear", "mlp"))
    hidden: int | None = key(None, low=1, high=65536, only=("mlp",))
    dropout: float | None = key(None, low=0, high=0.99, only=("mlp",))


@dataclass
class DatasetConfig:
    name: str = key("synthetic", choices=("synthetic", "breakhis", "folders"))
    root: str = key("", hashed=False, literal=True)
    images_per_slide: int | None = key(None, low=1, high=60, only=("synthetic",))
    image_size: int | None = key(None, low=140, high=1400, only=("synthetic",))
    seed: int | None = key(None, low=0, high=2**31 - 1, only=("synthetic",))
    short_side: int | None = key(None, low=32, high=4096)
    download: bool = key(False, hashed=False)
    url: str | None = key(None, hashed=False, literal=True, only=("breakhis",))


@dataclass
class SplitConfig:
    name: str = "case_kfold"
    fold: int = 0  # for ``official`` 1 to 5
    folds: int = 5
    seed: int = key(0, low=0, high=2**31 - 1)
    repeat: int = key(0, low=0, high=10**6)
    group: str = key("case", choices=("case", "slide", "image"))
    clean: bool = False
    matched: bool = False
    injected: float | None = key(None, low=0, high=1)
    shuffle_labels: bool = False
    path: str = key("", literal=True)


@dataclass
class AugmentConfig:
    name: str = "none"  # all is off by default
    crop_scale: list[float] = key(lambda: [1.0, 1.0], pair=(0.01, 1.0))
    crop_ratio: list[float] = key(lambda: [1.0, 1.0], pair=(0.1, 10.0))
    dihedral: bool = False
    horizontal_flip: bool = False
    rotation_degrees: float = key(0.0, low=0, high=180)
    brightness: float = key(0.0, low=0, high=0.9)
    contrast: float = key(0.0, low=0, high=0.9)
    channel_gain: float = key(0.0, low=0, high=0.9)
    stain_gain: float = key(0.0, low=0, high=0.9)
    stain_shift: float = key(0.0, low=0, high=0.5)
    steps: dict[str, Any] = key(dict)
    evaluate: str = key("field", choices=("field", "center"))
    normalisation: str = key("train", choices=("train", "imagenet"))


@dataclass
class TrainerConfig:
    name: str = "auto"
    accelerator: str = key("auto", choices=("auto", "cpu", "gpu"))
    devices: int = key(1, low=1, high=1024, hashed=False)
    strategy: str = key("single", choices=("single", "ddp"))
    precision: str = key("auto", choices=("auto", "32-true", "bf16-mixed", "16-mixed"))
    compile: str = key("auto", choices=("auto", "true", "false"))
    channels_last: bool = True
    deterministic: bool = True
    threads: int | None = key(None, low=1, high=4096, hashed=False)
    workers: int = key(0, low=0, high=256, hashed=False)
    gpu: int | None = key(None, low=0, high=1023, hashed=False)
    jobs_per_gpu: int = key(1, low=1, high=64, hashed=False)
    progress: str = key("auto", choices=("auto", "bar", "lines", "none"), hashed=False)
    flags: dict[str, Any] = key(dict)  # other arguments of Lightning's Trainer, given as ``trainer.<flag>``


@dataclass
class StudyConfig:
    factor: str = key("model", hashed=False)
    reference: str | None = key(None, hashed=False)
    score: str = key("case_auroc", hashed=False)
    standard_error: str = key("jackknife", choices=("jackknife", "pairs"), hashed=False)


@dataclass
class ReportConfig:
    # Pages show the PNG, which is always drawn.
    formats: list[str] = key(lambda: ["png"], items=("png", "svg", "pdf"), hashed=False)


@dataclass
class OutputConfig:
    output_dir: str = key("outputs", hashed=False, literal=True)
    run_name: str | None = key(None, hashed=False, pattern=NAME)
    json: str | None = key(None, hashed=False, literal=True)


@dataclass
class Config(OutputConfig):
    """Everything a training run depends on; the defaults are those of ``conf/train.yaml``."""

    model: dict[str, Any] = key(partial(option, "model", "resnet18"))
    head: HeadConfig = key(HeadConfig)
    optimizer: dict[str, Any] = key(partial(option, "optimizer", "adamw"))
    scheduler: dict[str, Any] = key(partial(option, "scheduler", "cosine"))
    dataset: DatasetConfig = key(DatasetConfig)
    split: SplitConfig = key(SplitConfig)
    augment: AugmentConfig = key(lambda: AugmentConfig(**option("augment", "d4_stain")))
    trainer: TrainerConfig = key(TrainerConfig)
    callbacks: dict[str, Any] = key(partial(option, "callbacks", "default"))
    logger: dict[str, Any] = key(partial(option, "logger", "tensorboard"))
    study: StudyConfig = key(StudyConfig)
    report: ReportConfig = key(ReportConfig)
    imports: list[str] = key(list, hashed=False)
    debug: str | None = None
    magnification: str = key("40x", choices=("40x", "100x", "200x", "400x", "all"))
    task: str = key("binary", choices=("binary", "subtype"))
    seed: int = key(0, low=0, high=2**31 - 1)
    epochs: int = key(20, low=1, high=100000)
    batch_size: int = key(16, low=2, high=65536)
    image_size: int = key(112, low=32, high=2048)
    monitor: str = key("val_case_log_loss", choices=tuple(MONITORS))
    scored_weights: str = key("last", choices=("best", "last"))
    test: bool = True
    train_scores: str = key("epoch", choices=("epoch", "pass"))
    class_weights: str = key("none", choices=("none", "balanced"))
    sampler: str = key("shuffle", choices=("shuffle", "case_balanced"))
    label_smoothing: float = key(0.0, low=0, high=0.9)
    tta: str = key("none", choices=("none", "d4"))
    exact_predictions: bool = False
    target_sensitivity: float = key(0.95, low=0.01, high=1)
    keep: str | None = key(None, choices=("weights", "all"), hashed=False)
    sweep_name: str | None = key(None, hashed=False, pattern=NAME)
    resume: str = key("auto", hashed=False, literal=True)
    cache_dir: str | None = key(None, hashed=False, literal=True)

    def __post_init__(self) -> None:
        """Give what is built from ``_target_`` the name that results call it by; leave out callbacks and loggers that are null."""
        for settings in (self.model, self.optimizer, self.scheduler):
            if isinstance(settings.get("_target_"), str):
                settings.setdefault("name", short_name(settings["_target_"]))
        for group in ("callbacks", "logger"):
            setattr(self, group, {k: entry for k, entry in getattr(self, group).items() if entry is not None})


@dataclass
class PrepareConfig(Config):
    verify: str = key("fast", choices=("fast", "full"))
    preview: bool = False


@dataclass
class BenchmarkConfig(Config):
    suite: str = key("quick", choices=("quick", "full"))
    select: list[str] | None = None  # rows (``P1,P5a``); null is all of the suite
    timm: str | None = key(None, literal=True)


@dataclass
class TuneSettings:
    name: str = "optimizer"
    space: dict[str, Any] = key(dict)
    trials: int = key(20, low=1, high=100000, hashed=False)
    sampler: str = key("tpe", choices=("tpe", "random"))
    random_trials: int = key(5, low=1, high=100000)
    pruner: str = key("median", choices=("median", "halving", "none"))
    pruner_trials: int = key(5, low=1, high=100000)
    warmup_epochs: int | None = key(None, low=1, high=100000)
    folds: list[int] | None = None
    max_failed: int = key(5, low=1, high=100000, hashed=False)
    final: bool = key(True, hashed=False)
    keep: str = key("best", choices=("best", "all"), hashed=False)


@dataclass
class TuneConfig(Config):
    tune: TuneSettings = key(TuneSettings)
    nested: bool = True
    study_name: str | None = key(None, hashed=False, pattern=NAME)


@dataclass
class CheckpointConfig(OutputConfig):
    checkpoint: str = key("", literal=True)
    imports: list[str] = key(list)


@dataclass
class EvaluateConfig(CheckpointConfig):
    dataset: DatasetConfig = key(DatasetConfig)
    magnification: str | None = key(None, choices=("40x", "100x", "200x", "400x", "all"))
    part: str = key("all", choices=("all", "unseen", "train", "val", "test"))
    allow_seen_cases: bool = False
    batch_size: int = key(32, low=2, high=65536)
    trainer: TrainerConfig = key(TrainerConfig)
    cache_dir: str | None = key(None, literal=True)
    report: ReportConfig = key(ReportConfig)


@dataclass
class PredictConfig(CheckpointConfig):
    input: str = key("", literal=True)
    tta: str = key("none", choices=("none", "d4"))
    gradcam: bool = False
    batch_size: int = key(32, low=2, high=65536)
    trainer: TrainerConfig = key(TrainerConfig)


@dataclass
class ExportConfig(CheckpointConfig):
    format: str = key("onnx", choices=("onnx", "torch_export", "safetensors"))


@dataclass
class AuditConfig:
    split_file: str = key("", literal=True)  # in any form; the data set is for comparing its pixels
    run: str = key("", literal=True)
    dataset: DatasetConfig = key(DatasetConfig)
    json: str | None = key(None, literal=True)
    cache_dir: str | None = key(None, literal=True)


@dataclass
class CompareConfig(OutputConfig):
    runs: str = key("", literal=True)  # null in the others: what the sweep's plan says
    factor: str | None = None
    reference: str | None = None
    score: str | None = None
    select: str | None = None
    standard_error: str | None = key(None, choices=("jackknife", "pairs"))
    report: ReportConfig = key(ReportConfig)


@dataclass
class IndexConfig:
    output_dir: str = key("outputs", literal=True)
    tensorboard: bool = False
    port: int = key(6006, low=1, high=65535)
    json: str | None = key(None, literal=True)


@dataclass
class HyperParameters:
    """Of a classifier, and of its checkpoints."""

    model: str | dict[str, Any] = "resnet18"
    num_classes: int = key(2, low=2, high=10000)
    head: str = key("linear", choices=("linear", "mlp"))
    hidden: int = key(512, low=1, high=65536)
    dropout: float = key(0.05, low=0, high=0.99)
    freeze_backbone: bool = False
    frozen_norm: str = key("train", choices=("train", "eval"))
    optimizer: str | dict[str, Any] = "adamw"
    scheduler: str | dict[str, Any] = "cosine"
    lr: float | None = key(None, low=0, high=1e6)
    class_weights: list[float] | None = None
    label_smoothing: float = key(0.0, low=0, high=0.999)
    tta: str = key("none", choices=("none", "d4"))
    exact_predictions: bool = False
    monitor: str = key("val/case_log_loss", choices=tuple(name.replace("_", "/", 1) for name in MONITORS))
    monitor_mode: str = key("min", choices=("min", "max"))


@dataclass
class Metadata:
    """What a checkpoint says of itself and of the images that it takes."""

    config: dict[str, Any]
    class_to_idx: dict[str, int]
    input_size: list[int]
    normalisation: dict[str, list[float]]
    output_size: int = key(2, low=2, high=10000)
    epoch: int = key(0, low=0, high=10**6)
    threshold: float = key(0.5, low=0, high=1)
    split_hash: str = ""
    shortened: str = ""
    seen_cases: list[str] = key(list)
    seen_pixels: list[str] = key(list)
    operating_point: dict[str, Any] = key(dict)
    temperature: dict[str, Any] = key(dict)


AnyConfig = Config | EvaluateConfig | PredictConfig | ExportConfig | AuditConfig | CompareConfig | IndexConfig
# The schema of each command, by the name of its config file at the root of ``conf/``.
SCHEMAS: dict[str, type[AnyConfig]] = {
    "train": Config,
    "prepare": PrepareConfig,
    "benchmark": BenchmarkConfig,
}
SCHEMAS |= {"tune": TuneConfig, "evaluate": EvaluateConfig, "predict": PredictConfig, "export": ExportConfig}
SCHEMAS |= {"audit": AuditConfig, "compare": CompareConfig, "report": IndexConfig}

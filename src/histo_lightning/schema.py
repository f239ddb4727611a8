"""The keys of a training run and their types; ``conf/train.yaml`` says what each one decides."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ModelConfig:
    name: str = "resnet18"
    weights: str | None = None
    stem: str = "standard"
    zero_init_residual: bool = True
    freeze_backbone: bool = False
    frozen_norm: str = "train"


@dataclass
class HeadConfig:
    name: str = "linear"
    hidden: int | None = None
    dropout: float | None = None


@dataclass
class OptimizerConfig:
    name: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float | None = None
    nesterov: bool | None = None
    betas: list[float] | None = None
    alpha: float | None = None
    eps: float | None = None
    clip_norm: float | None = None


@dataclass
class SchedulerConfig:
    name: str = "cosine"
    warmup_epochs: int | None = None
    final_ratio: float | None = None
    step_size: int | None = None
    gamma: float | None = None
    factor: float | None = None
    patience: int | None = None
    pct_start: float | None = None


@dataclass
class DatasetConfig:
    name: str = "synthetic"
    root: str = ""
    images_per_slide: int | None = None
    image_size: int | None = None
    seed: int | None = None
    short_side: int | None = None
    download: bool = False
    url: str | None = None


@dataclass
class SplitConfig:
    name: str = "case_kfold"
    fold: int = 0
    folds: int = 5
    seed: int = 0
    repeat: int = 0
    group: str = "case"
    clean: bool = False
    matched: bool = False
    injected: float | None = None
    shuffle_labels: bool = False
    path: str = ""


@dataclass
class AugmentConfig:
    name: str = "d4"
    crop_scale: list[float] = field(default_factory=lambda: [1.0, 1.0])
    crop_ratio: list[float] = field(default_factory=lambda: [1.0, 1.0])
    dihedral: bool = False
    horizontal_flip: bool = False
    rotation_degrees: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    channel_gain: float = 0.0
    stain_gain: float = 0.0
    stain_shift: float = 0.0
    evaluate: str = "field"
    normalisation: str = "train"


@dataclass
class TrainerConfig:
    name: str = "auto"
    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "single"
    precision: str = "auto"
    compile: str = "auto"
    channels_last: bool = True
    deterministic: bool = True
    threads: int | None = None
    workers: int = 0
    gpu: int | None = None
    progress: str = "auto"


@dataclass
class EarlyStoppingConfig:
    patience: int | None = None
    monitor: str | None = None
    min_delta: float = 0.0


@dataclass
class EmaConfig:
    decay: float | None = None


@dataclass
class StudyConfig:
    factor: str = "model"
    reference: str | None = None
    score: str = "case_auroc"


@dataclass
class Config:
    """Everything a training run depends on. ``conf/train.yaml`` says what each key decides."""

    model: ModelConfig = field(default_factory=ModelConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    study: StudyConfig = field(default_factory=StudyConfig)
    magnification: str = "40x"
    task: str = "binary"
    seed: int = 0
    epochs: int = 20
    batch_size: int = 32
    image_size: int = 112
    monitor: str = "val_case_log_loss"
    scored_weights: str = "best"
    test: bool = True
    class_weights: str = "none"
    sampler: str = "shuffle"
    label_smoothing: float = 0.0
    target_sensitivity: float = 0.95
    output_dir: str = "outputs"
    run_name: str | None = None
    sweep_name: str | None = None
    json: str | None = None
    resume: str = "auto"
    cache_dir: str | None = None


@dataclass
class PrepareConfig(Config):
    """What ``prepare`` takes: the settings of the runs that it prepares for, and how thorough it is to be."""

    verify: str = "fast"
    preview: bool = False


@dataclass
class BenchmarkConfig(Config):
    """What ``benchmark`` takes; ``select`` names rows (``P1,P5a``), null is all of the suite."""

    suite: str = "quick"
    select: list[str] | None = None


@dataclass
class TuneSettings:
    """How ``tune`` searches; ``conf/tune/*.yaml`` are spaces that ship."""

    name: str = "optimizer"
    space: dict[str, Any] = field(default_factory=dict)
    trials: int = 20
    sampler: str = "tpe"
    random_trials: int = 5
    pruner: str = "median"
    pruner_trials: int = 5
    warmup_epochs: int | None = None
    folds: list[int] | None = None
    max_failed: int = 5
    final: bool = True
    keep: str = "best"


@dataclass
class TuneConfig(Config):
    """What ``tune`` takes: the settings of the runs that it trains, and what it searches over."""

    tune: TuneSettings = field(default_factory=TuneSettings)
    nested: bool = True
    study_name: str | None = None


@dataclass
class EvaluateConfig:
    """What ``evaluate`` takes: a checkpoint and a data set to score it on."""

    checkpoint: str = ""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    magnification: str | None = None
    part: str = "all"
    allow_seen_cases: bool = False
    batch_size: int = 32
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    output_dir: str = "outputs"
    run_name: str | None = None
    json: str | None = None
    cache_dir: str | None = None


@dataclass
class PredictConfig:
    """What ``predict`` takes: a checkpoint and images of any name."""

    checkpoint: str = ""
    input: str = ""
    tta: str = "none"
    gradcam: bool = False
    batch_size: int = 32
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    output_dir: str = "outputs"
    run_name: str | None = None
    json: str | None = None


@dataclass
class ExportConfig:
    """What ``export`` takes: a checkpoint and a format."""

    checkpoint: str = ""
    format: str = "onnx"
    output_dir: str = "outputs"
    run_name: str | None = None
    json: str | None = None


@dataclass
class AuditConfig:
    """What ``audit`` takes: a split in any form, and the images it speaks of where pixels are to be compared."""

    split_file: str = ""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    json: str | None = None
    cache_dir: str | None = None


@dataclass
class CompareConfig:
    """What ``compare`` takes: folders of runs, and what to compare; null: what the sweep's plan says."""

    runs: str = ""
    factor: str | None = None
    reference: str | None = None
    score: str | None = None
    select: str | None = None
    output_dir: str = "outputs"
    run_name: str | None = None
    json: str | None = None


AnyConfig = Config | EvaluateConfig | PredictConfig | ExportConfig | AuditConfig | CompareConfig
# The schema of each config file at the root of ``conf/``, which is also the command's name.
SCHEMAS: dict[str, type[AnyConfig]] = {
    "train": Config,
    "prepare": PrepareConfig,
    "benchmark": BenchmarkConfig,
    "tune": TuneConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
    "audit": AuditConfig,
    "compare": CompareConfig,
}

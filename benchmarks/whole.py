"""P15 to P18 and P20: sweeps as a whole, what comes before the first and after the last step, whole commands against what a user would take instead."""

import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import cast

import torch

from histo_lightning.classifier.hardware import resolve
from histo_lightning.config.compose import config_of
from histo_lightning.config.schema import BenchmarkConfig, Config
from histo_lightning.data.datamodule import BreakHisDataModule
from histo_lightning.training.objects import build_classifier, build_datamodule

from .epochs import pure_compute
from .measure import Row, interleaved, judged, ratios, unmeasured
from .naive import link_tree

SWEEP = {"model": ("resnet18", "resnet34", "resnet50"), "optimizer": ("sgd", "adam")}
MAGNIFICATIONS = "40x,100x,200x,400x"
SWEPT = ("image_size=64", "epochs=10")
SHARED = "split.fold=0,1,2,3,4", "seed=0,1,2,3", *SWEPT, "hydra/launcher=joblib"  # 20 small runs
SHARES = 4  # that P20 puts on a GPU at a time
MODEL, BATCH = "resnet18", 16
EPOCHS = {"P17": 3, "P18": 20}
IMAGES = 300  # of the training epoch that P17 compares with
ASKED = {224: "<= 0.87", 112: "<= 0.6"}
# A user's callback: it writes down when the first step begins, and ends the process.
_FIRST_STEP = """
import os, time
from pathlib import Path
from pytorch_lightning import Callback

class FirstStep(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        Path("first_step.txt").write_text(str(time.time()))
        os._exit(0)
"""


def whole_rows(
    config: BenchmarkConfig, data: BreakHisDataModule, rounds: int, wanted: Callable[[str], bool]
) -> list[Row]:
    """P16 and P17, and where ``suite=full`` or ``select`` asks for them P15 and P18, on the images and the split of ``data``."""
    with tempfile.TemporaryDirectory(prefix="histo-benchmark-") as scratch:
        folder = Path(scratch)
        rows = []
        if wanted("P15") and (config.suite == "full" or "P15" in (config.select or [])):
            rows.append(sweep_row())
        if wanted("P16") or wanted("P17"):
            _ours(config, folder, 224, 1)  # decodes what is not decoded yet
        if wanted("P16"):
            rows.append(_first_step_row(config, folder, rounds))
        if wanted("P17"):
            found = [_after(config, folder, seed) for seed in range(max(rounds // 2, 2))]
            shares, seconds = zip(*found, strict=True)
            why = f"{statistics.median(seconds):.1f} s from the last epoch's end to the exit of the command; {_about(data)}"
            title = f"last step to exit / a training epoch of {IMAGES} images at 224"
            rows.append(judged("P17", title, "<= 0.4", shares, why))
        if wanted("P18") and (config.suite == "full" or "P18" in (config.select or [])):
            rows += _against(config, data, folder, max(rounds // 5, 1))
        return rows


def sweep_row() -> Row:
    """P15: 24 runs of the embedded set as one command, against the arithmetic of their epochs on batches that lie ready."""
    pure = 0.0
    for model, optimizer in product(*SWEEP.values()):
        config = cast(Config, config_of("train", [f"model={model}", f"optimizer={optimizer}", *SWEPT]))
        data = build_datamodule(config)
        data.setup()
        hardware = resolve(config.trainer)
        torch.set_num_threads(hardware.threads)
        classifier = build_classifier(config, data)
        loop = pure_compute(config, hardware, classifier, data, torch.device("cpu"))
        loop.steps, loop.val_steps = len(data.loader("train", train=True)), len(data.loader("val"))
        epochs = [loop.train() + loop.validate() for _ in range(3)][1:]
        pure += config.epochs * min(epochs) * len(MAGNIFICATIONS.split(","))
    swept = [f"{name}={','.join(values)}" for name, values in SWEEP.items()]
    with tempfile.TemporaryDirectory(prefix="histo-benchmark-") as folder:
        command = ["train", "-m", *swept, f"magnification={MAGNIFICATIONS}", *SWEPT, f"output_dir={folder}"]
        seconds = _run([sys.executable, "-m", "histo_lightning", *command])
    why = f"{seconds:.0f} s against {pure:.0f} s of pure compute: 3 depths, 2 optimizers, 4 magnifications, {', '.join(SWEPT)}"
    return judged(
        "P15", "a sweep of 24 runs / pure compute, one after the other", "<= 1.25", [seconds / pure], why
    )


def shared_gpu_row() -> Row:
    """P20: 20 small runs of a sweep on one GPU, one after the other, against ``SHARES`` at a time, each a process of its own."""
    title = f"GPU: a sweep of 20 small runs, one by one / {SHARES} at a time on one GPU"
    if not torch.cuda.is_available():
        return unmeasured("P20", title, ">= 1.5", "no GPU on this machine")

    def sweep(jobs: int) -> float:
        with tempfile.TemporaryDirectory(prefix="histo-benchmark-") as folder:
            given = [*SHARED, f"trainer.jobs_per_gpu={jobs}", "trainer=gpu", f"output_dir={folder}"]
            command = [sys.executable, "-m", "histo_lightning", "train", "-m", *given]
            return _run(command, {"CUDA_VISIBLE_DEVICES": "0"})

    alone, shared = interleaved([partial(sweep, 1), partial(sweep, SHARES)], 1)
    why = f"{alone[0]:.0f} s against {shared[0]:.0f} s: {', '.join(SHARED)}"
    return judged("P20", title, ">= 1.5", ratios(alone, shared), why)


def _first_step_row(config: BenchmarkConfig, folder: Path, rounds: int) -> Row:
    """P16: from the start of ``train``, on a warm cache, to its first step, against the imports that it cannot do without."""
    (folder / "first_step.py").write_text(_FIRST_STEP)

    def start() -> float:
        begun = time.time()
        given = ["imports=[first_step]", "+callbacks.first_step._target_=first_step.FirstStep"]
        _ours(config, folder, 224, 1, given=given)
        return float((folder / "first_step.txt").read_text()) - begun

    imports = partial(_run, [sys.executable, "-c", "import torch, pytorch_lightning"])
    steps, imported = interleaved([start, imports], rounds)
    why = f"{statistics.median(steps):.1f} s against {statistics.median(imported):.1f} s ({MODEL} at 224)"
    title = "start to first step / import torch, pytorch_lightning"
    return judged("P16", title, "<= 1.3", ratios(steps, imported), why)


def _about(data: BreakHisDataModule) -> str:
    sizes = ", ".join(f"{part} {len(members)}" for part, members in data.parts.items())
    return f"{MODEL}, batches of {BATCH}, images {sizes}"


def _ours(
    config: BenchmarkConfig, folder: Path, size: int, epochs: int, seed: int = 0, given: Sequence[str] = ()
) -> Path:
    """Run the command ``train`` with its defaults, and what is ``given``, in ``folder`` and return its run folder."""
    output = folder / f"ours-{size}-{epochs}-{seed}-{time.monotonic_ns()}"
    about = [f"{name}={value}" for name, value in _dataset(config).items()]
    given = [
        *given,
        f"image_size={size}",
        f"epochs={epochs}",
        f"seed={seed}",
        f"batch_size={BATCH}",
        f"model={MODEL}",
    ]
    line = [sys.executable, "-m", "histo_lightning.train", *about, *given, f"output_dir={output}"]
    _run(line, folder=folder)
    return next((output / "runs").iterdir())


def _dataset(config: BenchmarkConfig) -> dict[str, object]:
    settings = {f"dataset.{name}": value for name, value in asdict(config.dataset).items()}
    settings["dataset"] = settings.pop("dataset.name")
    if config.dataset.root:  # commands run in a folder of their own
        settings["dataset.root"] = Path(config.dataset.root).expanduser().absolute()
    split = {"split": config.split.name, "split.fold": config.split.fold}
    chosen = {"magnification": config.magnification, **split, **settings}
    return {name: value for name, value in chosen.items() if value not in (None, "")}


def _run(command: list[str], environment: dict[str, str] | None = None, folder: Path | None = None) -> float:
    start, environment = time.perf_counter(), os.environ | (environment or {})
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:4])}: exit status {done.returncode}: {done.stderr[-500:]}")
    return time.perf_counter() - start


def _after(config: BenchmarkConfig, folder: Path, seed: int) -> tuple[float, float]:
    """From the last epoch's end to the exit of the command: epochs of ``IMAGES`` images, and seconds."""
    run = _ours(config, folder, 224, EPOCHS["P17"], seed)
    ended, line = time.time(), rf"^(\S+ \S+) INFO .* epoch {EPOCHS['P17']}/{EPOCHS['P17']} "
    (epoch,) = re.findall(line, (run / "train.log").read_text(), re.MULTILINE)
    seconds = ended - datetime.strptime(epoch, "%Y-%m-%d %H:%M:%S,%f").timestamp()
    with (run / "history.csv").open(newline="") as file:
        rate = statistics.median(float(row["images_per_second"]) for row in csv.DictReader(file))
    return seconds * rate / IMAGES, seconds


def _against(config: BenchmarkConfig, data: BreakHisDataModule, folder: Path, rounds: int) -> list[Row]:
    """P18 at both sizes: ours, a plain Lightning script and, where ``timm`` gives its path, timm's ``train.py``, in turn."""
    assert data.source is not None
    tree = folder / "tree"
    for part, members in data.parts.items():
        link_tree(data.source.root, list(members.records), tree / part)
    rows, script = [], Path(__file__).with_name("plain_lightning.py")
    for size, asked in ASKED.items():
        numbers, epochs = [str(size), str(BATCH), str(EPOCHS["P18"]), MODEL], EPOCHS["P18"]
        plain = [sys.executable, str(script), str(tree), str(folder / "plain"), *numbers]
        commands: dict[str, Callable[[], float]] = {
            "ours": partial(_timed, partial(_ours, config, folder, size, epochs)),
            "plain Lightning": partial(_run, plain),
        }
        if config.timm:
            commands["timm"] = partial(_run, _timm(config.timm, tree, folder, size))
        _ours(config, folder, size, 1)
        found = dict(zip(commands, interleaved([*commands.values()], rounds, warm=False), strict=True))
        ours = found.pop("ours")
        ratios = [own / min(others) for own, *others in zip(ours, *found.values(), strict=True)]
        seconds = {
            name: f"{statistics.median(values):.0f} s" for name, values in (found | {"ours": ours}).items()
        }
        why = f"{', '.join(f'{name} {text}' for name, text in seconds.items())}; {epochs} epochs; {_about(data)}"
        title = f"whole command at {size} / the faster of {' and '.join(found)}"
        rows.append(judged(f"P18 {size}", title, asked, ratios, why))
    return rows


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _timm(script: str, tree: Path, folder: Path, size: int) -> list[str]:
    """timm's own training with the same network, optimizer, precision and kind of augmentation, and a worker a core."""
    settings = {
        "model": MODEL, "num-classes": 2, "input-size": f"3 {size} {size}", "batch-size": BATCH,
        "epochs": EPOCHS["P18"], "opt": "adamw", "lr": 1e-3, "weight-decay": 0.05, "sched": "cosine",
        "warmup-epochs": 2, "cooldown-epochs": 0, "amp-dtype": "bfloat16", "device": "cpu",
        "workers": len(os.sched_getaffinity(0)), "hflip": 0.5, "vflip": 0.5, "color-jitter": 0.1,
        "output": folder / "timm", "log-interval": 1000, "val-split": "val", "train-split": "train",
    }  # fmt: skip
    given = [text for name, value in settings.items() for text in (f"--{name}", *str(value).split())]
    return [sys.executable, script, str(tree), *given, "--amp", "--channels-last", "--no-prefetcher"]

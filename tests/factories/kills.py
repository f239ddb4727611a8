"""Runs that are killed or stopped at chosen moments, and what may differ afterwards: nothing.

``PYTHONPATH=tests python -m factories.kills kills=100 seed=0 seconds=1500 json=outputs/soak/kills.json`` kills runs at
random moments, goes on with them, compares them with one that nobody disturbed, and writes what it found.
"""

import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from pytorch_lightning import Callback

from factories.configs import composed
from factories.runs import PICTURES, SMALL, overrides_here, read, rows, run_folder, train_here
from histo_lightning.data.pixels import cache
from histo_lightning.models import resnet
from histo_lightning.report import run_page
from histo_lightning.runs.manifest import damaged

# Dropout, averaged weights, a warm-up and the best epoch: all that a checkpoint has to carry.
OVERRIDES = (
    *("head=mlp", "callbacks=[default,ema]", "callbacks.ema.decay=0.9", "scored_weights=best"),
    *("epochs=2", "trainer.progress=none"),
    *("callbacks.dashboard.graph=false", "callbacks.dashboard.images=false", "callbacks.dashboard.gradcam=0"),
)
# Runs of a soak: what is kept and scored decides which checkpoints are written, linked, stripped and deleted.
SOAKED = {
    "best": ("scored_weights=best",),
    "last": ("scored_weights=last",),
    "best, weights kept": ("scored_weights=best", "keep=weights"),
    "last, weights kept": ("scored_weights=last", "keep=weights"),
}
ANY_TIME = "any time"
HOOKS = ("on_train_batch_start", "on_train_batch_end", "on_validation_batch_start", "on_train_epoch_end")
HOOKS += ("on_predict_batch_start",)
MEASURED = {"seconds", "begun", "train_seconds", "cost", "images_per_second", "started", "dirpath"}
MEASURED |= {"git_commit", "versions", "seal"}


@contextmanager
def narrow() -> Iterator[None]:
    """Networks with an eighth of the channels, and of each part's pictures the first: every step of a run in a second."""
    widths = {"STEM_CHANNELS": 8, "STAGE_CHANNELS": (8, 16, 32, 64)}
    figures = run_page.part_figures
    one = mock.patch.object(run_page, "part_figures", lambda *given: islice(figures(*given), 1))
    with mock.patch.multiple(resnet, **widths), one:
        yield


class Moments(Callback):
    """Counts what a run does, and at number ``at`` (from 1) calls ``act``: steps, and both sides of every write."""

    def __init__(self, at: int, act: Callable[[], None], names: Sequence[str] = ()) -> None:
        self.at, self.act, self.chosen = at, act, names
        self.names: list[str] = []
        self.process = os.getpid()
        for hook in HOOKS:
            setattr(self, hook, lambda *_, name=hook, **__: self.reach(name))

    def reach(self, name: str) -> None:
        if os.getpid() != self.process or (self.chosen and name not in self.chosen):
            return
        self.names.append(name)
        if len(self.names) == self.at:
            self.act()

    def around(self, owner: Any, name: str) -> Any:
        original = getattr(owner, name)

        def watched(*args: Any, **options: Any) -> Any:
            self.reach(f"before {name}")
            value = original(*args, **options)
            self.reach(f"after {name}")
            return value

        return mock.patch.object(owner, name, watched)

    def watch(self) -> list[Any]:
        """Patches of what writes, and of what decodes an image."""
        writes = [self.around(os, name) for name in ("fsync", "rename", "replace", "unlink", "mkdir")]
        return [*writes, self.around(torch, "save"), self.around(cache, "decode")]


def attempt(
    root: Path,
    cache_dir: Path,
    *overrides: str,
    at: int = 0,
    hook: str = "",
    after: float | None = None,
    pictures: bool = False,
) -> tuple[int, list[str]]:
    """A run in a process of its own that kills itself at moment ``at`` (0: never), or is killed ``after`` seconds; its status,
    and the moments that it reached."""
    root.mkdir(parents=True, exist_ok=True)
    report = root / "moments"
    report.unlink(missing_ok=True)
    overrides = (*OVERRIDES, *overrides)
    composed(*SMALL, *overrides_here(root, cache_dir), *overrides)  # once, not in every process
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with (root / "log").open("ab") as log:
                for stream in (1, 2):
                    os.dup2(log.fileno(), stream)
            moments = Moments(at, lambda: None, (hook,) if hook else ())

            def die() -> None:
                moments.process = 0
                report.write_text("\n".join(moments.names))
                os.kill(os.getpid(), signal.SIGKILL)

            moments.act = die
            for patch in moments.watch():
                patch.start()
            train_here(root, cache_dir, *overrides, callbacks=[moments], pictures=pictures)
            moments.process = 0
            report.write_text("\n".join(moments.names))
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    reached = report.read_text().splitlines() if report.is_file() else []
    report.unlink(missing_ok=True)
    return os.waitstatus_to_exitcode(status), reached


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two values differ, down to the last bit of every tensor; times and folders aside."""
    if isinstance(one, dict) and isinstance(other, dict):
        one, other = ({_name(key): value for key, value in each.items()} for each in (one, other))
        found = [f"{where}/{key}: in one only" for key in sorted(map(str, one.keys() ^ other.keys()))]
        for key in one.keys() & other.keys() - MEASURED:
            found += differences(one[key], other[key], f"{where}/{key}")
        return found
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{where}/{i}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())
        return [] if same else [where]
    if isinstance(one, str) and one.endswith(".ckpt"):
        one, other = _name(one), _name(other)
    return [] if one == other or (one != one and other != other) else [f"{where}: {one} and {other}"]


def _name(key: Any) -> Any:
    return Path(key).name if isinstance(key, str) and key.endswith(".ckpt") else key


def differing(whole: Path, disturbed: Path) -> list[str]:
    """What differs between an undisturbed run folder and another one of the same run, and what does not belong there."""
    found = []
    for name in ("predictions/val.csv", "predictions/test.csv", "split.json"):
        if (whole / name).read_bytes() != (disturbed / name).read_bytes():
            found.append(name)
    found += differences(rows(whole / "history.csv"), rows(disturbed / "history.csv"), "history")
    for name in ("last", "best"):
        if not (whole / "checkpoints" / f"{name}.ckpt").exists():  # nor in the other: see the files below
            continue
        states = []
        for folder in (whole, disturbed):
            state = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
            state["histo_lightning"].pop("config")
            states.append(state)
        found += differences(*states, name)
    found += differences(read(whole / "metrics.json"), read(disturbed / "metrics.json"), "metrics")
    one, other = (read(folder / "status.json") for folder in (whole, disturbed))
    found += differences(one, other, "status")
    found += [f"{name}: {problem}" for name, problem in damaged(disturbed).items()]  # as its manifest says
    files = [_files(folder) for folder in (whole, disturbed)]
    found += [f"file in one only: {name}" for name in sorted(files[0] ^ files[1])]
    root = disturbed.parents[2]
    return found + [f"left: {path.relative_to(root)}" for path in sorted(root.rglob(".*.tmp"))]


def _files(folder: Path) -> set[str]:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if "tfevents" not in name}


class Whole(NamedTuple):
    """A run that nobody disturbs: what it was started with, where it is, its moments, and how long it took."""

    overrides: tuple[str, ...]
    pictures: bool
    folder: Path
    moments: Sequence[str]
    seconds: float


def run_whole(root: Path, cache_dir: Path, *overrides: str, pictures: bool = False) -> Whole:
    """Such a run, with a cold cache."""
    status, moments = attempt(root, root / "cache", *overrides, pictures=pictures)
    assert status == 0, _last_line(root)
    start = time.monotonic()
    attempt(root / "warm", cache_dir, *overrides, pictures=pictures)
    return Whole(overrides, pictures, run_folder(root), moments, time.monotonic() - start)


def trial(root: Path, whole: Whole, cache_dir: Path, generator: random.Random) -> dict[str, Any]:
    """Kill a run up to twelve times, each at a moment drawn from those of a whole run; go on; what differs in the end.

    Every kind of moment is as likely as the others, and early ones are likelier. After a kill they are drawn from what a whole run
    does after that moment: an attempt that goes on has no more to do. Where images are decoded, the cache is a cold one.
    """
    kills, rest = list[str](), list(whole.moments)
    for _ in range(generator.randint(1, 12)):
        counts = Counter(rest) | Counter({ANY_TIME: 1})
        name = generator.choice(sorted(counts))
        if "decode" in name:
            cache_dir = root / "cache"
        at = generator.randint(1, generator.randint(1, counts[name]))
        moment: dict[str, Any] = {"at": at, "hook": name}
        if name == ANY_TIME:
            moment = {"after": generator.uniform(0, whole.seconds)}
        status, _ = attempt(root, cache_dir, *whole.overrides, **moment, pictures=whole.pictures)
        if status == 0:
            break
        if status != -signal.SIGKILL:
            return {"kills": kills, "differences": [f"exit status {status}: {_last_line(root)}"]}
        kills.append(f"{name} {next(iter(moment.values()))}")
        if name in rest:
            rest = rest[[number for number, one in enumerate(rest) if one == name][at - 1] :]
    status, _ = attempt(root, cache_dir, *whole.overrides, pictures=whole.pictures)
    if status:
        return {"kills": kills, "differences": [f"exit status {status}: {_last_line(root)}"]}
    return {"kills": kills, "differences": differing(whole.folder, run_folder(root))}


def _last_line(root: Path) -> str:
    return ((root / "log").read_text(errors="replace").strip().splitlines() or [""])[-1]


def soak(kills: int, seed: int, cache_dir: Path, seconds: float = 1e9) -> dict[str, Any]:
    """:func:`trial` until there were ``kills``, begun within ``seconds``, of all ``SOAKED`` in turn; every ninth draws pictures."""
    generator, outcomes, start = random.Random(seed), list[dict[str, Any]](), time.monotonic()
    wholes: dict[tuple[str, bool], Whole] = {}
    gc.freeze()  # else a collection in a forked process would copy all that was imported
    with tempfile.TemporaryDirectory() as parent, narrow():
        root = Path(parent)
        for number in count():
            if time.monotonic() - start > seconds or sum(len(one["kills"]) for one in outcomes) >= kills:
                break
            kind, pictures = [*SOAKED][number % len(SOAKED)], number % 9 == 0
            if (kind, pictures) not in wholes:
                line = ("dataset.images_per_slide=1", *SOAKED[kind], *[PICTURES] * pictures)
                wholes[kind, pictures] = run_whole(
                    root / f"{kind} {pictures}", cache_dir, *line, pictures=pictures
                )
            folder = root / "trial"
            outcomes.append({"run": kind} | trial(folder, wholes[kind, pictures], cache_dir, generator))
            if outcomes[-1]["differences"]:
                print(number, outcomes[-1], flush=True)
            shutil.rmtree(folder)
    names = Counter(kill.rpartition(" ")[0] for outcome in outcomes for kill in outcome["kills"])
    return {
        "seed": seed,
        "trials": len(outcomes),
        "kills": sum(names.values()),
        "kills_by_moment": dict(sorted(names.items())),
        "differing": sum(bool(outcome["differences"]) for outcome in outcomes),
        "outcomes": outcomes,
    }


def main() -> int:
    given = {
        "kills": "100",
        "seed": "0",
        "json": "outputs/soak/kills.json",
        "cache_dir": "",
        "seconds": "1e9",
    }
    given |= dict(argument.split("=", 1) for argument in sys.argv[1:])
    cache_dir = Path(given["cache_dir"] or os.environ.get("HISTO_TEST_CACHE") or tempfile.gettempdir())
    found = soak(int(given["kills"]), int(given["seed"]), cache_dir, seconds=float(given["seconds"]))
    path = Path(given["json"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{found['kills']} kills in {found['trials']} runs, {found['differing']} differ: {path}")
    return 1 if found["differing"] else 0


if __name__ == "__main__":
    sys.exit(main())

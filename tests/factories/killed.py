"""Commands of several processes, two of one run or the jobs of a sweep, of which one is killed at a random time.

``PYTHONPATH=tests python -m factories.killed trials=20 seed=0 seconds=300 json=outputs/soak/processes.json`` starts each command
again and compares what it leaves with what one leaves that nobody disturbed.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from factories.forkserver import Command
from factories.kills import differing
from factories.runs import PICTURES, SMALL, finish, start

NARROW = "narrow_networks"  # a user's module in the folder of the command
ALL = (*SMALL, PICTURES, "dataset.images_per_slide=1", f"imports=[{NARROW}]", "trainer.progress=none")
SWEEP = ("-m", *ALL, "seed=0,1", "sweep_name=s")
LINES = {
    "two processes": (*ALL, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "epochs=3"),
    "joblib": (*SWEEP, "hydra/launcher=joblib"),
    "submitit_local": (*SWEEP, "hydra/launcher=submitit_local"),
    "ray": (*SWEEP, "hydra/launcher=ray"),
}


def begin(root: Path, cache_dir: Path, kind: str) -> Command:
    root.mkdir(exist_ok=True)
    code = "from histo_lightning.models import resnet\n"
    code += "resnet.STEM_CHANNELS, resnet.STAGE_CHANNELS = 8, (8, 16, 32, 64)\n"
    (root / f"{NARROW}.py").write_text(code)
    return start(root, cache_dir, *LINES[kind])


def runs(root: Path) -> dict[str, Path]:
    """The run folders below a folder, by name."""
    return {path.parent.name: path.parent for path in root.glob("outputs/*/**/status.json")}


def working(root: Path, process: Command) -> dict[int, str]:
    """The processes of a command by id: ``first``, ``other`` (of one run), ``job``."""
    found, locks = {process.pid: "first"}, set[int]()
    for run in runs(root).values():
        if (run / ".lock").exists():
            locks.add((run / ".lock").stat().st_ino)
    for entry in Path("/proc/locks").read_text().splitlines():
        words = entry.split()
        if words[1] != "->" and int(words[5].rpartition(":")[2]) in locks:
            found.setdefault(int(words[4]), "job")
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent, line = (
                path.read_text().rpartition(")")[2].split()[1],
                path.with_name("cmdline").read_bytes(),
            )
        except OSError:
            continue
        if int(parent) == process.pid and b"histo_lightning" in line:
            found.setdefault(int(path.parent.name), "other")
    return found


def within(root: Path) -> list[int]:
    """The processes that work in a folder."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            found += [int(link.parent.name)] * link.readlink().is_relative_to(root)
    return found


def trial(
    root: Path, cache_dir: Path, kind: str, whole: Path, generator: random.Random, seconds: float
) -> Any:
    """Kill one of a command's processes within ``seconds``, start it again until it ends well; what differs."""
    process, after = begin(root, cache_dir, kind), generator.uniform(0, 0.7 * seconds)
    until, killed = time.monotonic() + after, ""
    wanted = generator.choice(("first", "others", "others"))
    while process.poll() is None and not killed:
        time.sleep(max(until - time.monotonic(), 0.02))
        ids = working(root, process)
        if victims := sorted(pid for pid, role in ids.items() if (role == "first") == (wanted == "first")):
            with suppress(ProcessLookupError):
                os.kill(victim := generator.choice(victims), signal.SIGKILL)
                killed = ids[victim]
    statuses = [finish(process)]
    while statuses[-1] and len(statuses) < 4:
        statuses.append(finish(begin(root, cache_dir, kind)))
    found = []
    if statuses[-1]:
        found.append(f"exit status {statuses}")
    ours, theirs = runs(whole), runs(root)
    found += [f"run in one only: {name}" for name in ours.keys() ^ theirs.keys()]
    for name in ours.keys() & theirs.keys():
        if not found:
            found += [f"{name}: {line}" for line in differing(ours[name], theirs[name])]
    until = time.monotonic() + 10
    while (left := within(root)) and time.monotonic() < until:
        time.sleep(0.1)
    if left and kind == "two processes":  # engines keep idle workers for a while
        found.append(f"{len(left)} processes go on")
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return {
        "kind": kind,
        "killed": killed,
        "after": round(after, 2),
        "statuses": statuses,
        "differences": found,
    }


def soak(
    kinds: list[str], trials: int, seed: int, cache_dir: Path, seconds: float = 1e9
) -> list[dict[str, Any]]:
    """``trials`` at most of each kind in turn, begun within ``seconds``; the outcomes."""
    generator, outcomes, begun = random.Random(seed), list[dict[str, Any]](), time.monotonic()
    wholes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as parent:
        root = Path(parent)
        for number in range(trials * len(kinds)):
            if time.monotonic() - begun > seconds:
                break
            kind = kinds[number % len(kinds)]
            if kind not in wholes:
                at = time.monotonic()
                assert finish(begin(root / kind, cache_dir, kind)) == 0, kind
                wholes[kind] = time.monotonic() - at
            outcomes.append(trial(root / "trial", cache_dir, kind, root / kind, generator, wholes[kind]))
            if outcomes[-1]["differences"]:
                print(number, outcomes[-1], flush=True)
            shutil.rmtree(root / "trial")
    return outcomes


def main() -> int:
    given = {
        "kinds": ",".join(LINES),
        "trials": "20",
        "seed": "0",
        "json": "outputs/soak/processes.json",
        "cache_dir": "",
        "seconds": "1e9",
    }
    given |= dict(argument.split("=", 1) for argument in sys.argv[1:])
    cache_dir = Path(given["cache_dir"] or os.environ.get("HISTO_TEST_CACHE") or tempfile.gettempdir())
    kinds, numbers = given["kinds"].split(","), (int(given["trials"]), int(given["seed"]))
    found = soak(kinds, *numbers, cache_dir, float(given["seconds"]))
    path = Path(given["json"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    differing = sum(bool(one["differences"]) for one in found)
    print(f"{dict(Counter(one['kind'] for one in found))} killed, {differing} differ: {path}")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Many short runs in one sweep: what the process holds after each of them.

``PYTHONPATH=tests python -m factories.soak trials=50 json=outputs/soak/sweep.json`` runs the sweep as a user does, looks at the
process from outside, and writes what it held.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from factories.runs import PICTURES, SMALL, environment, read

WARM = 5  # runs after which every library has loaded what it loads
MORE_MIB = 32  # that the rest of a sweep may add: what an allocator keeps differs by 20


def held(pid: int) -> dict[str, float]:
    """Resident memory in MiB, open files and threads of a process."""
    process = Path("/proc") / str(pid)
    pages = int((process / "statm").read_text().split()[1])
    folders = {"files": process / "fd", "threads": process / "task"}
    counts = {name: len(list(path.iterdir())) for name, path in folders.items()}
    return {"memory_mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20, **counts}


def finished(sweep: Path) -> int:
    """How many runs of a sweep have finished."""
    return sum('"state": "finished"' in path.read_text() for path in sweep.glob("*/status.json"))


def soak(folder: Path, cache_dir: Path, trials: int) -> dict[str, Any]:
    """One sweep of ``trials`` runs; what its process held after each, its exit status, and ``growth`` after the first few."""
    line = (
        *SMALL,
        PICTURES,
        f"seed=range({trials})",
        "sweep_name=s",
        "keep=weights",
        "trainer.progress=none",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "histo_lightning.train", "-m", *line],
        cwd=folder,
        env=environment(cache_dir),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    sweep, samples = folder / "outputs" / "sweeps" / "s", list[dict[str, float]]()
    while process.poll() is None and len(samples) < trials:
        time.sleep(0.05)
        if len(samples) < finished(sweep):
            samples.append(held(process.pid))
    _, err = process.communicate(timeout=600)
    assert len(samples) >= 2 * WARM, err
    warm, last = samples[WARM - 1 : 2 * WARM - 1], samples[-WARM:]
    growth = {
        name: round(max(one[name] for one in last) - max(one[name] for one in warm), 1) for name in samples[0]
    }
    states = [read(path)["state"] for path in sweep.glob("*/status.json")]
    counts = {"trials": trials, "finished": states.count("finished"), "samples": len(samples)}
    return {**counts, "status": process.returncode, "stderr": err, "growth": growth, "held": samples}


def has_grown(found: dict[str, Any]) -> bool:
    """Whether files or threads were added, or more memory than the allocator's noise."""
    growth = found["growth"]
    return bool(growth["files"] > 0 or growth["threads"] > 0 or growth["memory_mib"] > MORE_MIB)


def main() -> int:
    given = {"trials": "50", "json": "outputs/soak/sweep.json", "cache_dir": ""}
    given |= dict(argument.split("=", 1) for argument in sys.argv[1:])
    cache_dir = Path(given["cache_dir"] or os.environ.get("HISTO_TEST_CACHE") or tempfile.gettempdir())
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), cache_dir, int(given["trials"]))
    path = Path(given["json"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{found['finished']} of {found['trials']} runs finished; growth {found['growth']}: {path}")
    return int(found["status"] or has_grown(found) or found["finished"] < found["trials"])


if __name__ == "__main__":
    sys.exit(main())

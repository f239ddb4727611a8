"""Sweeps on a real Slurm of one node: as without Slurm, and through ``scancel``, a time-out and a node that goes down."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from factories.runs import SMALL, read
from factories.slurm import NODE, node_state, one_node, reason_against
from histo_lightning.runs import RunFolder

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(reason_against()), reason=reason_against() or "Slurm can be set up"),
]
LAUNCHER = (
    *("hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=null", "hydra.launcher.mem_gb=3"),
    "hydra.launcher.cpus_per_task=1",
)
# Lines that submitit and Lightning print on the console when something is not as they want it.
WARNING = re.compile(r"warn|bypassing|traceback|slurm accounting", re.IGNORECASE)


@pytest.fixture(scope="module")
def cluster(cache_dir: Path) -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, one_node(Path(folder)) as environment:
        yield environment | {"XDG_CACHE_HOME": str(cache_dir), "OMP_NUM_THREADS": "1"}


def started(
    root: Path, cluster: dict[str, str], *overrides: str, multirun: bool = True
) -> subprocess.Popen[str]:
    """``train`` with these overrides, in ``root``."""
    line = [sys.executable, "-m", "histo_lightning.train", *(["-m"] if multirun else []), *SMALL, *overrides]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(line, cwd=root, env=cluster, **pipes)  # type: ignore[call-overload]


def finished(root: Path, cluster: dict[str, str], *overrides: str, status: int = 0) -> str:
    """What such a command prints; it must end with ``status``."""
    process = started(root, cluster, *overrides)
    printed, _ = process.communicate(timeout=500)
    assert process.returncode == status, printed
    return str(printed)


def sweep_runs(root: Path) -> dict[str, Path]:
    """Run folders of the only sweep by the seed in their name."""
    folders = [path.parent for path in root.glob("outputs/sweeps/*/*/status.json")]
    return {re.search(r"_s(\d+)_", folder.name)[1]: folder for folder in folders}  # type: ignore[index]


def predictions(root: Path) -> dict[str, bytes]:
    return {seed: (run / "predictions" / "test.csv").read_bytes() for seed, run in sweep_runs(root).items()}


def wait_for(what: Callable[[], object], process: subprocess.Popen[str], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def epochs_done(root: Path, seed: str) -> int:
    run = sweep_runs(root).get(seed)
    return (
        len((run / "history.csv").read_text().splitlines()) - 1
        if run and (run / "history.csv").is_file()
        else 0
    )


def job_of(root: Path, seed: str) -> str:
    """Slurm's name (``7_1``) of the job that works in the run of a seed."""
    logs = root.glob("outputs/sweeps/*/.submitit/*/*_submitted.pkl")
    jobs = sorted({path.parent.name for path in logs})
    return jobs[sorted(sweep_runs(root)).index(seed)]


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory, cluster: dict[str, str]) -> dict[str, bytes]:
    """The predictions of two seeds without Slurm, one job after the other."""
    root = tmp_path_factory.mktemp("basic")
    finished(root, cluster, "seed=0,1", "epochs=2")
    return predictions(root)


def test_a_sweep_is_as_without_slurm_and_warns_of_nothing(
    tmp_path: Path, cluster: dict[str, str], basic: dict[str, bytes]
) -> None:
    printed = finished(tmp_path, cluster, "seed=0,1", "epochs=2", *LAUNCHER)
    assert not [line for line in printed.splitlines() if WARNING.search(line)]
    assert "2 runs: 2 finished" in printed
    assert predictions(tmp_path) == basic


@pytest.mark.long
def test_a_cancelled_job_costs_no_other_and_the_same_command_finishes_it(
    tmp_path: Path, cluster: dict[str, str]
) -> None:
    given = ("seed=0,1", "epochs=30", *LAUNCHER, "hydra.launcher.array_parallelism=2")
    process = started(tmp_path, cluster, *given)
    wait_for(lambda: epochs_done(tmp_path, "1") > 2, process)
    subprocess.run(["scancel", job_of(tmp_path, "1")], env=cluster, check=True)
    printed, _ = process.communicate(timeout=500)
    assert process.returncode == 3, printed
    states = {seed: RunFolder(run).state for seed, run in sweep_runs(tmp_path).items()}
    assert states == {"0": "finished", "1": "interrupted"}
    assert "Traceback" not in printed
    before = (sweep_runs(tmp_path)["0"] / "checkpoints" / "best.ckpt").stat().st_mtime_ns
    assert "2 finished" in finished(tmp_path, cluster, *given)
    assert (sweep_runs(tmp_path)["0"] / "checkpoints" / "best.ckpt").stat().st_mtime_ns == before


@pytest.mark.long
def test_a_job_whose_time_is_up_is_queued_again_and_goes_on(tmp_path: Path, cluster: dict[str, str]) -> None:
    times = (
        "hydra.launcher.timeout_min=1",
        "hydra.launcher.signal_delay_s=15",
        "hydra.launcher.max_num_timeout=30",
    )
    printed = finished(
        tmp_path, cluster, "seed=0", "epochs=200", "~callbacks.early_stopping", *LAUNCHER, *times
    )
    (run,) = sweep_runs(tmp_path).values()
    assert "1 finished" in printed
    assert len((run / "history.csv").read_text().splitlines()) == 201
    logs = "".join(path.read_text() for path in tmp_path.rglob("*_log.out"))
    assert "this job is timed-out" in logs  # submitit's own words
    assert read(run / "status.json")["test_read"]["times"] == 1


@pytest.mark.long
def test_a_node_that_goes_down_and_comes_back_costs_no_result(
    tmp_path: Path, cluster: dict[str, str], basic: dict[str, bytes]
) -> None:
    process = started(tmp_path, cluster, "seed=0,1", "epochs=2", *LAUNCHER)
    wait_for(lambda: epochs_done(tmp_path, "0") > 0, process)
    update = ["scontrol", "update", f"nodename={NODE}"]
    subprocess.run([*update, "state=down", "reason=test"], env=cluster, check=True)
    wait_for(lambda: "down" in node_state(cluster), process)
    subprocess.run([*update, "state=resume"], env=cluster, check=True)
    printed, _ = process.communicate(timeout=500)
    assert process.returncode == 0, printed
    assert predictions(tmp_path) == basic


@pytest.mark.long
def test_two_processes_under_srun_are_those_of_two_local_ones(
    tmp_path: Path, cluster: dict[str, str]
) -> None:
    given = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.threads=1")
    line = [sys.executable, "-m", "histo_lightning.train", *SMALL, *given]
    environment = {name: value for name, value in cluster.items() if not name.startswith("SLURM_JOB")}
    for folder, command in {"srun": ["srun", "--ntasks-per-node=2", "-n2", *line], "local": line}.items():
        done = subprocess.run(
            [*command, f"output_dir={tmp_path / folder}"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        if folder == "srun":
            assert not [text for text in (done.stdout + done.stderr).splitlines() if WARNING.search(text)]
    tables = [next((tmp_path / folder).rglob("predictions/test.csv")) for folder in ("srun", "local")]
    assert tables[0].read_bytes() == tables[1].read_bytes()


def test_the_cluster_leaves_no_daemon_behind(tmp_path_factory: pytest.TempPathFactory) -> None:
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, one_node(Path(folder)):
        pass
    left = [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if folder.encode() in path.read_bytes() and path.parts[2] != str(os.getpid())
    ]
    assert not left

"""Sweeps by the real command: failures, kills, a second start, two at once, other launchers."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from factories.forkserver import server
from factories.runs import SMALL, environment, finish, main_here, read, rows, start
from histo_lightning.config import exits
from histo_lightning.runs import RunFolder

SWEEP = (
    "-m",
    *SMALL,
    "split.fold=0,9",
    "seed=0,1",
    "optimizer=sgd",
    "optimizer.lr=1e-3,100",
    "scheduler=constant",
    "hydra/launcher=basic",
    "trainer.precision=32-true",
    "sweep_name=s",
)


def sweep_folder(root: Path) -> Path:
    return root / "outputs" / "sweeps" / "s"


def states(root: Path) -> dict[str, str]:
    return {
        p.parent.name: RunFolder(p.parent).state for p in sorted(sweep_folder(root).glob("*/status.json"))
    }


def results(root: Path) -> list[dict[str, str]]:
    return rows(sweep_folder(root) / "results.csv")


def predictions(root: Path) -> dict[str, bytes]:
    found = sweep_folder(root).glob("*/predictions/test.csv")
    return {path.parts[-3]: path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path):
    """A sweep in which a fold does not exist and a learning rate makes the loss explode."""
    root = tmp_path_factory.mktemp("swept")
    return root, server().run(["-m", "histo_lightning.train", *SWEEP], root, environment(cache_dir))


def test_a_failed_job_stops_no_other(swept) -> None:
    root, done = swept
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1] == "6 of 8 jobs failed; the same command runs them again"
    assert "Traceback" not in done.stderr
    assert sorted(states(root).values()) == ["failed"] * 6 + ["finished"] * 2
    reasons = [read(p)["error"] for p in sweep_folder(root).glob("*/status.json")]
    assert sum("split.fold=9: out of range" in str(reason) for reason in reasons) == 4
    assert sum("diverged" in str(reason) for reason in reasons) == 2


def test_the_results_name_every_job(swept) -> None:
    root, _ = swept
    found = results(root)
    assert sorted(row["state"] for row in found) == ["failed"] * 6 + ["finished"] * 2
    for row in found:
        if row["state"] == "finished":
            metrics = read(sweep_folder(root) / row["run"] / "metrics.json")
            assert float(row["test_image_auroc"]) == metrics["test"]["image"]["auroc"]["value"]
            assert int(row["parameters"]) == metrics["cost"]["parameters"]
            assert (sweep_folder(root) / row["run"] / "report.html").is_file()
    assert (sweep_folder(root) / "report.html").is_file()
    assert (sweep_folder(root) / "results.md").is_file()


def test_the_same_sweep_again_leaves_what_is_finished(swept, command) -> None:
    root, _ = swept
    files = list(sweep_folder(root).rglob("*.ckpt"))
    finished = {p.name for p in sweep_folder(root).iterdir() if (p / "report.html").is_file()}
    before = {p: p.stat().st_mtime_ns for p in files if p.parts[-3] in finished}
    assert before
    done = command("train", *SWEEP, cwd=root)
    assert done.returncode == 3
    assert "2 of them finished before" in done.stdout
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_a_sweep_that_was_killed_and_moved_ends_in_the_same_results(
    swept, cache_dir: Path, tmp_path: Path
) -> None:
    whole, _ = swept
    line = [*SWEEP, "optimizer.lr=1e-3", "split.fold=0"]
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    first = start(before, cache_dir, *line)
    while first.poll() is None:  # in the middle of the second job
        if any(len(p.read_text().splitlines()) > 1 for p in sweep_folder(before).glob("*_s1_*/history.csv")):
            first.kill()
        time.sleep(0.01)
    assert first.returncode == -signal.SIGKILL
    assert "finished" in states(before).values()
    before.rename(after)
    again = start(after, cache_dir, *line)
    assert finish(again) == 0
    assert predictions(after) == predictions(whole)
    assert {row["state"] for row in results(after)} == {"finished"}
    assert not before.exists()
    assert not list(after.rglob(".*.tmp"))
    kept = [path.name for path in sweep_folder(after).glob("*/checkpoints/*")]
    assert kept == ["best.ckpt"] * 2


def test_a_sweep_after_one_that_was_interrupted_in_the_same_process_runs(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exits, "_arrived", [signal.SIGTERM])  # as a notebook's process keeps it
    given = [f"output_dir={tmp_path / 'outputs'}", f"cache_dir={cache_dir / 'histo_lightning'}"]
    line = (
        "-m",
        *SMALL,
        "epochs=1",
        "seed=0",
        "hydra/launcher=basic",
        "sweep_name=s",
        "trainer.progress=none",
    )
    assert main_here("train", *line, *given) == 0
    assert list(states(tmp_path).values()) == ["finished"]


def test_slurm_without_slurm_is_one_line(
    tmp_path: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no srun in it
    given = [f"output_dir={tmp_path}", f"cache_dir={cache_dir / 'histo_lightning'}", "trainer.progress=none"]
    assert main_here("train", "-m", *SMALL, "seed=0,1", "hydra/launcher=submitit_slurm", *given) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "login node" in err


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_other_launchers_give_the_same_to_the_last_bit(
    launcher: str, command, tmp_path: Path, cache_dir: Path
) -> None:
    line = ("-m", *SMALL, "seed=0,1,2", "sweep_name=s", "trainer.threads=1")
    one = tmp_path / "basic"
    one.mkdir()
    assert command("train", *line, cwd=one).returncode == 0
    done = command("train", *line, f"hydra/launcher={launcher}")
    assert done.returncode == 0, done.stderr
    assert "3 finished" in done.stdout
    assert predictions(tmp_path) == predictions(one)
    assert len(predictions(one)) == 3


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_a_signal_to_a_sweep_stops_each_of_its_jobs_at_its_step(
    launcher: str, tmp_path: Path, cache_dir: Path
) -> None:
    line = ("-m", *SMALL, "seed=0,1,2,3", "sweep_name=s", "epochs=300", f"hydra/launcher={launcher}")
    process = start(tmp_path, cache_dir, *line)
    while process.poll() is None:
        histories = sweep_folder(tmp_path).glob("*/history.csv")
        if sum(len(path.read_text().splitlines()) > 2 for path in histories) == 2:  # both train
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, (out, err)
    assert "Traceback" not in err
    found = states(tmp_path)
    assert list(found.values()) == ["interrupted"] * 2, err  # no other has begun
    for name in found:
        path = sweep_folder(tmp_path) / name / "checkpoints" / "last.ckpt"
        stopped = torch.load(path, weights_only=True)["callbacks"]["Stopping"]
        assert stopped["shares"], name  # written where a signal stopped it, not at an epoch's end


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_a_killed_job_loses_no_results(launcher: str, tmp_path: Path, cache_dir: Path) -> None:
    line = ("-m", *SMALL, "seed=0,1,2", "sweep_name=s", "epochs=6", f"hydra/launcher={launcher}")
    process = start(tmp_path, cache_dir, *line)
    killed = False
    while process.poll() is None and not killed:
        for history in sweep_folder(tmp_path).glob("*_s0_*/history.csv"):
            lock = (history.parent / ".lock").stat().st_ino
            for entry in Path("/proc/locks").read_text().splitlines():
                if entry.split()[5].endswith(f":{lock}"):
                    os.kill(int(entry.split()[4]), signal.SIGKILL)
                    killed = True
        time.sleep(0.05)
    out, err = process.communicate(timeout=300)
    assert killed
    assert process.returncode == 3, (out, err)
    assert "Traceback" not in err
    found = sorted(row["state"] for row in results(tmp_path))
    if launcher == "joblib":  # a killed worker takes the others with it; the same command goes on
        assert "the launcher stopped: TerminatedWorkerError" in err
        assert "interrupted" in found
    else:
        assert found == ["finished", "finished", "interrupted"]
        assert err.splitlines()[-1].startswith("1 of 3 jobs failed")


@pytest.mark.long
def test_a_ray_node_that_dies_costs_no_other_job(command, tmp_path: Path, cache_dir: Path) -> None:
    """On a cluster of two nodes with a core each, on this machine."""
    line = ("-m", *SMALL, "seed=0,1", "sweep_name=s", "epochs=30", "trainer.threads=1")
    one = tmp_path / "basic"
    one.mkdir()
    assert command("train", *line, cwd=one).returncode == 0
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        node = cluster.add_node(num_cpus=1)
        ray = ("hydra/launcher=ray", f"hydra.launcher.init.address={cluster.address}")
        process = start(tmp_path, cache_dir, *line, *ray)
        while process.poll() is None:
            histories = sweep_folder(tmp_path).glob("*/history.csv")
            if sum(len(path.read_text().splitlines()) > 2 for path in histories) == 2:  # both jobs train
                cluster.remove_node(node, allow_graceful=False)
                break
            time.sleep(0.05)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 3, (out, err)
        assert sorted(row["state"] for row in results(tmp_path)) == ["finished", "interrupted"]
        assert "Traceback" not in err
        assert err.splitlines()[-1].startswith("1 of 2 jobs failed")
        again = command("train", *line, *ray)  # on the node that is left
        assert again.returncode == 0, again.stderr
        assert predictions(tmp_path) == predictions(one)
    finally:
        cluster.shutdown()


@pytest.mark.long
def test_two_sweeps_in_one_folder_do_each_job_once(tmp_path: Path, cache_dir: Path) -> None:
    line = ("-m", *SMALL, "seed=0,1,2,3", "sweep_name=s")
    both = [start(tmp_path, cache_dir, *line) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, (out, err)
    runs = [p for p in sweep_folder(tmp_path).iterdir() if (p / "metrics.json").is_file()]
    assert len(runs) == 4
    assert all(read(run / "status.json")["test_read"] == 1 for run in runs)
    assert len(results(tmp_path)) == 4

"""Run folders: whole files or none, a state that is true after a kill, and which folder a run goes into."""

import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from factories.processes import hold_run
from histo_lightning.errors import UserError
from histo_lightning.runs import RunFolder, choose_folder, read_json, versions, write_atomic, write_json

IDENTITY = {"config_hash": "a", "split_hash": "b"}


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "a.txt", "text")
    write_json(tmp_path / "b.json", {"x": [1, None]})
    assert (tmp_path / "new" / "a.txt").read_text() == "text"
    assert read_json(tmp_path / "b.json") == {"x": [1, None]}
    with pytest.raises(ValueError, match=r"not JSON compliant"):
        write_json(tmp_path / "b.json", {"x": float("nan")})
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.txt", tmp_path / "new"):
        with pytest.raises(UserError, match=r"cannot be written .*free space or choose output_dir"):
            write_atomic(path, "text")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.txt", "b.json", "file", "new"]
    assert read_json(tmp_path / "b.json") == {"x": [1, None]}


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as pool:
        read_by = pool.submit((tmp_path / "pipe").read_text)
        write_json(tmp_path / "pipe", {"a": 1})
        assert json.loads(read_by.result(timeout=30)) == {"a": 1}
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(UserError, match="/dev/full: cannot be written"):
        write_json(Path("/dev/full"), {"a": 1})
    assert Path("/dev/full").is_char_device()


def test_an_absent_file_is_empty_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none.json") == {}
    for content in ('{"state": "fin', "[1]", "", "\xff"):
        (tmp_path / "status.json").write_text(content)
        with pytest.raises(
            UserError, match=r"status\.json: is damaged .*restore it, or move its folder away"
        ):
            RunFolder(tmp_path).state  # noqa: B018


def test_a_run_records_how_it_ended(tmp_path: Path) -> None:
    for name, error, state, reason in (
        ("a", None, "finished", None),
        ("b", UserError("no data"), "failed", "no data"),
        ("c", ValueError("x"), "failed", "defect: ValueError: x"),
        ("d", KeyboardInterrupt(), "interrupted", "interrupted"),
    ):
        run = RunFolder(tmp_path / name)
        with suppress(UserError, ValueError, KeyboardInterrupt), run.locked(), run.recorded(**IDENTITY):
            assert (run.state, run.alive) == ("running", True)
            if error is not None:
                raise error
        assert (run.state, run.status["error"], run.alive) == (state, reason, False)
        assert run.status["versions"] == versions()
        assert IDENTITY.items() <= run.status.items()
    assert RunFolder(tmp_path / "never").state == "pending"
    run = RunFolder(tmp_path / "e")
    run.fail("no such folder")
    assert (run.state, run.status["error"]) == ("failed", "no such folder")


def test_seconds_and_reads_of_the_test_part_add_up_over_starts(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_json(tmp_path / "status.json", {"seconds": 100.0, "test_read": 1, "state": "interrupted"})
    with run.recorded():
        assert run.status["test_read"] == 1
    assert 100.0 <= run.status["seconds"] < 110.0


def test_a_killed_run_is_interrupted_whatever_its_file_says(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    worker = context.Process(target=hold_run, args=(tmp_path, ready))
    worker.start()
    assert ready.wait(60)
    run = RunFolder(tmp_path)
    assert (run.state, run.alive) == ("running", True)
    with pytest.raises(UserError, match=r"another process is working in it; wait for it"), run.locked():
        pass
    worker.kill()
    worker.join()
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"
    assert (run.state, run.alive) == ("interrupted", False)


def test_the_same_experiment_takes_its_folder_again(tmp_path: Path) -> None:
    assert choose_folder(tmp_path, "run", "auto", IDENTITY).path.name == "run"
    with RunFolder(tmp_path / "run").recorded(**IDENTITY):
        pass
    assert choose_folder(tmp_path, "run", "auto", IDENTITY).path.name == "run"
    assert choose_folder(tmp_path, "run", "never", IDENTITY).path.name == "run-2"
    assert choose_folder(tmp_path, "run", "auto", IDENTITY | {"split_hash": "c"}).path.name == "run-2"
    RunFolder(tmp_path / "run-2").fail("before its data were read")
    assert choose_folder(tmp_path, "run", "never", IDENTITY).path.name == "run-2"


def test_no_permission_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot be made .*choose another output_dir"),
        RunFolder(tmp_path / "file" / "run").locked(),
    ):
        pass


def test_run_folders_need_no_torch() -> None:
    code = (
        "import sys, histo_lightning.runs; print(sorted({'torch', 'pytorch_lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout == "[]\n", done.stderr

"""Drawing what the runs of a sweep lack, in several processes."""

import os
import signal
from pathlib import Path

import pytest

from histo_lightning.training import run

HERE = os.getpid()


def draw(folder: Path) -> str:
    if os.getpid() != HERE and folder.name == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    with (folder / "report.html").open("a") as file:
        file.write(f"{os.getpid()}\n")
    return f"{folder.name}: no pixels" if folder.name == "c" else ""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.setattr(run, "_draw", draw)
    monkeypatch.setattr(run, "cores", lambda: 2)
    found = {name: tmp_path / name for name in "abcd"}
    for folder in found.values():
        folder.mkdir()
    return found


def test_each_is_drawn_once_elsewhere_and_problems_come_back(folders: dict[str, Path]) -> None:
    chosen = [folders[name] for name in "acd"]
    assert run.draw_missing(chosen, shown=False) == ["c: no pixels"]
    for folder in chosen:
        (number,) = (folder / "report.html").read_text().split()
        assert int(number) != HERE
    assert run.draw_missing(chosen, shown=False) == []  # nothing is missing


def test_what_a_killed_process_leaves_is_drawn_here(folders: dict[str, Path]) -> None:
    run.draw_missing(list(folders.values()), shown=False)
    assert all((folder / "report.html").is_file() for folder in folders.values())
    assert (folders["b"] / "report.html").read_text() == f"{HERE}\n"

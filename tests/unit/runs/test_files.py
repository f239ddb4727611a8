"""Work beside the body of a ``with``: where it is done, and that no error of it is lost."""

import os
import sys
from pathlib import Path

import pytest

from histo_lightning.errors import UserError
from histo_lightning.runs.files import beside


@pytest.mark.parametrize("fork", [False, True])
def test_the_work_is_done_once_and_where_it_should(tmp_path: Path, fork: bool) -> None:
    def work() -> None:
        with (tmp_path / "done").open("a") as file:
            file.write(f"{os.getpid()}\n")

    with beside(work, fork):
        body = (tmp_path / "done").exists() and not fork
    assert not body  # in one process the work follows
    (number,) = map(int, (tmp_path / "done").read_text().split())
    assert (number == os.getpid()) is not (fork and sys.platform == "linux")


def test_work_that_fails_there_is_done_again_here(tmp_path: Path) -> None:
    def work() -> None:
        with (tmp_path / "tried").open("a") as file:
            file.write(f"{os.getpid()}\n")
        raise UserError("the disk is full")

    with pytest.raises(UserError, match="the disk is full"), beside(work, fork=True):
        pass
    numbers = [int(line) for line in (tmp_path / "tried").read_text().split()]
    assert numbers[-1] == os.getpid()
    assert len(numbers) == 1 + (sys.platform == "linux")


@pytest.mark.skipif(sys.platform != "linux", reason="a process is forked on Linux only")
def test_a_killed_process_s_work_is_done_here(tmp_path: Path) -> None:
    def work() -> None:
        if os.getpid() != here:
            os.kill(os.getpid(), 9)
        (tmp_path / "done").touch()

    here = os.getpid()
    with beside(work, fork=True):
        pass
    assert (tmp_path / "done").exists()

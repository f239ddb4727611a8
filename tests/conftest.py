"""Shared set-up: a cache of the synthetic set for the whole session, real data where it exists, the real commands."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest

from factories.forkserver import ADDRESS, server
from histo_lightning.data.breakhis.names import census_names
from histo_lightning.data.breakhis.records import Record, record_of

# Another worker or a slow machine fails no test: what a test means is not how fast it runs.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# Commands that import torch, which takes seconds; the others start with an interpreter of their own.
FORKED = ("train", "tune", "evaluate", "predict", "export", "benchmark")
ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Workers share one server of commands: what it imports is imported once, and compiled before they would."""
    if config.getoption("numprocesses", None):  # this process only hands out tests
        os.environ[ADDRESS] = server().address
        server().run(["-c", ""], ROOT, os.environ)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that wait for processes come first: of several workers the last one would be waited for."""
    items.sort(key=lambda item: "tuning" not in item.path.parts)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of its own: tests neither use nor fill the user's. ``HISTO_TEST_CACHE`` keeps one between sessions."""
    if kept := os.environ.get("HISTO_TEST_CACHE"):
        return Path(kept)
    several = "PYTEST_XDIST_WORKER" in os.environ  # one for all workers: each would draw the same images
    cache = tmp_path_factory.getbasetemp().parent / "cache" if several else tmp_path_factory.mktemp("cache")
    cache.mkdir(exist_ok=True)
    with suppress(FileExistsError):  # as XDG_CACHE_HOME and as the key cache_dir it is the same
        (cache / "histo_lightning").symlink_to(cache)
    return cache


@pytest.fixture(scope="session")
def census_records() -> list[Record]:
    """A record for each of the 7,909 images of the full set."""
    return [record for name in sorted(census_names()) if (record := record_of(name)) is not None]


@pytest.fixture(scope="session")
def real_root() -> Path:
    """The sample of real images."""
    root = Path(os.environ.get("HISTO_REAL_DATA") or ROOT.parent / "shared" / "data" / "breakhis_sample")
    if not root.is_dir():
        pytest.skip(f"no real images: set HISTO_REAL_DATA or put them at {root}")
    return root


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two depths x two magnifications x five folds x two seeds; read only."""
    from factories.sweeps import (
        write_sweep,  # with torch, which the process that only hands out tests does without
    )

    return write_sweep(
        tmp_path_factory.mktemp("a sweep, with a comma") / "depths",
        magnifications=("40x", "100x"),
        seeds=(0, 1),
    )


@pytest.fixture
def command(tmp_path: Path, cache_dir: Path):
    """Run ``python -m histo_lightning.<name>`` in an empty folder, as a user does."""

    def run(
        name: str,
        *overrides: str,
        cwd: Path | None = None,
        timeout: float = 300,
        **env: str,
    ):
        line = ["-m", f"histo_lightning.{name}", *overrides]
        variables = os.environ | {"XDG_CACHE_HOME": str(cache_dir)} | env
        if name not in FORKED:
            given = [sys.executable, *line]
            return subprocess.run(
                given, cwd=cwd or tmp_path, env=variables, capture_output=True, text=True, timeout=timeout
            )
        return server().run(line, cwd or tmp_path, variables, timeout)

    return run

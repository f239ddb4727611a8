"""Damaged files: every command that reads one says so, or does not need it; nothing wrong is used without a word."""

import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from pytorch_lightning import Callback

from factories.damage import GOOD, KINDS, Command, copy_folder, damage, files_of, judged, trials
from factories.runs import SMALL, main_here, rows, run_folder, train_here
from histo_lightning.runs.manifest import damaged, read_manifest

TINY = (
    "experiment=smoke",
    "dataset.images_per_slide=1",
    "dataset.image_size=140",
    "trainer=cpu",
    "trainer.progress=none",
)


class Interrupt(Callback):
    """Ctrl-C at the beginning of the second epoch."""

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache_dir: Path) -> Path:
    """A finished run, below ``outputs/``."""
    root = tmp_path_factory.mktemp("whole")
    train_here(root, cache_dir, "trainer.progress=none", base=TINY)
    return root


def settings(root: Path, cache_dir: Path) -> list[str]:
    return [
        *TINY,
        "trainer.threads=1",
        f"output_dir={root / 'outputs'}",
        f"cache_dir={cache_dir / 'histo_lightning'}",
    ]


def test_every_file_is_listed_and_audited(whole: Path, tmp_path: Path, capsys) -> None:
    run = run_folder(whole)
    assert set(read_manifest(run)) == set(files_of(run)) - {"manifest.json"}
    assert main_here("audit", f"run={whole}", f"json={tmp_path / 'a.json'}") == 0
    assert json.loads((tmp_path / "a.json").read_text())["damaged"] == []
    capsys.readouterr()
    for kind, name, draw in trials(42, files_of(run), seed=1):
        copy = copy_folder(run, tmp_path / "copy")
        done = damage(copy, kind, name, draw)
        status, said = main_here("audit", f"run={copy}"), "".join(capsys.readouterr())
        assert (status, judged(done, status, said, same=False)) == (2, "refused"), (done, said)
        shutil.rmtree(copy)

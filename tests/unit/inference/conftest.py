"""A small finished run that every test of this room reads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = [
    "model=resnet10",
    "epochs=1",
    "image_size=32",
    "dataset.images_per_slide=1",
    "dataset.image_size=140",
]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """The folder of a small finished run, by the real command."""
    root = tmp_path_factory.mktemp("trained")
    subprocess.run(
        [sys.executable, "-m", "histo_lightning.train", *SETTINGS, "trainer.progress=none"],
        cwd=root,
        env=os.environ | {"XDG_CACHE_HOME": str(cache_dir)},
        check=True,
        capture_output=True,
    )
    (folder,) = (root / "outputs" / "runs").iterdir()
    return folder

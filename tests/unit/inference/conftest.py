"""A small finished run that every test of this room reads."""

from pathlib import Path

import pytest

from factories.forkserver import server
from factories.runs import environment

SETTINGS = [
    "model=resnet10",
    "epochs=1",
    "image_size=32",
    "dataset.images_per_slide=1",
    "dataset.image_size=140",
    "exact_predictions=true",
]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """The folder of a small finished run, by the real command."""
    root = tmp_path_factory.mktemp("trained")
    line = ["-m", "histo_lightning.train", *SETTINGS, "trainer.progress=none"]
    done = server().run(line, root, environment(cache_dir))
    assert done.returncode == 0, done.stderr
    (folder,) = (root / "outputs" / "runs").iterdir()
    return folder

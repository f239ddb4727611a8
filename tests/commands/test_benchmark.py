"""``benchmark``: the rows that are selected, and where the measurements are looked for."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import histo_lightning
from factories.runs import SMALL

ROOT = Path(__file__).resolve().parents[2]
WHERE = "from histo_lightning.benchmark import benchmarks; print(benchmarks('measure').__file__)"


def test_the_command_measures_what_is_selected_and_writes_json(command, tmp_path: Path) -> None:
    small = ["model=resnet10", "image_size=32", "dataset=synthetic", *SMALL[1:3]]
    chosen = ["select=[P8]", *small, "magnification=40x", "json=found.json"]
    done = command("benchmark", *chosen)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "found.json").read_text())
    assert [row["id"] for row in rows] == ["P8 epoch", "P8 step"]
    for row in rows:
        assert row["spread"][0] <= row["measured"] <= row["spread"][1]
        assert row["verdict"] in ("met", "short")
    assert "P8 epoch" in done.stdout


def test_the_benchmarks_of_a_wheel_come_before_those_of_a_repository(tmp_path: Path) -> None:
    """An installed package carries them inside; an editable one finds them beside ``src``."""
    site = tmp_path / "lib" / "site"
    package = site / "histo_lightning"
    shutil.copytree(Path(histo_lightning.__file__).parent, package)

    def found() -> Path:
        environment = os.environ | {"PYTHONPATH": str(site)}
        done = subprocess.run(
            [sys.executable, "-c", WHERE], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.strip())

    shutil.copytree(ROOT / "benchmarks", tmp_path / "lib" / "benchmarks")
    assert found() == tmp_path / "lib" / "benchmarks" / "measure.py"
    shutil.copytree(ROOT / "benchmarks", package / "benchmarks")
    assert found() == package / "benchmarks" / "measure.py"

"""``prepare`` as a user runs it: what is wrong with a copy is listed, all others are used, nothing is decoded twice."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from factories.copies import draw, small_copy


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return small_copy(tmp_path / "BreaKHis_v1")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_bad_copy_is_listed_whole_and_its_good_images_are_used(copy: Path, command, tmp_path: Path) -> None:
    files = sorted(copy.rglob("*.png"))
    broken, doubled, moved = files[0], files[3], files[5]
    broken.write_bytes(broken.read_bytes()[:-200])
    shutil.copy(doubled, copy / doubled.name)
    (copy / "400X").mkdir()
    moved.rename(copy / "400X" / moved.name)
    draw(copy / "holiday.png", 99)
    found = command(
        "prepare", "dataset=breakhis", f"dataset.root={copy}", "image_size=112", "json=found.json"
    )
    assert found.returncode == 2, found.stderr
    for text in (broken.name, "the file ends early", "holiday.png", doubled.name):
        assert text in found.stderr
    assert found.stderr.strip().splitlines()[-1].startswith("error: training refuses this copy")
    folder = tmp_path / "outputs" / "datasets" / "breakhis"
    states = {row["image"]: row["state"] for row in table(folder / "images.csv")}
    assert len(states) == 12
    assert states.pop(broken.name) != "ok"
    assert set(states.values()) == {"ok"}
    kinds = {row["kind"] for row in table(folder / "problems.csv")}
    assert {"unreadable", "duplicate name", "outside grammar", "wrong folder", "missing"} <= kinds
    figures = json.loads((tmp_path / "found.json").read_text())
    assert figures["images"] == 12
    assert figures["unreadable"] == 1
    assert figures["problems"]["missing"] == 7909 - 12
    assert "holiday.png" in (folder / "report.html").read_text()


def test_a_good_copy_is_prepared_without_torch_and_decoded_once(
    copy: Path, tmp_path: Path, cache_dir: Path
) -> None:
    code = (
        "import sys; from histo_lightning import prepare; status = prepare.main(); "
        "print('torch' in sys.modules, status)"
    )
    arguments = [
        "dataset=breakhis",
        f"dataset.root={copy}",
        "image_size=112",
        f"cache_dir={tmp_path / 'cache'}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False 0"
    assert "decoding images: 12 of 12" in done.stdout
    assert "Partial copy, 12 of the 7,909" in done.stdout
    again = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "decoding" not in again.stdout

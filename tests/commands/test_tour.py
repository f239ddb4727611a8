"""docs/tour.md and the README as a new user follows them: every command that needs no real data, in one folder."""

import re
import shlex
import subprocess
from pathlib import Path

from factories.forkserver import server
from factories.runs import environment

ROOT = Path(__file__).resolve().parents[2]
TOUR = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FEW_IMAGES = ("dataset.images_per_slide=2", "dataset.image_size=140")
EXPECTED = {"train": 0, "compare": 0, "audit": 3, "report": 0}


def test_every_command_of_the_tour(tmp_path: Path, command) -> None:
    lines = [line for block in FENCE.findall(TOUR) for line in block.splitlines()]
    split_line = next(line for line in lines if line.startswith("printf"))
    subprocess.run(split_line, shell=True, cwd=tmp_path, check=True)
    ran = []
    for line in lines:
        if not line.startswith("python -m") or "/data/" in line:
            continue
        _, _, module, *overrides = shlex.split(line)
        name = module.removeprefix("histo_lightning.")
        # Another test runs beside this one; and what is asked here is not what the networks learn.
        small = ["trainer.threads=1", "epochs=1", "image_size=48", *FEW_IMAGES] if name == "train" else []
        small += ["hydra/launcher=basic", "report.formats=[]"] if "-m" in overrides else []
        done = command(name, *overrides, *small, timeout=600)
        assert done.returncode == EXPECTED[name], done.stderr
        ran.append(name)
    assert ran == ["train", "train", "compare", "audit", "report"]
    index = (tmp_path / "outputs" / "index.html").read_text(encoding="utf-8")
    assert index.count("<tr>") == 1 + 1 + 1 + 6 + 1  # heading, run, sweep and its runs, comparison
    (first,) = (tmp_path / "outputs" / "runs").glob("first_*")
    assert (first / "report.html").is_file()
    sweep = tmp_path / "outputs" / "sweeps" / "tour"
    page = (sweep / "report.html").read_text(encoding="utf-8")
    assert "ResNet-14 minus ResNet-10" in page or "resnet14 minus resnet10" in page
    other = (tmp_path / "outputs" / "comparisons" / "by_accuracy" / "results.md").read_text(encoding="utf-8")
    assert "xploratory" in other


def test_the_tour_needs_only_targets_that_the_makefile_has() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z-]+)", TOUR + README))
    assert targets >= {"setup", "train", "test", "docs", "dashboard"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_network_of_the_readme(tmp_path: Path, command) -> None:
    (module,) = re.findall(r"```python\n(from torch import nn.*?)```", README, re.DOTALL)
    (line,) = re.findall(r"^python -m histo_lightning\.train (imports=.*)$", README, re.MULTILINE)
    (tmp_path / "my_parts.py").write_text(module)
    done = command("train", *line.split(), "experiment=smoke", "trainer.threads=1", *FEW_IMAGES)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    assert run.name.startswith("tinynet_")


def test_the_trainer_example_of_the_readme(tmp_path: Path, cache_dir: Path) -> None:
    """Its lines, on the embedded data set and for one epoch."""
    (code,) = re.findall(r"```python\n(import pytorch_lightning.*?)```", README, re.DOTALL)
    code = code.replace(
        '"breakhis", "/data/BreaKHis_v1", magnification="100x"',
        '"synthetic", image_size=64, batch_size=64, images_per_slide=2, synthetic_size=140',
    )
    code = code.replace("max_epochs=20", 'max_epochs=1, accelerator="cpu", logger=False').replace(
        "resnet34", "resnet10"
    )
    assert '"/data' not in code
    done = server().run(["-c", code], tmp_path, environment(cache_dir))
    assert done.returncode == 0, done.stderr
    assert "test/case_auroc" in done.stdout

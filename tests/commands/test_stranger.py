"""docs/extend.md as a stranger follows it: parts of one's own from a folder outside the package."""

import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml
from PIL import Image

from factories.forkserver import server
from histo_lightning.data.augment import STEPS
from histo_lightning.data.splits.registry import KINDS
from histo_lightning.evaluation.registry import _SCORES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "extend.md").read_text(encoding="utf-8")
MODULE, PLAIN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^python -m histo_lightning\.train (.+)$", PAGE, re.MULTILINE)
FEW = ("trainer.threads=1", "dataset.images_per_slide=2", "dataset.image_size=140")
YAML = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]


@pytest.fixture(autouse=True)
def own_registries() -> Iterator[None]:
    """What a test registers in this process is gone after it."""
    with mock.patch.dict(_SCORES), mock.patch.dict(KINDS), mock.patch.dict(STEPS):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_parts.py").write_text(MODULE)
    (tmp_path / "my_conf" / "model").mkdir(parents=True)
    (tmp_path / "my_conf" / "model" / "tiny.yaml").write_text(YAML)
    return tmp_path


def test_five_parts_of_ones_own_in_one_run(folder: Path, command) -> None:
    done = command("train", *COMMANDS[0].split(), "json=scores.json", *FEW)
    assert done.returncode == 0, done.stderr
    assert "epoch 1 is over" in done.stdout
    assert "epoch 2 is over" in done.stdout
    scores = json.loads((folder / "scores.json").read_text())
    image = scores["test"]["image"]
    assert image["youden"]["value"] == pytest.approx(
        image["sensitivity"]["value"] + image["specificity"]["value"] - 1
    )
    (run,) = (folder / "outputs" / "runs").iterdir()
    assert run.name.startswith("tinynet_adamw_40x_last_digit-0_s0_")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["width"] == 16
    split = json.loads((run / "split.json").read_text())
    assert all(int(case[-1]) % 2 == 0 for case in split["cases"]["train"])
    assert split["label"] == ""
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert state["state_dict"]["network.body.0.weight"].shape == (16, 3, 3, 3)
    assert "grey" in state["histo_lightning"]["transforms"]
    assert "Youden&#39;s J" in (run / "report.html").read_text()

    image_file = folder / "any.png"
    Image.new("RGB", (350, 230), (200, 150, 180)).save(image_file)
    target = f"checkpoint={run / 'checkpoints' / 'best.ckpt'}"
    refused = command("predict", target, f"input={image_file}")
    assert refused.returncode == 2
    assert "imports=[...]" in refused.stderr
    predicted = command("predict", target, f"input={image_file}", "imports=[my_parts]")
    assert predicted.returncode == 0, predicted.stderr


def test_wrong_names_are_refused_with_what_is_allowed(folder: Path) -> None:
    given = ("imports=[my_parts]", "model._target_=my_parts.TinyNet")
    lines = [
        ["model._target_=my_parts.TinyNet"],  # first: nothing is imported yet
        [*given, "model.widht=16"],
        [*given, "augment.steps.gray={}"],
        [*given, "split.name=last_digits"],
        ["--config-dir", "my_conf", "imports=[my_parts]", "model=tinyy"],
    ]
    code = (
        "import json, sys; from histo_lightning import train; from histo_lightning.config.exits import guard\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['train', *line]; print(guard(train.main))"
    )
    done = server().run(["-c", code, json.dumps(lines)], folder, os.environ)
    assert done.stdout.split() == ["2"] * len(lines), done.stdout + done.stderr
    unknown, argument, step, split, option = done.stderr.splitlines()
    assert "not a network of" in unknown
    assert "did you mean 'width'" in argument
    assert "allowed are grey; did you mean 'grey'" in step
    assert "last_digit" in split
    assert "tiny" in option
    assert not (folder / "outputs").exists()


def test_options_of_ones_own_config_folder_compose_and_pass_the_checks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from histo_lightning.config.compose import config_tree, read_jobs
    from histo_lightning.training.checks import check_runs

    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    line = ["imports=[my_parts]", "model=tiny,resnet10", f"hydra.searchpath=[file://{folder / 'my_conf'}]"]
    with config_tree():
        read = read_jobs("train", line, multirun=True)
    check_runs([job.config for job in read.jobs])
    assert [job.config.model["name"] for job in read.jobs] == ["tinynet", "resnet10"]


@pytest.mark.parametrize("line", COMMANDS[1:])
def test_every_other_command_of_the_page_passes_the_checks(line: str) -> None:
    from histo_lightning.config.compose import config_tree, read_jobs
    from histo_lightning.training.checks import check_runs

    with config_tree():
        read = read_jobs("train", line.split(), multirun=False)
    check_runs([job.config for job in read.jobs])


def test_the_plain_script_of_the_page(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_dir))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        few = PLAIN.replace("image_size=64)", "image_size=64, images_per_slide=2, synthetic_size=140)")
        exec(compile(few, "extend.md", "exec"), names)
    assert "test/case_auroc" in names["trainer"].callback_metrics

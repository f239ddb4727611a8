"""The pages: every link leads somewhere, and what docs/thesis.md claims is so."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import f1_score

from factories.configs import configs_of
from factories.pages import run_blocks
from histo_lightning.classifier.metrics import TrainingMetrics
from histo_lightning.config.schema import Config

ROOT = Path(__file__).resolve().parents[1]
THESIS = ROOT / "docs" / "thesis.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^python -m histo_lightning\.train (.+)$", re.MULTILINE)


def links(page: Path) -> list[str]:
    """Targets of the page's links and pictures that are not addresses, outside its code."""
    found = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Strictly: every page is in the navigation, every link and anchor exists, formulas are MathML."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "--site-dir",
            str(tmp_path / "site"),
        ],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (tmp_path / "site").glob("*.html")}
    assert pages == {page.stem for page in PAGES if page.parent.name == "docs"} | {"404"}
    theory = (tmp_path / "site" / "theory.html").read_text(encoding="utf-8")
    assert "<math" in theory
    assert "arithmatex" not in theory
    assert "compare_levels" in (tmp_path / "site" / "api.html").read_text(encoding="utf-8")


def test_the_generated_pages_follow_the_code() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_relative_to(ROOT), target
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


def test_links_and_anchors_are_found() -> None:
    assert {"docs/theory.md", "docs/thesis.md"} <= set(links(ROOT / "README.md"))
    assert "theory.md#4-momentum" in links(THESIS)
    assert len(links(THESIS)) > 40
    assert {"two-commands", "if-something-is-in-the-way", "your-own-network"} <= anchors(ROOT / "README.md")


def test_names_in_code_that_the_thesis_page_points_to_exist() -> None:
    """``[file.py](...): `name`, `name``` and the names beside it stand in that file."""
    rows = re.findall(r"\[(\w+\.py)\]\(([^)]+)\): ((?:`\w+`(?:, )?)+)", THESIS.read_text(encoding="utf-8"))
    assert rows
    for _, target, names in rows:
        text = (THESIS.parent / target).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert f"def {name}(" in text, name


@pytest.fixture(scope="module")
def claims() -> SimpleNamespace:
    """The thesis page's names after its blocks have run."""
    return SimpleNamespace(**run_blocks(THESIS))


def test_stepping_first_drops_the_rate_an_epoch_early(claims) -> None:
    assert [i for i in range(1, 102) if claims.in_the_thesis[i] < claims.in_the_thesis[i - 1]] == [49, 99]
    assert [i for i in range(1, 102) if claims.here[i] < claims.here[i - 1]] == [50, 100]


def test_the_package_counts_images_where_the_thesis_averages_batches(claims) -> None:
    metrics = TrainingMetrics()
    for right, size in zip(claims.right, claims.size, strict=True):
        labels = torch.zeros(size, dtype=torch.int64)
        logits = torch.stack([torch.zeros(size), (torch.arange(size) >= right).float() * 2 - 1], dim=1)
        metrics.update(torch.tensor(0.5), logits, labels)
    assert float(metrics.compute()["accuracy"]) == pytest.approx(claims.counted)
    assert claims.counted - claims.averaged > 0.13


def test_micro_f1_is_scikit_learn_s(claims) -> None:
    assert claims.micro_f1 == f1_score(claims.truth, claims.predicted, average="micro")


def composed(command: str) -> list[Config]:
    """The config of every run that a command of a page starts; the launcher has no part in it."""
    return configs_of(*(text for text in command.split() if not text.startswith("hydra/")))


def test_the_thesis_page_s_commands_compose_and_differ_in_what_it_says() -> None:
    text = THESIS.read_text(encoding="utf-8").replace("\\\n", "")
    commands = COMMAND.findall(text)
    found = [config for command in commands if not command.startswith("-m") for config in composed(command)]
    assert [(c.model["freeze_backbone"], c.optimizer["momentum"]) for c in found] == [
        (True, 0.09),
        (False, 0.09),
        (False, 0.9),
    ]
    assert {(c.model["name"], c.magnification, c.epochs, c.image_size, c.split.name) for c in found} == {
        ("resnet50", "100x", 300, 224, "case_kfold")
    }
    sample, embedded, defaults, depths = [composed(c) for c in commands if c.startswith("-m")]
    assert [len(sample), len(embedded), len(defaults), len(depths)] == [20, 20, 5, 80]
    arms = {(True, 0.09), (True, 0.9), (False, 0.09), (False, 0.9)}
    for runs in (sample, embedded, depths):
        assert {(c.model["freeze_backbone"], c.optimizer["momentum"]) for c in runs} == arms
        assert {(c.monitor, c.study.factor) for c in runs} == {("val_accuracy", "model.freeze_backbone")}
    assert {c.epochs for c in sample + embedded} == {300}
    assert {c.callbacks["early_stopping"]["patience"] for c in sample + embedded} == {30}
    assert {(c.image_size, c.batch_size, c.magnification) for c in sample + embedded + depths} == {
        (64, 16, "100x")
    }
    assert {(c.optimizer["name"], c.monitor, c.epochs) for c in defaults} == {
        ("adamw", "val_case_log_loss", 40)
    }

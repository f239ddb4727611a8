"""Cells of a comparison: how they are named, what their networks decided, and the pictures of them all."""

import shutil
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.metrics import (
    auc,
    confusion_matrix,
    roc_auc_score,
    roc_curve,
)

from factories.sweeps import by_case, config_of, write_run
from histo_lightning.comparison.cells import mean_roc
from histo_lightning.comparison.results import analyse
from histo_lightning.comparison.settings import names_of
from histo_lightning.errors import UserError
from histo_lightning.evaluation.levels import Units
from histo_lightning.report.comparison_page import figures
from histo_lightning.report.figures.comparison import confusion_cells_figure, curves_figure, roc_cells_figure
from histo_lightning.runs import write_json


def decisions(results: dict[str, Any], level: str, magnification: str) -> dict[str, Any]:
    (found,) = [
        about
        for about in results["decisions"]
        if (about["level"], about["magnification"]) == (level, magnification)
    ]
    return found


def test_confusion_and_roc_of_a_cell_are_scikit_learns(swept: Path) -> None:
    results, runs = analyse([swept])
    found = decisions(results, "resnet34", "100x")
    assert found["trainings"] == 2
    chosen = runs[(runs["model.name"] == "resnet34") & (runs["magnification"] == "100x")]
    assert len(chosen) == 10  # five folds, two seeds
    tables = chosen["table"].tolist()
    for level, entries in (
        ("image", [(table.malignant, table.p_malignant) for table in tables]),
        ("case", [by_case(table) for table in tables]),
    ):
        assert found[level]["confusion"] == sum(
            confusion_matrix(truth, p >= 0.5, labels=[0, 1]) for truth, p in entries
        ).tolist()  # fmt: skip
        curves = found[level]["roc"]["curves"]
        assert len(curves) == 10
        areas = sorted(auc(*curve) for curve in curves)
        assert areas == pytest.approx(sorted(roc_auc_score(truth, p) for truth, p in entries), abs=1e-12)
        pairs = [truth.sum() * (1 - truth).sum() for truth, _ in entries]
        heights = [
            np.interp(np.linspace(0, 1, 101), *roc_curve(truth, p, drop_intermediate=False)[:2])
            for truth, p in entries
        ]
        assert found[level]["roc"]["mean"] == pytest.approx(np.average(heights, axis=0, weights=pairs))


@pytest.mark.parametrize("given", [None, "true", "True", "freeze_backbone=true"])
def test_a_level_that_hydra_reads_as_a_truth_value(tmp_path: Path, given: str | None) -> None:
    """``reference=true`` and ``study.reference=true`` arrive as Python's ``True``, also in a plan."""
    for frozen in (False, True):
        for fold in range(5):
            config = config_of(fold=fold)
            write_run(tmp_path / "runs", replace(config, model={**config.model, "freeze_backbone": frozen}))
    factor = "model.freeze_backbone"
    plan = {
        "jobs": [],
        "comparison": {
            "factor": factor,
            "reference": "True",
            "score": "case_auroc",
            "levels": ["True", "False"],
        },
    }
    write_json(tmp_path / "runs" / "sweep.json", plan)
    results, _ = analyse([tmp_path / "runs"], factor=factor, reference=given)
    assert results["reference"] == "freeze_backbone=true"
    assert list(results["families"][0]["comparison"]["arms"]) == [
        "freeze_backbone=true",
        "freeze_backbone=false",
    ]
    (about,) = results["plans"]
    assert not any("it fixed" in reason for reason in about["not_this"])
    assert not any("is missing" in reason for reason in results["families"][0]["exploratory_because"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is not JSON"),
        ('{"jobs": [{"run": "a"', "it is not JSON"),
        ("[]", "it is of a wrong kind"),
        ("{}", "it lists no jobs"),
        ('{"jobs": 3}', "jobs is of a wrong kind"),
        ('{"jobs": ["a"]}', "jobs.0 is of a wrong kind"),
        ('{"jobs": [{"run": null}]}', "it lists no jobs"),
        ('{"jobs": [], "comparison": [1]}', "comparison is of a wrong kind"),
        ('{"jobs": [], "comparison": {"levels": 3}}', "comparison.levels is of a wrong kind"),
    ],
)
def test_a_damaged_plan_is_refused_in_one_line(
    crossed_runs: Path, tmp_path: Path, text: str, why: str
) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(UserError) as refused:
        analyse([crossed_runs, tmp_path])
    assert str(refused.value).startswith(f"{tmp_path / 'sweep.json'}: is damaged (")
    assert why in str(refused.value)
    assert "restore " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_levels_of_a_plan_may_be_left_out(crossed_runs: Path, tmp_path: Path) -> None:
    plan = {"jobs": [], "comparison": {"factor": "model.freeze_backbone", "reference": True, "levels": None}}
    write_json(tmp_path / "sweep.json", plan)
    assert analyse([crossed_runs, tmp_path])[0]["reference"] == "freeze_backbone=true"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no epoch"),
        ("epoch,train_loss\n0,0.5\n", "no column val_loss"),
        ("epoch,train_loss,val_loss\n0,0.5\n", "a row is damaged"),
        ("epoch,train_loss,val_loss\n0,0.5,x\n", "a row is damaged"),
    ],
)
def test_a_damaged_history_is_refused_in_one_line(
    crossed_runs: Path, tmp_path: Path, text: str, why: str
) -> None:
    source = next(crossed_runs.iterdir())
    run = shutil.copytree(source, tmp_path / source.name)
    (run / "history.csv").write_text(text)
    with pytest.raises(UserError) as refused:
        analyse([tmp_path])
    assert str(refused.value).startswith(f"{run / 'history.csv'}: ")
    assert why in str(refused.value)
    assert "train again" in str(refused.value)
    (run / "history.csv").unlink()
    assert analyse([tmp_path])[0]["curves"] == []


def test_a_reference_that_no_run_has_is_told_as_it_was_given(crossed_runs: Path) -> None:
    with pytest.raises(UserError) as told:
        analyse([crossed_runs], factor="model.freeze_backbone", reference="ture")
    assert str(told.value) == (
        "reference=ture: is not among the levels of model.freeze_backbone: false, true; did you mean 'true'?"
    )


def test_area_under_the_mean_roc_is_the_pooled_auroc() -> None:
    """With rates that all lie on the picture's grid: folds of 4 and 10 benign units, of unlike numbers of pairs."""
    rng = np.random.default_rng(3)
    folds, areas, pairs = [], [], []
    for benign, malignant in ((4, 7), (10, 3), (5, 5)):
        truth = np.repeat([0, 1], [benign, malignant])
        p = np.round(rng.random(len(truth)) + 0.2 * truth, 3)
        nothing = np.zeros(len(truth), np.int64)
        folds.append(
            Units("image", truth, np.column_stack([1 - p, p]), nothing, nothing + 0.0, nothing, nothing,
                  np.array(["a"]), np.array([0]), True)
        )  # fmt: skip
        areas.append(roc_auc_score(truth, p))
        pairs.append(benign * malignant)
    one_class = replace(folds[0], truth=np.ones(11, np.int64))
    found = mean_roc([*folds, one_class])
    assert found is not None
    assert len(found["curves"]) == 3
    fine = np.linspace(0, 1, 101)
    assert np.trapezoid(found["mean"], fine) == pytest.approx(np.average(areas, weights=pairs), abs=0.01)
    assert mean_roc([one_class]) is None


def test_many_cells_are_drawn_on_one_page_and_the_rest_is_counted(swept: Path) -> None:
    results, _ = analyse([swept])
    many = [about | {"level": f"level {n}"} for n in range(7) for about in results["decisions"]]
    for draw in (roc_cells_figure, confusion_cells_figure):
        figure = draw(many)
        assert len(figure.axes) == 24
        assert "(the first 24 of 28 cells)" in figure.get_suptitle()
    counts = np.array(results["decisions"][0]["image"]["confusion"])
    cases = np.array(results["decisions"][0]["case"]["confusion"])
    written = [text.get_text().split("\n") for text in confusion_cells_figure(many).axes[0].texts]
    assert [int(lines[0]) for lines in written] == counts.ravel().tolist()
    assert [lines[2] for lines in written] == [f"({count})" for count in cases.ravel()]


@pytest.fixture(scope="module")
def crossed_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A true/false key compared at two depths times three learning rates: twelve cells of five folds."""
    folder = tmp_path_factory.mktemp("crossed")
    for model, rate, frozen, fold in product(
        ("resnet101", "resnet18"), (0.1, 0.02, 0.003), (True, False), range(5)
    ):
        config = config_of(model, fold=fold)
        model_config = {**config.model, "freeze_backbone": frozen}
        optimizer = {**config.optimizer, "lr": rate}
        write_run(folder, replace(config, model=model_config, optimizer=optimizer))
    return folder


@pytest.fixture(scope="module")
def crossed(crossed_runs: Path) -> dict[str, Any]:
    return analyse([crossed_runs], factor="model.freeze_backbone", reference="true")[0]


def test_cells_of_keys_are_named_by_key_and_value_and_sorted_by_number(crossed: dict[str, Any]) -> None:
    strata = [f"resnet{depth} lr={rate}" for depth in (18, 101) for rate in ("0.003", "0.02", "0.1")]
    levels = ["freeze_backbone=false", "freeze_backbone=true"]
    assert [cell["arm"] for cell in crossed["cells"]] == [f"{a} {b}" for a in levels for b in strata]
    main, *others = crossed["families"]
    assert main["title"].endswith(
        "against freeze_backbone=true, mean over 6 settings of model and optimizer.lr"
    )
    assert "mean over 6 settings of model and optimizer.lr: at" in main["comparison"]["pairs"][0]["words"]
    assert [family["title"].split(" with ")[1] for family in others] == strata
    assert crossed["held"] == {
        "model": ["resnet18", "resnet101"],
        "optimizer.lr": ["lr=0.003", "lr=0.02", "lr=0.1"],
    }


def test_two_keys_that_end_alike_are_told_by_their_whole_names() -> None:
    configs = [{"optimizer.lr": 0.1, "head.lr": 1}, {"optimizer.lr": 0.2, "head.lr": 1}]
    for others, name in ((["head.lr"], "optimizer.lr=0.1"), (["head.size", "optimizer.lr"], "lr=0.1")):
        assert name in set(names_of(pd.DataFrame(configs), "optimizer.lr", ["optimizer.lr"], others))


def test_every_picture_holds_all_it_says(crossed: dict[str, Any], swept: Path) -> None:
    """Nothing is cut off at a figure's edge, with many settings and with many magnifications."""
    for results in (crossed, analyse([swept])[0]):
        for name, figure in figures(results):
            canvas: Any = FigureCanvasAgg(figure)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # matplotlib warns where a layout has no room
                canvas.draw()
            box = figure.get_tightbbox(canvas.get_renderer())
            width, height = figure.get_size_inches()
            assert min(box.x0, box.y0) >= 0, (name, box)
            assert max(box.x1 - width, box.y1 - height) <= 0, (name, box)


def test_curves_have_a_panel_for_each_setting_on_the_scale_of_the_means(crossed: dict[str, Any]) -> None:
    (figure,) = [figure for name, figure in figures(crossed) if name == "curves"]
    assert len(figure.axes) == 12
    arm = "freeze_backbone=true resnet101 lr=0.02"
    losses = [curve["val_loss"] for curve in crossed["curves"] if curve["arm"] == arm]
    assert len(losses) == 5
    (panel,) = [
        axes
        for axes in figure.axes
        if axes.get_title(loc="left") == "resnet101 lr=0.02\n40x, validation loss"
    ]
    means = [line.get_ydata() for line in panel.lines if line.get_linewidth() > 1]
    assert len(means) == 2
    assert any(np.allclose(mean, np.mean(losses, axis=0)) for mean in means)
    below = [axes for axes in figure.axes if axes.get_title(loc="left").endswith("validation loss")]
    assert len({axes.get_ylim() for axes in below}) == 1


def test_the_mean_of_curves_ends_where_the_first_run_was_stopped(crossed: dict[str, Any]) -> None:
    """A mean over the runs that are left would jump whenever one stops early."""
    arm = crossed["cells"][0]["arm"]
    own = [curve for curve in crossed["curves"] if curve["arm"] == arm]
    short = [own[0] | {"val_loss": own[0]["val_loss"][:3]}, *own[1:]]
    cells = [cell for cell in crossed["cells"] if cell["arm"] == arm]
    below = curves_figure(short, cells).axes[1]
    (mean,) = [line.get_ydata() for line in below.lines if line.get_linewidth() > 1]
    assert np.allclose(mean, np.mean([curve["val_loss"][:3] for curve in own], axis=0))
    diverged = [own[0] | {"val_loss": [0.7, float("inf"), float("nan")]}, *own[1:]]
    assert 0 < curves_figure(diverged, cells).axes[1].get_ylim()[1] < 10

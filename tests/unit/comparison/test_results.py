"""``compare``: run folders of every state in, numbers that scikit-learn finds again and refusals in words out."""

import csv
import fcntl
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import (
    balanced_accuracy_score,
    log_loss,
    roc_auc_score,
)

from factories.sweeps import by_case, config_of, read, write_run, write_sweep
from histo_lightning.comparison.cells import score_out_of_fold
from histo_lightning.comparison.families import plan_hash
from histo_lightning.comparison.folders import find_folders, listed_folders
from histo_lightning.comparison.reading import SHOWN_SCORES, read_runs
from histo_lightning.comparison.results import analyse, compare_runs, results_table
from histo_lightning.comparison.settings import natural
from histo_lightning.config.identity import hashed, readable_name
from histo_lightning.errors import UserError
from histo_lightning.evaluation import (
    pool,
    read_predictions,
    score_pooled,
    score_predictions,
    write_predictions,
)
from histo_lightning.evaluation.differences import Replicate
from histo_lightning.evaluation.registry import score_names
from histo_lightning.report.comparison_page import figures, texts
from histo_lightning.report.summaries import print_comparison
from histo_lightning.runs import unquote_cell, write_json

FIRST = ["run", "state", "model", "optimizer", "magnification", "split", "fold", "seed"]
COSTS = ["parameters", "flops", "train_seconds", "peak_memory_bytes"]


@pytest.fixture(scope="module")
def answered(swept: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The files and the returned values of one comparison."""
    out = tmp_path_factory.mktemp("answered")
    return out, compare_runs([swept], out, select="best")


@pytest.fixture
def copied(swept: Path, tmp_path: Path) -> Path:
    """The same sweep, to be damaged: only 40x, so that it is small."""
    shutil.copytree(swept, tmp_path / "sweep", ignore=shutil.ignore_patterns("*_100x_*"))
    plan = read(tmp_path / "sweep" / "sweep.json")
    plan["jobs"] = [job for job in plan["jobs"] if "_40x_" in job["run"]]
    write_json(tmp_path / "sweep" / "sweep.json", plan | {"hash": plan_hash(plan)})
    return tmp_path / "sweep"


def folder_of(sweep: Path, model: str, fold: int = 0, seed: int = 0, magnification: str = "40x") -> Path:
    return sweep / readable_name(config_of(model, "adamw", magnification, fold, seed))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: unquote_cell(value) for key, value in row.items()} for row in csv.DictReader(file)]


def rows_in(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of ``results.csv``, None for an empty cell."""
    table = results_table(runs)
    return [dict(row) for _, row in table.astype(object).where(table.notna(), None).iterrows()]


def cell_of(results: dict[str, Any], arm: str, magnification: str = "40x") -> dict[str, Any]:
    (cell,) = [c for c in results["cells"] if (c["arm"], c["magnification"]) == (arm, magnification)]
    return cell


def set_status(folder: Path, **changes: Any) -> None:
    write_json(folder / "status.json", read(folder / "status.json") | changes)


# --- numbers -----------------------------------------------------------------------------------------------------


def test_results_csv_has_the_agreed_columns_and_a_row_a_run(answered: tuple[Path, Any], swept: Path) -> None:
    rows = rows_of(answered[0] / "results.csv")
    columns = list(rows[0])
    assert columns[:12] == [*FIRST, *COSTS]
    assert columns[12:15] == ["test_case_auroc", "test_case_auroc_low", "test_case_auroc_high"]
    assert columns[-4:] == ["label", "test_read", "folder", "error"]
    assert {row["run"] for row in rows} == {path.parent.name for path in swept.glob("*/status.json")}
    assert len(rows) == 40
    assert {row["state"] for row in rows} == {"finished"}
    assert {(row["model"], row["parameters"]) for row in rows} == {
        ("resnet18", "11177538"),
        ("resnet34", "21285698"),
    }


def test_numbers_in_results_csv_are_scikit_learns(answered: tuple[Path, Any], swept: Path) -> None:
    for row in rows_of(answered[0] / "results.csv")[::9]:
        for part in ("test", "val"):
            table = read_predictions(swept / row["run"] / "predictions" / f"{part}.csv")
            truth, p = by_case(table)
            expected = {
                "case_auroc": roc_auc_score(truth, p),
                "case_balanced_accuracy": balanced_accuracy_score(truth, p >= 0.5),
                "image_auroc": roc_auc_score(table.malignant, table.p_malignant),
                "image_log_loss": log_loss(table.malignant, table.p_malignant),
            }
            for name, value in expected.items():
                assert float(row[f"{part}_{name}"]) == pytest.approx(value, abs=1e-12), name
        metrics = read(swept / row["run"] / "metrics.json")
        assert float(row["train_seconds"]) == metrics["cost"]["train_seconds"]


def test_intervals_in_results_csv_are_those_of_the_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", config_of(), draws=100)
    (row,) = rows_in(analyse([tmp_path])[1])
    for part in ("test", "val"):
        for level, score in (
            ("case", "auroc"),
            ("image", "sensitivity"),
            ("slide", "patient_recognition_rate"),
        ):
            entry = read(folder / "metrics.json")[part][level][score]
            found = [row[f"{part}_{level}_{score}{end}"] for end in ("", "_low", "_high")]
            assert found == [entry["value"], entry["low"], entry["high"]]
    assert row["test_case_auroc_low"] < row["test_case_auroc"] < row["test_case_auroc_high"]


def test_the_pooled_value_and_interval_are_score_pooleds(swept: Path) -> None:
    scores = (
        "case_auroc",
        "image_auroc",
        "slide_patient_recognition_rate",
        "case_brier",
        "image_balanced_accuracy",
    )
    paths = [folder_of(swept, "resnet34", fold, 0, "100x") / "predictions/test.csv" for fold in range(5)]
    tables = [read_predictions(path) for path in paths]
    table, fold = pool(tables)
    expected = score_pooled(tables)
    for score in scores:
        level, _, name = score.partition("_")
        entry, others = score_out_of_fold(Replicate(table, fold), score)
        assert entry == expected[level][name], score
        assert others["slide_auroc"] == expected["slide"]["auroc"]["value"]


def test_a_cell_is_the_mean_over_its_seeds(answered: tuple[Path, dict[str, Any]], swept: Path) -> None:
    cell = cell_of(answered[1], "resnet34", "100x")
    values = []
    for seed in (0, 1):
        paths = [folder_of(swept, "resnet34", k, seed, "100x") / "predictions/test.csv" for k in range(5)]
        values.append(score_pooled(paths, intervals=False)["case"]["auroc"]["value"])
    assert [one["value"] for one in cell["replicates"]] == values
    assert cell["value"] == fmean(values)
    for end in ("low", "high"):
        assert cell[end] == fmean(one[end] for one in cell["replicates"])
    assert cell["method"] == "Newcombe method 5"


def test_the_pooled_auroc_counts_pairs_of_one_fold(swept: Path) -> None:
    """By hand: the mean of the folds' AUROCs, weighed by their pairs; beside it all pairs."""
    results, _ = analyse([swept])
    right = pairs = 0.0
    everything = []
    for fold in range(5):
        truth, p = by_case(read_predictions(folder_of(swept, "resnet18", fold) / "predictions/test.csv"))
        count = truth.sum() * (1 - truth).sum()
        right, pairs = right + count * roc_auc_score(truth, p), pairs + count
        everything.append((truth, p))
    (first, _) = cell_of(results, "resnet18")["replicates"]
    assert first["value"] == pytest.approx(right / pairs, abs=1e-12)
    truth, p = (np.concatenate(parts) for parts in zip(*everything, strict=True))
    assert first["pooled"] == pytest.approx(roc_auc_score(truth, p), abs=1e-12)


def test_the_comparison_is_the_difference_of_the_tables_cells(answered: tuple[Path, dict[str, Any]]) -> None:
    results = answered[1]
    (family,) = results["families"]
    (pair,) = family["comparison"]["pairs"]
    differences = [
        cell_of(results, "resnet34", m)["value"] - cell_of(results, "resnet18", m)["value"]
        for m in ("40x", "100x")
    ]
    assert pair["difference"] == pytest.approx(fmean(differences), abs=1e-12)
    assert pair["simultaneous_low"] < pair["difference"] < pair["simultaneous_high"]
    assert family["comparison"]["replicates"] == 2
    assert family["comparison"]["cases"] == {"benign": 16, "malignant": 54}
    assert [family["primary"], family["main"], family["magnifications"]] == [True, True, ["40x", "100x"]]


def test_spreads_by_hand(answered: tuple[Path, dict[str, Any]], swept: Path) -> None:
    cell = cell_of(answered[1], "resnet18")
    assert cell["seed_sd"] == pytest.approx(np.std([one["value"] for one in cell["replicates"]], ddof=1))
    scores = [
        [
            read(folder_of(swept, "resnet18", k, s) / "metrics.json")["test"]["case"]["auroc"]["value"]
            for s in (0, 1)
        ]
        for k in range(5)
    ]
    assert cell["fold_sd"] == pytest.approx(np.std(np.mean(scores, axis=1), ddof=1))
    assert cell["mean_of_runs"] == pytest.approx(np.mean(scores))
    assert (cell["found"], cell["finished"], cell["test_read"]) == (10, 10, 10)


def test_all_seeds_of_a_cell_are_an_ensemble_within_each_fold(
    answered: tuple[Path, dict[str, Any]], swept: Path
) -> None:
    """By pandas and scikit-learn from the prediction files: mean probability over seeds, then by case, pairs of one fold."""
    found = cell_of(answered[1], "resnet34")["ensemble"]
    right = pairs = 0.0
    for k in range(5):
        tables = [
            pd.read_csv(folder_of(swept, "resnet34", k, seed) / "predictions" / "test.csv") for seed in (0, 1)
        ]
        images = (
            pd.concat(tables).groupby("image").agg({"p_malignant": "mean", "case": "first", "label": "first"})
        )
        cases = images.groupby("case").agg({"p_malignant": "mean", "label": "first"})
        count = cases["label"].sum() * (1 - cases["label"]).sum()
        right, pairs = right + count * roc_auc_score(cases["label"], cases["p_malignant"]), pairs + count
    assert found["trainings"] == 2
    assert found["value"] == pytest.approx(right / pairs)
    assert found["low"] < found["value"] < found["high"]
    assert "All seeds of a cell as one ensemble" in (answered[0] / "report.html").read_text()


def test_one_seed_is_no_ensemble(swept: Path) -> None:
    results, _ = analyse([folder_of(swept, "resnet34", k) for k in range(5)])
    assert cell_of(results, "resnet34")["ensemble"] is None


def test_the_standard_error_is_that_of_the_plan_or_what_is_asked(copied: Path) -> None:
    plain, _ = analyse([copied])
    asked, _ = analyse([copied], standard_error="pairs")
    plan = read(copied / "sweep.json")
    plan["comparison"]["standard_error"] = "pairs"
    write_json(copied / "sweep.json", plan | {"hash": plan_hash(plan)})
    planned, _ = analyse([copied])
    errors = [r["families"][0]["comparison"]["pairs"][0]["se"] for r in (plain, asked, planned)]
    assert errors[1] == errors[2] < errors[0]
    assert planned["families"][0]["primary"]
    other, _ = analyse([copied], standard_error="jackknife")
    assert not other["families"][0]["primary"]
    text, _ = texts(planned, copied, [])
    assert "standard errors by pairs of cases" in text


def test_two_factors_make_one_primary_family_and_one_beside_each_level(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "two", optimizers=("adam", "sgd"))
    results, _ = analyse([sweep])
    main, *others = results["families"]
    assert [family["held"] for family in results["families"]] == [["adam", "sgd"], ["adam"], ["sgd"]]
    assert [family["primary"] for family in results["families"]] == [True, False, False]
    each = [family["comparison"]["pairs"][0] for family in others]
    (pooled,) = main["comparison"]["pairs"]
    assert pooled["difference"] == pytest.approx(fmean(pair["difference"] for pair in each))
    assert "mean over adam and sgd:" in pooled["words"]
    assert "magnifications" not in pooled["words"]
    ordered = sorted(each, key=lambda pair: pair["p"])
    assert ordered[0]["p_holm_families"] == pytest.approx(min(1, 2 * ordered[0]["p"]))
    assert all(pair["simultaneous_low"] is None for pair in each)
    assert results["held"] == {"optimizer": ["adam", "sgd"]}
    # The other way round, the plan's factor is not what is compared.
    turned, _ = analyse([sweep], factor="optimizer", reference="sgd")
    assert turned["families"][0]["held"] == ["resnet18", "resnet34"]
    assert any("it fixed factor=model" in text for text in turned["families"][0]["exploratory_because"])


# --- states ------------------------------------------------------------------------------------------------------


def test_every_state_is_a_row_with_its_reason(copied: Path, tmp_path: Path) -> None:
    unready = folder_of(copied, "resnet34", 0)  # as a job leaves it whose data cannot be prepared
    config = (unready / "config.yaml").read_text()
    shutil.rmtree(unready)
    unready.mkdir()
    (unready / "config.yaml").write_text(config)
    write_json(unready / "status.json", {"state": "failed", "error": "no memory", "seconds": 0.0})
    shutil.rmtree(folder_of(copied, "resnet34", 1))
    set_status(folder_of(copied, "resnet34", 2), state="failed", error="the loss is not finite")
    set_status(folder_of(copied, "resnet34", 3), state="running")
    alive = folder_of(copied, "resnet34", 4)
    set_status(alive, state="running")
    (folder_of(copied, "resnet18", 0) / "metrics.json").write_text('{"schema": 1, "te')
    (folder_of(copied, "resnet18", 1) / "config.yaml").write_text("model: [")
    (folder_of(copied, "resnet18", 2) / "status.json").write_text("")
    (folder_of(copied, "resnet18", 3) / "split.json").unlink()
    lines = (folder_of(copied, "resnet18", 4) / "predictions/test.csv").read_text().splitlines()
    (folder_of(copied, "resnet18", 4) / "predictions/test.csv").write_text("\n".join(lines[:-1]) + "\n")
    with (alive / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        results, runs = analyse([copied])
    rows = rows_in(runs)
    told = {(row["model"], row["fold"]): (row["state"], row["error"]) for row in rows if row["seed"] == 0}
    assert told["resnet34", 0] == ("failed", "no memory")
    assert told["resnet34", 1][0] == "missing"
    assert told["resnet34", 2] == ("failed", "the loss is not finite")
    assert told["resnet34", 3][0] == "interrupted"
    assert "killed" in told["resnet34", 3][1]
    assert told["resnet34", 4] == ("running", "")
    assert told["resnet18", 0] == (
        "damaged",
        "metrics.json: is damaged (it is not JSON); restore it, or move its folder away and run again",
    )
    assert told["resnet18", 2] == (
        "damaged",
        "status.json: is damaged (it is not JSON); restore it, or move its folder away and run again",
    )
    assert told["resnet18", 3] == ("damaged", "split.json is missing or empty; train again")
    assert "different images" in told["resnet18", 4][1]
    (unknown,) = [row for row in rows if row["model"] is None]
    assert (unknown["run"], unknown["state"]) == (folder_of(copied, "resnet18", 1).name, "damaged")
    assert len(rows) == 20
    assert results["runs"]["found"] == 20
    assert results["runs"]["damaged"] == 5
    assert {run["run"] for run in results["unfinished"]} == {
        row["run"] for row in rows if row["state"] != "finished"
    }
    problem = next(text for text in cell_of(results, "resnet34")["problems"] if "seed 0" in text)
    for text in (
        "fold 0 is missing (failed: no memory)",
        "fold 2 is missing (failed: the loss is not finite)",
        "running",
    ):
        assert text in problem
    # Seed 1 is whole in both arms: compared, but not as planned.
    (family,) = results["families"]
    assert family["replicates"] == ["seed 1"]
    assert (family["primary"], family["whole"]) == (False, False)
    assert "onditional on the fitted models" in family["comparison"]["pairs"][0]["words"]


def test_the_issues_example_of_a_refusal(copied: Path) -> None:
    for model in ("resnet50",):  # a third level with a hole in seed 1
        for seed in (0, 1):
            for fold in range(5):
                failed = (fold, seed) == (3, 1)
                state = "failed" if failed else "finished"
                write_run(
                    copied,
                    config_of(model, fold=fold, seed=seed),
                    state=state,
                    error="boom" if failed else None,
                )
    results, _ = analyse([copied])
    (family,) = results["families"]
    assert family["missing"] == {"resnet50": ["resnet50 40x seed 1: fold 3 is missing (failed: boom)"]}
    assert family["exploratory_because"] == ["resnet50 is missing"]
    assert [pair["arm"] for pair in family["comparison"]["pairs"]] == ["resnet34"]
    assert family["comparison"]["replicates"] == 2
    assert cell_of(results, "resnet50")["value"] is not None  # seed 0 still stands in the table
    assert [text for refusal in results["refusals"] for text in refusal["reasons"]] == family["missing"][
        "resnet50"
    ]


def test_a_half_sweep_goes_on_to_the_answer_of_an_undisturbed_one(copied: Path, tmp_path: Path) -> None:
    whole, _ = analyse([copied])
    away = tmp_path / "away"
    away.mkdir()
    late = list(copied.glob("resnet34*_s1_*"))
    for folder in late:
        shutil.move(folder, away / folder.name)
    half, _ = analyse([copied])
    assert half["runs"]["missing"] == 5
    assert half["families"][0]["replicates"] == ["seed 0"]
    assert not half["families"][0]["primary"]
    for folder in late:
        shutil.move(away / folder.name, folder)
    again, _ = analyse([copied])
    again["plans"][0]["first_start"] = whole["plans"][0]["first_start"]
    assert json.dumps(again) == json.dumps(whole)


def test_older_runs_without_cost_are_read(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", config_of(), cost=False)
    _, runs = analyse([tmp_path])
    (row,) = rows_in(runs)
    assert (row["parameters"], row["flops"]) == (None, None)
    assert row["train_seconds"] > 0


def test_a_key_that_an_older_run_does_not_know_has_its_default(tmp_path: Path) -> None:
    folder = write_run(tmp_path, config_of())
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(re.sub(r"(?m)^label_smoothing:.*\n", "", text))
    assert "label_smoothing" not in (folder / "config.yaml").read_text()
    runs, _, _ = read_runs([folder])
    assert runs["label_smoothing"].tolist() == [0.0]


# --- what does not belong together -----------------------------------------------------------------------------------


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = read(path)
    change(content)
    write_json(path, content)


@pytest.mark.parametrize(
    ("change", "file", "told"),
    [
        (lambda c: c.update(partition_hash="other"), "split.json", "2 different partitions of the cases"),
        (lambda c: c.update(data_fingerprint="other"), "status.json", "different images (data_fingerprint)"),
        (lambda c: c.update(label="CASE-LEAKY (3 images)"), "split.json", ""),
    ],
)
def test_folds_that_do_not_belong_together_are_not_pooled(
    copied: Path, change: Any, file: str, told: str
) -> None:
    changed(folder_of(copied, "resnet34", 2, 1) / file, change)
    results, _ = analyse([copied])
    problems = [text for cell in results["cells"] for text in cell["problems"]]
    if told:
        assert any(told in text and "resnet34 40x seed 1" in text for text in problems), problems
    else:  # another label is another world: the fold is missing here and alone there
        assert len(results["worlds"]) == 2
        assert any("fold 2 is missing (no such run)" in text for text in problems)
    assert (
        results["families"][0]["replicates"] == ["seed 0"] or "resnet34" in results["families"][0]["missing"]
    )


def test_arms_on_other_data_are_not_compared(copied: Path) -> None:
    for fold in range(5):
        for seed in (0, 1):
            set_status(folder_of(copied, "resnet34", fold, seed), data_fingerprint="another copy")
    results, _ = analyse([copied])
    assert results["families"] == []
    assert "different pixels under the same names" in results["refusals"][0]["reasons"][0]


def test_another_partition_is_another_replicate_not_another_fold(tmp_path: Path) -> None:
    for model in ("resnet18", "resnet34"):
        for repeat in (0, 1):
            for fold in range(5):
                write_run(tmp_path / "runs", config_of(model, fold=fold, repeat=repeat))
    results, _ = analyse([tmp_path])
    (family,) = results["families"]
    assert family["replicates"] == ["seed 0", "seed 0 repeat 1"]
    assert family["comparison"]["replicates_are"] == "repeats of the split"
    assert family["exploratory_because"] == ["no plan was written before the first job"]


def test_a_replicate_of_one_arm_alone_is_left_out(copied: Path) -> None:
    for fold in range(5):
        write_run(copied, config_of("resnet34", fold=fold, seed=7))
    results, _ = analyse([copied])
    (family,) = results["families"]
    assert family["replicates"] == ["seed 0", "seed 1"]
    assert family["notes"] == ["seed 7 was not run for resnet18 and is left out"]
    assert len(cell_of(results, "resnet34")["replicates"]) == 3


def test_labelled_splits_are_shown_with_their_label_and_never_pooled(tmp_path: Path) -> None:
    labels = {
        "image_random": "LEAKY",
        "slide_kfold": "CASE-LEAKY",
        "official": "CASE-LEAKY",
        "case_kfold": "",
    }
    for model in ("resnet18", "resnet34"):
        for kind in labels:
            for fold in range(5):
                write_run(tmp_path / "runs", config_of(model, fold=fold + (kind == "official"), kind=kind))
    results, runs = analyse([tmp_path / "runs"])
    assert results["worlds"] == [
        "synthetic, case_kfold of 5",
        "synthetic, image_random of 5: LEAKY",
        "synthetic, official: CASE-LEAKY",
        "synthetic, slide_kfold of 5: CASE-LEAKY",
    ]
    assert [family["world"] for family in results["families"]] == results["worlds"][:1]
    labelled = [cell for cell in results["cells"] if cell["label"]]
    assert [cell["value"] for cell in labelled] == [None] * 6
    assert all(cell["mean_of_runs"] is not None for cell in labelled)
    reasons = {refusal["world"]: refusal["reasons"][0] for refusal in results["refusals"]}
    assert "the official folds overlap" in reasons["synthetic, official: CASE-LEAKY"]
    assert "in the test parts of several folds (LEAKY)" in reasons["synthetic, image_random of 5: LEAKY"]
    assert (
        "in the test parts of several folds (CASE-LEAKY)"
        in reasons["synthetic, slide_kfold of 5: CASE-LEAKY"]
    )
    text, page = texts(results, tmp_path, [])
    for label, count in (("LEAKY", 3), ("CASE-LEAKY", 5)):  # at the top, with the scores, with the comparison
        assert page.count(f'class="label">{label}') == count
        assert text.count(f"> **{label}") == count
    rows = rows_in(runs)
    assert {(row["split"], row["label"].split(" (")[0]) for row in rows} == set(labels.items())
    names = [name for name, _ in figures(results)]
    assert names[:7] == ["forest", "ranks", "heat_map", "cost", "roc", "confusion", "curves"]
    assert names[7:10] == ["heat_map-2", "cost-2", "curves-2"]  # LEAKY folds are not pooled


def test_unknown_grouping_has_no_case_score_and_says_why(tmp_path: Path) -> None:
    for model in ("resnet18", "resnet34"):
        folder = write_run(tmp_path / "runs", config_of(model))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["split"]["name"] = config["dataset"]["name"] = "folders"
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        changed(
            folder / "split.json", lambda content: content.update(kind="folders", label="GROUPING UNKNOWN")
        )
        table = read_predictions(folder / "predictions/test.csv")
        unknown = np.full(len(table), "")
        table = replace(table, case=unknown, slide=unknown, subtype=unknown)
        write_predictions(folder / "predictions/test.csv", table)
        changed(
            folder / "metrics.json",
            lambda content, table=table: content.update(test=score_predictions(table)),
        )
    results, _ = analyse([tmp_path])
    cell = cell_of(results, "resnet18")
    assert (cell["value"], cell["mean_of_runs"]) == (None, None)
    assert "GROUPING UNKNOWN" in texts(results, tmp_path, [])[0]
    assert results["families"] == []
    by_image, _ = analyse([tmp_path], score="image_auroc")
    cell = cell_of(by_image, "resnet18")
    assert cell["value"] == pytest.approx(cell["mean_of_runs"])
    assert (cell["low"], by_image["families"]) == (None, [])
    assert "GROUPING UNKNOWN" in cell["reason"]
    assert "GROUPING UNKNOWN" in by_image["refusals"][0]["reasons"][0]


def test_the_same_run_twice_is_counted_once(copied: Path, tmp_path: Path) -> None:
    whole, _ = analyse([copied])
    twice, _ = analyse([copied, copied / "..", folder_of(copied, "resnet18")])
    assert twice["runs"]["found"] == whole["runs"]["found"]
    # A copy from another machine: the newest is kept, and said.
    other = tmp_path / "elsewhere" / folder_of(copied, "resnet18").name
    shutil.copytree(folder_of(copied, "resnet18"), other)
    set_status(other, started="2026-07-01T00:00:00+00:00")
    results, _ = analyse([copied, other])
    assert results["runs"]["found"] == whole["runs"]["found"] + 1
    assert results["families"][0]["comparison"] == whole["families"][0]["comparison"]
    (note,) = results["notes"]
    assert note.startswith("resnet18 40x seed 0: fold 0 has two runs")
    assert str(folder_of(copied, "resnet18")) in note


def test_other_trainers_are_averaged_in_the_table_and_warned_about(copied: Path) -> None:
    config = config_of("resnet18")
    config.trainer = replace(config.trainer, precision="16-mixed")
    twin = write_run(copied, config, started="2026-07-01T00:00:00+00:00")
    assert hashed(config) not in folder_of(copied, "resnet18").name
    table = read_predictions(twin / "predictions/test.csv")
    shuffled = table.rows(np.arange(len(table)))
    shuffled.p_malignant[:] = 1 - shuffled.p_malignant  # another result, so that an average shows
    shuffled.logits[:] = shuffled.logits[:, ::-1].copy()
    shuffled.predicted[:] = 1 - shuffled.predicted
    write_predictions(twin / "predictions/test.csv", shuffled)
    results, _ = analyse([copied])
    tables = [[folder_of(copied, "resnet18", k) / "predictions/test.csv" for k in range(5)] for _ in range(2)]
    tables[1][0] = twin / "predictions/test.csv"
    expected = [score_pooled(one, intervals=False)["case"]["auroc"]["value"] for one in tables]
    assert expected[0] != expected[1]
    assert cell_of(results, "resnet18")["replicates"][0]["value"] == pytest.approx(fmean(expected))
    assert results["warnings"] == ["the runs differ in trainer.precision: 16-mixed, auto"]
    assert any("was run 2 times on different machines or trainers" in note for note in results["notes"])


def test_cells_that_differ_in_more_than_the_factor_are_warned_about_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for fold in range(5):
        write_run(tmp_path / "runs", config_of("resnet18", "sgd", fold=fold))
        write_run(tmp_path / "runs", config_of("resnet34", "adam", fold=fold))
    results, _ = analyse([tmp_path / "runs"])
    (warning,) = results["warnings"]
    for text in ("differ in more than model", "optimizer.name adam and sgd", "optimizer.lr 0.001 and 0.05"):
        assert text in warning
    assert "at equal budget" not in results["families"][0]["comparison"]["pairs"][0]["words"]
    assert all("differ in more than model" in text for text in texts(results, tmp_path, []))
    print_comparison(results, tmp_path)
    assert "warning: resnet34 adam and resnet18 sgd differ in more than model" in capsys.readouterr().out
    # A fair pair beside it: only that one is compared, the other one is still warned about.
    for fold in range(5):
        write_run(tmp_path / "runs", config_of("resnet50", "sgd", fold=fold))
    fair, _ = analyse([tmp_path / "runs"])
    assert [pair["arm"] for family in fair["families"] for pair in family["comparison"]["pairs"]] == [
        "resnet50"
    ]
    assert "resnet34 adam" in fair["warnings"][0]


# --- plans -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"created": "2026-05-02T11:00:00+00:00"}, "it was written after the first run had started"),
        ({"overrides": ["model=resnet18"]}, "its content does not have the hash that it was written with"),
    ],
)
def test_only_an_untouched_plan_from_before_makes_a_comparison_primary(
    copied: Path, change: Any, why: str
) -> None:
    assert analyse([copied])[0]["families"][0]["primary"]
    changed(copied / "sweep.json", lambda content: content.update(change))
    results, _ = analyse([copied])
    assert results["families"][0]["exploratory_because"] == [why]
    assert not results["families"][0]["primary"]


def test_another_score_than_the_plans_is_exploratory(copied: Path) -> None:
    (family,) = analyse([copied], score="case_balanced_accuracy")[0]["families"]
    assert family["exploratory_because"] == ["it fixed score=case_auroc, here score=case_balanced_accuracy"]
    (family,) = analyse([copied], reference="resnet34")[0]["families"]
    assert [pair["arm"] for pair in family["comparison"]["pairs"]] == ["resnet18"]
    assert not family["primary"]


def test_runs_outside_the_plan_and_several_plans_make_it_exploratory(copied: Path, tmp_path: Path) -> None:
    for model in ("resnet18", "resnet34"):
        for fold in range(5):
            write_run(tmp_path / "more", config_of(model, fold=fold, seed=9))
    (family,) = analyse([copied, tmp_path / "more"])[0]["families"]
    assert family["replicates"] == ["seed 0", "seed 1", "seed 9"]
    assert family["exploratory_because"] == ["10 of its runs are no jobs of the plan"]
    second = write_sweep(tmp_path / "second", seeds=(2,))
    (family,) = analyse([copied, second])[0]["families"]
    assert family["exploratory_because"] == ["it joins the runs of 2 plans"]
    changed(copied / "sweep.json", lambda content: content["comparison"]["levels"].append("resnet152"))
    changed(copied / "sweep.json", lambda content: content.update(hash=plan_hash(content)))
    (family,) = analyse([copied])[0]["families"]
    assert family["exploratory_because"] == ["resnet152 is missing"]


def test_a_run_in_a_numbered_folder_is_the_plans_job(copied: Path) -> None:
    folder = folder_of(copied, "resnet34", 2, 1)
    shutil.move(folder, folder.with_name(f"{folder.name}-2"))
    results, runs = analyse([copied])
    assert len(runs) == results["runs"]["finished"] == 20
    assert results["families"][0]["primary"]


def test_the_hash_is_of_the_content_alone() -> None:
    plan = {"schema": 1, "jobs": [{"run": "a"}], "overrides": ["x=1"]}
    assert plan_hash(plan) == plan_hash(plan | {"created": "now", "hash": "?"})
    assert plan_hash(plan) != plan_hash(plan | {"overrides": ["x=2"]})
    assert len(plan_hash(plan)) == 64


def test_a_study_beside_the_runs_gives_its_budget_and_not_its_trials(copied: Path, tmp_path: Path) -> None:
    study = tmp_path / "studies" / "depths"
    write_run(study / "trials", config_of("resnet18", "sgd", test=False))
    edges = [
        {"key": "optimizer.lr", "value": 0.1, "edge": "high"},
        {"key": "head.dropout", "value": 0.3, "edge": None},
    ]
    budget = {"trials": 20, "complete": 15, "pruned": 5, "failed": 0, "epochs": 180}
    best = {"value": 0.91234, "edges": edges}
    write_json(
        study / "study.json", {"by_depth": {"resnet18": {"budget": budget, "best": best}}, "protocol": {}}
    )
    results, runs = analyse([tmp_path])
    assert len(runs) == 20
    text, page = texts(results, tmp_path, [])
    assert "| depths | resnet18 | 20 | 15 | 5 | 0 | 180 | 0.912 | optimizer.lr=0.1 (high) |" in text
    assert "Tuning budget" in page
    assert analyse([study])[1]["optimizer.name"].tolist() == ["sgd"]  # asked for by name
    assert "no record of a hyper-parameter search" in texts(analyse([copied])[0], tmp_path, [])[0]


def test_a_job_without_a_folder_has_the_settings_of_its_overrides(copied: Path) -> None:
    gone = config_of("resnet34", fold=3, seed=1)
    shutil.rmtree(copied / readable_name(gone))
    _, runs = analyse([copied])
    (run,) = [run for _, run in runs.iterrows() if run["folder"] is None]
    expected = {
        "model.name": "resnet34",
        "split.fold": 3,
        "seed": 1,
        "magnification": "40x",
        "optimizer.lr": 1e-3,
    }
    assert {key: run[key] for key in expected} == expected
    assert run["epochs"] == asdict(gone)["epochs"]


# --- selection ---------------------------------------------------------------------------------------------------


def mean_validation(sweep: Path, model: str, level: str, score: str) -> float:
    folders = [folder_of(sweep, model, fold, seed) for fold in range(5) for seed in (0, 1)]
    return fmean(read(folder / "metrics.json")["val"][level][score]["value"] for folder in folders)


@pytest.mark.parametrize(
    ("select", "level", "score"), [("best", "case", "auroc"), ("val_image_log_loss", "image", "log_loss")]
)
def test_select_takes_the_best_by_validation(swept: Path, select: str, level: str, score: str) -> None:
    results, _ = analyse([swept], select=select)
    choice = results["selection"]["choices"][0]
    assert choice["magnification"] == "40x"
    means = {model: mean_validation(swept, model, level, score) for model in ("resnet18", "resnet34")}
    assert choice["candidates"] == pytest.approx(means)
    better = min if score == "log_loss" else max
    assert choice["arm"] == better(means, key=lambda model: means[model])
    assert "optimistic" in results["selection"]["warning"]
    assert sorted(choice["runs"]) == sorted(
        folder_of(swept, choice["arm"], fold, seed).name for fold in range(5) for seed in (0, 1)
    )
    assert choice["test_read"] == 10
    assert [one["fold"] for one in choice["by_fold"]] == [0, 1, 2, 3, 4]
    assert choice["next"] is None


@pytest.mark.parametrize("select", ["test_case_auroc", "test", "test_image_accuracy"])
def test_a_selection_by_test_scores_is_refused_with_the_reason(swept: Path, select: str) -> None:
    with pytest.raises(UserError, match=r"a selection made on test scores.*select=best"):
        analyse([swept], select=select)


def test_other_selections_are_refused_with_what_is_allowed(swept: Path) -> None:
    with pytest.raises(
        UserError, match="give best, a validation score such as val_case_auroc, or the name of a run"
    ):
        analyse([swept], select="val_case_aurok")


def test_unread_test_parts_say_what_to_score_next_and_how(tmp_path: Path) -> None:
    for model in ("resnet18", "resnet34"):
        write_run(tmp_path / "my runs", config_of(model, test=False))
    results, _ = analyse([tmp_path / "my runs"], select="best")
    choice = results["selection"]["choices"][0]
    assert results["selection"]["warning"] is None  # one outer fold: nothing is optimistic
    assert (choice["test_read"], choice["next"]["test_unread"]) == (0, True)
    folder = tmp_path / "my runs" / choice["runs"][0]
    assert choice["next"]["command"].startswith("python -m histo_lightning.evaluate 'checkpoint=")
    assert f"{folder}/checkpoints/best.ckpt' part=test dataset=synthetic" in choice["next"]["command"]
    assert results["families"] == []
    assert "test=false" in results["refusals"][0]["reasons"][0]
    text, _ = texts(results, tmp_path, [])
    assert "left its test set unread" in text
    assert choice["next"]["command"] in text
    assert cell_of(results, "resnet18")["val"] is not None
    one, _ = analyse([tmp_path / "my runs"], select=choice["runs"][0])
    assert one["selection"]["run"]["command"] == choice["next"]["command"]


# --- arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"score": "auroc"}, "give <level>_<score>"),
        ({"score": "case_patient_recognition_rate"}, "slide_patient_recognition_rate"),
        ({"factor": "modle"}, "did you mean 'model'"),
        ({"factor": "split.name"}, "never compared in one family"),
        ({"reference": "resnet81"}, "did you mean 'resnet18'"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(swept: Path, options: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)) as refused:
        analyse([swept], **options)
    assert "\n" not in str(refused.value)


def test_a_run_folder_is_not_overwritten(swept: Path) -> None:
    folder = folder_of(swept, "resnet18")
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(UserError, match="is a run folder"):
        compare_runs([swept], folder)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_folders_are_found_at_any_depth_and_listed_with_commas(tmp_path: Path) -> None:
    for name in ("a, b/runs/one", "c/two", "c/.hidden/three", "c/two/checkpoints/inner"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "status.json").write_text("{}")
    assert [path.name for path in find_folders([tmp_path])[0]] == ["one", "two"]
    both = f"[{tmp_path}/a, b,{tmp_path}/c]"
    assert listed_folders(both) == [tmp_path / "a, b", tmp_path / "c"]
    assert listed_folders(f"[ '{tmp_path}/c' , \"{tmp_path}/a, b\"]") == [tmp_path / "c", tmp_path / "a, b"]
    assert listed_folders(f"{tmp_path}/a, b") == [tmp_path / "a, b"]
    for wrong, told in (
        ("", "is needed"),
        (f"{tmp_path}/x", "does not exist"),
        (f"[{tmp_path}/c,y]", "runs=y: does not"),
    ):
        with pytest.raises(UserError, match=re.escape(told)):
            listed_folders(wrong)


def test_levels_are_sorted_by_size() -> None:
    assert sorted(["resnet101", "resnet18", "resnet50"], key=natural) == ["resnet18", "resnet50", "resnet101"]
    assert sorted(["0.05", "1e-05", "10", "0.001"], key=natural) == ["1e-05", "0.001", "0.05", "10"]


# --- files -------------------------------------------------------------------------------------------------------


def test_cells_that_a_spreadsheet_would_run_come_back_unchanged(tmp_path: Path) -> None:
    hostile = '=cmd|"/c calc"!A1, <script>alert(1)</script>\nsecond line'
    name = "-2+3_<b>&_run"
    write_run(tmp_path / "runs", config_of(), state="failed", error=hostile, name=name)
    write_run(tmp_path / "runs", config_of("resnet34"))
    out = tmp_path / "out"
    compare_runs([tmp_path / "runs"], out)
    raw = (out / "results.csv").read_text()
    assert "\n=" not in raw
    assert ",=" not in raw
    assert not re.search(r"(^|,)\"?[-+@=][^0-9]", raw.split("\n", 1)[1])
    (row,) = [row for row in rows_of(out / "results.csv") if row["state"] == "failed"]
    assert (row["run"], row["error"]) == (name, hostile)
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "<b>&_run" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>" not in (out / "results.md").read_text().replace(r"\<script\>", "")


def test_the_report_has_everything_that_the_protocol_asks_for(answered: tuple[Path, dict[str, Any]]) -> None:
    out, results = answered
    page = (out / "report.html").read_text()
    body = " ".join(unescape(re.sub(r"<[^>]*>", " ", page.split("<body>")[1])).split())
    text = (out / "results.md").read_text()
    for told in (
        "resnet34 minus resnet18",
        "simultaneous 95 %",
        "Primary: the one comparison that was fixed before the first job.",
        "equivalence within +-1 point",
        "Nadeau-Bengio",
        "P(within 1 point)",
        "Friedman over 5 folds",
        "Descriptive",
        "16 benign and 54 malignant cases",
        "seed sd",
        "fold sd",
        "case SE",
        "all pairs",
        "detectable from",
        "train loss reached",
        "The test set was read",
        "before the first job started",
        "Tuning:",
        "Selection: largest mean validation case auroc",
    ):
        assert told in body, told
        assert told in text.replace("\\", ""), told
    assert results["plans"][0]["hash"] in body
    assert not re.search(r"\b(equal to|best depth|patient-level)\b", body)
    assert re.findall(r"(?:src|href)=\"(?!data:)", page) == []
    assert "default-src 'none'" in page
    assert page.count("<img") == 7
    assert {path.name for path in (out / "plots").iterdir()} == {
        f"{name}.png" for name in ("forest", "ranks", "heat_map", "cost", "roc", "confusion", "curves")
    }


def test_numbers_of_the_page_are_those_of_the_json(answered: tuple[Path, dict[str, Any]]) -> None:
    out, results = answered
    text = (out / "results.md").read_text()
    for cell in results["cells"]:
        assert f"{cell['value']:.3f} ({cell['low']:.2f} to {cell['high']:.2f})" in text
    json.dumps(results, allow_nan=False)


def test_pictures_of_an_earlier_comparison_do_not_stay(tmp_path: Path, swept: Path) -> None:
    plots = tmp_path / "plots"
    plots.mkdir()
    for name in ("forest.png", "ranks-2.svg", "mine.png"):
        (plots / name).write_bytes(b"old")
    write_run(tmp_path / "runs", config_of(), state="failed", error="boom")
    results = compare_runs([tmp_path / "runs"], tmp_path)
    assert sorted(path.name for path in plots.iterdir()) == ["mine.png"]
    assert results["families"] == []
    assert (tmp_path / "results.csv").is_file()
    assert "No comparison: only resnet18 was run" in (tmp_path / "results.md").read_text()
    assert "no run has been scored" in (tmp_path / "report.html").read_text()


def test_runs_of_which_nothing_is_known_are_rows_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "runs" / "early").mkdir(parents=True)
    (tmp_path / "runs" / "early" / "status.json").write_text("{}")
    results = compare_runs([tmp_path / "runs"], tmp_path / "out")
    assert results["runs"]["damaged"] == 1
    (row,) = rows_of(tmp_path / "out" / "results.csv")
    assert (row["run"], row["state"], row["model"]) == ("early", "damaged", "")
    assert "1 run: 1 damaged." in (tmp_path / "out" / "results.md").read_text()


def test_one_run_is_a_table_without_a_comparison(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", config_of())
    results, _ = analyse([tmp_path / "runs"])
    (cell,) = results["cells"]
    assert cell["value"] is None
    assert cell["mean_of_runs"] is not None
    assert cell["problems"] == ["resnet18 40x seed 0: folds 1, 2, 3, 4 are missing (no such run)"]
    assert results["refusals"][0]["reasons"] == [
        "only resnet18 was run, so there is nothing to compare it with"
    ]


def test_nothing_to_compare_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no run; give a run folder, a sweep folder"):
        compare_runs([tmp_path / "empty"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_score_columns_are_complete() -> None:
    assert len(SHOWN_SCORES) == len(set(SHOWN_SCORES)) == 3 * 9 + 1
    assert SHOWN_SCORES[0] == "case_auroc"
    assert "slide_patient_recognition_rate" in SHOWN_SCORES


# --- what is never pooled ------------------------------------------------------------------------------------------


def test_every_score_is_compared_or_refused_with_what_is_allowed(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", magnifications=("40x",), seeds=(0,))
    scored = read(folder_of(sweep, "resnet18") / "metrics.json")["test"]
    values = {
        f"{level}_{name}"
        for level in ("image", "slide", "case")
        for name, entry in scored[level].items()
        if isinstance(entry, dict) and "method" in entry
    }
    assert {"case_f1", "image_mcc", "case_ece", "slide_patient_recognition_rate"} <= values
    allowed = values & set(score_names())
    assert {"case_f1", "image_mcc", "case_auroc", "case_brier", "slide_patient_recognition_rate"} <= allowed
    assert "case_ece" not in allowed
    for score in sorted(values - allowed):
        with pytest.raises(UserError, match="give <level>_<score> with level image, slide, case and score"):
            analyse([sweep], score=score)
    for score in sorted(allowed):
        results, _ = analyse([sweep], score=score)
        (pair,) = results["families"][0]["comparison"]["pairs"]
        cells = [cell_of(results, model)["value"] for model in ("resnet34", "resnet18")]
        assert pair["difference"] == pytest.approx(cells[0] - cells[1], abs=1e-12), score


def test_shortened_runs_are_left_out_and_named(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = folder_of(copied, "resnet34", 2, 1)
    changed(short / "metrics.json", lambda metrics: metrics.update(shortened="limit_train_batches=2"))
    results, runs = analyse([copied])
    assert results["warnings"] == [
        f"shortened runs are never pooled or compared, left out: {short.name} (limit_train_batches=2)"
    ]
    assert (results["runs"]["finished"], results["runs"]["shortened"]) == (19, 1)
    assert results["families"][0]["replicates"] == ["seed 0"]
    assert [row["state"] for row in rows_in(runs) if row["run"] == short.name] == ["shortened"]
    assert (
        "fold 2 is missing (shortened: limit_train_batches=2)" in cell_of(results, "resnet34")["problems"][0]
    )
    print_comparison(results, copied)
    assert "shortened runs are never pooled" in " ".join(capsys.readouterr().out.split())


def test_drawn_images_are_said_and_never_pooled_with_real_ones(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, _ = analyse([copied])
    assert results["data"] == "synthetic"
    print_comparison(results, copied)
    assert "SYNTHETIC IMAGES: says nothing about tissue" in capsys.readouterr().out
    for folder in copied.glob("resnet*"):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["dataset"]["name"] = "breakhis"
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        if folder.name.startswith("resnet34"):
            changed(folder / "metrics.json", lambda metrics: metrics.update(data="synthetic"))
    results, _ = analyse([copied])
    assert results["worlds"] == ["breakhis, case_kfold of 5", "breakhis, case_kfold of 5, drawn images"]
    assert (results["families"], results["data"]) == ([], "synthetic")
    for folder in copied.glob("resnet34*"):
        changed(folder / "metrics.json", lambda metrics: metrics.update(data="breakhis"))
    results, _ = analyse([copied])
    assert (len(results["families"]), results["data"]) == (1, None)


@pytest.mark.parametrize("name", ["metrics.json", "status.json", "config.yaml"])
def test_a_damaged_file_is_said_in_one_line_and_never_taken_for_an_empty_one(copied: Path, name: str) -> None:
    folder = folder_of(copied, "resnet34", 1, 1)
    (folder / name).write_bytes((folder / name).read_bytes()[:25] + b"\x00: [")
    results, _ = analyse([copied])
    (row,) = results["unfinished"]
    assert (row["run"], row["state"]) == (folder.name, "damaged")
    assert re.fullmatch(rf"{re.escape(name)}: is damaged \(it is not \w+\); restore it, .+", row["error"])
    assert "\n" not in row["error"]
    assert results["families"][0]["replicates"] == ["seed 0"]

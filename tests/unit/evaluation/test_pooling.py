"""Folds scored together: pairs within a fold, warnings, and the cases a score hangs on."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics
from sklearn.metrics import average_precision_score

from factories.predictions import check_plain_json, random_table, whole_set
from histo_lightning.errors import UserError
from histo_lightning.evaluation import (
    Table,
    influence_table,
    pool,
    score_pooled,
    score_predictions,
    write_predictions,
)
from histo_lightning.evaluation.levels import units
from histo_lightning.evaluation.registry import all_scores


def folds(table: Table, count: int = 3) -> list[Table]:
    """Test parts with disjoint cases, both classes in each."""
    number = np.unique(table.case, return_inverse=True)[1]
    return [table.rows(number % count == k) for k in range(count)]


def brute_force_within(parts: list[Table]) -> float:
    right = pairs = 0.0
    for part in parts:
        benign, malignant = (part.p_malignant[part.malignant == c] for c in (0, 1))
        for b, m in product(benign, malignant):
            pairs += 1
            right += 1.0 if b < m else 0.5 if b == m else 0.0
    return right / pairs


def test_one_fold_pooled_is_the_fold() -> None:
    table = random_table(8, 9, 0)
    alone, pooled = score_predictions(table, draws=150), score_pooled([table], draws=150)
    for level in alone:
        assert pooled[level]["auroc"].pop("pooled") == pytest.approx(alone[level]["auroc"]["value"])
        assert pooled[level]["auroc"].pop("warning") is None
    assert pooled == alone


def test_pooled_auroc_counts_pairs_within_folds() -> None:
    parts = folds(random_table(9, 12, 1))
    found = score_pooled(parts, draws=150)
    check_plain_json(found)
    whole, fold = pool(parts)
    assert found["image"]["auroc"]["value"] == pytest.approx(brute_force_within(parts))
    assert found["image"]["auroc"]["pooled"] == pytest.approx(
        metrics.roc_auc_score(whole.label, whole.p_malignant)
    )
    expected = np.mean([average_precision_score(part.label, part.p_malignant) for part in parts])
    assert found["image"]["auprc"]["value"] == pytest.approx(expected)
    assert found["image"]["accuracy"]["value"] == pytest.approx((whole.label == whole.predicted).mean())
    assert fold.tolist() == sorted(fold.tolist())
    low, high = found["image"]["auroc"]["low"], found["image"]["auroc"]["high"]
    assert low < found["image"]["auroc"]["value"] < high


@pytest.mark.parametrize("level", ["image", "slide", "case"])
def test_scores_by_fold_are_means_over_folds_and_draws_count_as_repeated_units_do(level: str) -> None:
    whole, fold = pool(folds(random_table(9, 12, 1)))
    here = units(whole, level, fold=fold)
    by_fold = {
        s.name: [s.value(here.chosen(here.fold == k)) for k in range(3)] for s in all_scores(level=level)
    }
    for score in all_scores(level=level):
        if score.per_fold:
            defined = [value for value in by_fold[score.name] if np.isfinite(value)]
            expected = np.mean(defined) if defined else np.nan
            assert score.value(here) == pytest.approx(expected, nan_ok=True), score.name
    weights = np.random.default_rng(0).integers(1, 3, (1, len(here.cases)))
    twice = here.chosen(np.repeat(np.arange(len(here)), weights[0][here.case]))
    for score in all_scores(level=level):
        if not score.no_interval:
            assert score.statistic(here)(weights)[0] == pytest.approx(score.value(twice), rel=1e-5), (
                score.name
            )


def test_folds_of_different_scale_get_a_warning() -> None:
    """A model without skill that outputs its training prevalence: within folds .5, pooled well below."""
    parts = []
    for k, part in enumerate(folds(random_table(9, 30, 1), 3)):
        some = (
            part
            if k != 0
            else part.rows((part.malignant == 0) | (part.case == part.case[part.malignant == 1][0]))
        )
        prevalence = 1 - some.malignant.mean() * 0.2
        parts.append(
            replace(
                some,
                logits=np.tile([0.0, 1.0], (len(some), 1)),
                p_malignant=np.full(len(some), prevalence),
                predicted=np.ones(len(some), np.int64),
            )
        )
    found = score_pooled(parts, draws=120)["image"]["auroc"]
    assert found["value"] == 0.5
    assert found["pooled"] < 0.47
    assert "pairs within folds give 0.500" in found["warning"]


def test_a_fold_of_one_class_is_left_out_of_the_means() -> None:
    parts = folds(random_table(9, 12, 1))
    parts[0] = parts[0].rows(parts[0].malignant == 1)
    found = score_pooled(parts, draws=150)
    check_plain_json(found)
    expected = np.mean([average_precision_score(part.label, part.p_malignant) for part in parts[1:]])
    assert found["image"]["auprc"]["value"] == pytest.approx(expected)
    assert found["image"]["auroc"]["value"] == pytest.approx(brute_force_within(parts[1:]))


def test_eight_class_folds_and_files(tmp_path: Path) -> None:
    parts = folds(random_table(20, 25, 4, "subtype"))
    for k, part in enumerate(parts):
        write_predictions(tmp_path / f"{k}.csv", part)
    found = score_pooled(parts, draws=120)
    check_plain_json(found)
    assert found == score_pooled([tmp_path / f"{k}.csv" for k in range(3)], draws=120)
    whole, _ = pool(parts)
    p = np.exp(whole.logits) / np.exp(whole.logits).sum(axis=1, keepdims=True)
    expected = metrics.roc_auc_score(whole.label, p, multi_class="ovr")
    assert found["image"]["auroc"]["pooled"] == pytest.approx(expected)
    assert found["image"]["binary"]["auroc"]["pooled"] == pytest.approx(
        metrics.roc_auc_score(whole.malignant, whole.p_malignant)
    )


def test_overlapping_or_mixed_parts_are_refused() -> None:
    parts = folds(random_table(9, 12, 1))
    with pytest.raises(UserError, match=r"image \S+ is in two folds"):
        score_pooled([*parts, parts[0]])
    with pytest.raises(UserError, match="at least one table"):
        score_pooled([])
    with pytest.raises(UserError, match="all of one task"):
        score_pooled([parts[0], random_table(3, 3, 0, "subtype")])
    torn = [parts[0].rows(np.arange(len(parts[0])) % 2 == k) for k in (0, 1)]
    with pytest.raises(UserError, match=r"case \S+ has two classes or is in two folds"):
        score_pooled(torn)


def test_unknown_grouping_pools_at_image_level_only() -> None:
    parts = [replace(part, case=np.full(len(part), "")) for part in folds(random_table(9, 12, 1))]
    found = score_pooled(parts, draws=120)
    check_plain_json(found)
    assert found["image"]["auroc"]["value"] == pytest.approx(brute_force_within(parts))
    assert found["case"]["auroc"]["value"] is None


def test_influence_is_the_score_without_the_case(census_records) -> None:
    table = whole_set(census_records)
    found = influence_table(table)
    for case, entry in found["without"].items():
        rest = table.rows(table.case != case)
        expected = metrics.roc_auc_score(rest.label, rest.p_malignant)
        assert entry["value"] == pytest.approx(expected)
        assert entry["change"] == pytest.approx(
            expected - metrics.roc_auc_score(table.label, table.p_malignant)
        )
    assert list(found["without"]) == ["14-21998", "14-22549"]
    changes = {
        case: abs(metrics.roc_auc_score(table.label[keep], table.p_malignant[keep]) - found["value"])
        for case, keep in ((case, table.case != case) for case in np.unique(table.case))
    }
    assert found["largest"]["case"] == max(changes, key=changes.__getitem__)
    check_plain_json(found)


def test_influence_of_absent_cases_and_of_unknown_ones() -> None:
    table = random_table(5, 6, 0)
    found = influence_table(table)
    assert found["without"] == {"14-21998": None, "14-22549": None}
    rest = table.rows(table.case != found["largest"]["case"])
    expected = score_predictions(rest, intervals=False)["image"]["auroc"]["value"]
    assert found["largest"]["value"] == pytest.approx(expected)
    with pytest.raises(UserError, match="influence is by case"):
        influence_table(replace(table, case=np.full(len(table), "")))


def test_influence_where_the_score_is_undefined() -> None:
    table = random_table(4, 4, 0)
    found = influence_table(table.rows(table.malignant == 1))
    assert found["value"] is None
    assert found["largest"] is None

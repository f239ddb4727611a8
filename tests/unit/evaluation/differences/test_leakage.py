"""The arms' scores and differences against scikit-learn, refits by hand, and a simulation with a known effect."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, logit
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from histo_lightning.evaluation.differences.leakage import (
    MANY_SLIDES,
    SCORES,
    TOUCHED,
    UNTOUCHED,
    contrast,
    estimate,
    image_scores,
    injection,
    official,
    side_by_side,
    whole_block,
)

CASES = 24  # six benign; the case's number says its fold


def fabricate(
    rng: np.random.Generator,
    *,
    fold: int,
    effect: float = 0.0,
    case_effects: np.ndarray | None = None,
    cases: Iterable[int] = range(CASES),
    images: int = 4,
    slides: int = 1,
    noise: np.ndarray | None = None,
) -> pd.DataFrame:
    """Predictions of one fold: margin = class + case effect + ``effect`` + image noise."""
    effects = np.zeros(CASES) if case_effects is None else case_effects
    place = pd.DataFrame([(c, i) for c in cases if c % 3 == fold for i in range(images)], columns=["c", "i"])
    noise = rng.normal(size=(CASES, images)) if noise is None else noise
    malignant = (place.c % 4 != 0).astype(int)
    margin = 1.0 + effect + effects[place.c] + noise[place.c, place.i]
    return pd.DataFrame(
        {
            "image": place.c.map(str) + "-" + place.i.map(str),
            "slide": place.c.map(str) + (place.i % slides).map(lambda slide: "AB"[slide]),
            "case": place.c.map("14-{:02d}".format),
            "malignant": malignant,
            "p": expit(np.where(malignant, margin, -margin)),
        }
    )


def runs_of(rng, arm: str = "leaky", seeds=(0, 1, 2), **settings) -> pd.DataFrame:
    """Predictions of an arm's runs: three folds of each seed."""
    return joined(arm, {(s, 100, f): fabricate(rng, fold=f, **settings) for s in seeds for f in range(3)})


def joined(arm: str, runs: dict[tuple[int, int, int], pd.DataFrame]) -> pd.DataFrame:
    names = ["seed", "magnification", "fold"]
    return pd.concat(
        [rows.assign(arm=arm, **dict(zip(names, key, strict=True))) for key, rows in runs.items()],
        ignore_index=True,
    )


def apart(rows: pd.DataFrame, score: str) -> dict:
    """The difference of the arms leaky and clean on their common images."""
    return estimate(side_by_side(rows.assign(among="all"), ["leaky", "clean"])[0], BOTH, score)


BOTH = {("leaky", "all"): 1.0, ("clean", "all"): -1.0}
ALONE = {("leaky", "all"): 1.0}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260101)


def sklearn_score(rows: pd.DataFrame, score: str) -> float:
    if score == "auroc":  # pairs of one fold only, pooled
        folds = [own for _, own in rows.groupby("fold")]
        pairs = [own.malignant.sum() * (1 - own.malignant).sum() for own in folds]
        return float(np.average([roc_auc_score(own.malignant, own.p) for own in folds], weights=pairs))
    formula = {"balanced_accuracy": balanced_accuracy_score, "accuracy": accuracy_score}[score]
    return float(formula(rows.malignant, rows.p >= 0.5))


@pytest.mark.parametrize("score", SCORES)
def test_a_difference_is_section_5_written_out(rng, score: str) -> None:
    effects = rng.normal(size=CASES)
    rows = pd.concat(
        [
            runs_of(rng, "leaky", effect=0.8, case_effects=effects),
            runs_of(rng, "clean", case_effects=effects),
        ],
        ignore_index=True,
    )
    found = apart(rows, score)

    def difference(seed: int, without: str = "") -> float:
        own = rows[(rows.seed == seed) & (rows.case != without)]
        return sklearn_score(own[own.arm == "leaky"], score) - sklearn_score(own[own.arm == "clean"], score)

    per_seed = [difference(s) for s in range(3)]
    assert found["by_seed"] == pytest.approx(per_seed)
    assert found["value"] == pytest.approx(np.mean(per_seed))
    assert found["seed_sd"] == pytest.approx(np.std(per_seed, ddof=1))
    variances, dfs = [], []
    for benign in (True, False):
        names = [f"14-{c:02d}" for c in range(CASES) if (c % 4 == 0) == benign]
        left = np.array([np.mean([difference(s, name) for s in range(3)]) for name in names])
        variances.append((len(names) - 1) / len(names) * ((left - left.mean()) ** 2).sum())
        dfs.append(len(names) - 1)
    variances.append(np.var(per_seed, ddof=1) / 3)
    dfs.append(2)
    se = np.sqrt(sum(variances))
    df = se**4 / sum(v**2 / d for v, d in zip(variances, dfs, strict=True))
    assert (found["se"], found["df"]) == (pytest.approx(se), pytest.approx(df))
    assert found["case_se"] == pytest.approx(np.sqrt(variances[0] + variances[1]))
    low, high = stats.t.interval(0.95, df, loc=found["value"], scale=se)
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    assert found["p"] == pytest.approx(2 * stats.t.sf(abs(found["value"] / se), df))
    assert (found["cases"], found["benign"], found["images"]) == (CASES, 6, 96)
    coverage = side_by_side(rows, ["leaky", "clean"])[1]
    assert coverage == {"seeds": [0, 1, 2], "magnifications": [100], "folds": [0, 1, 2], "runs_left_out": 0}


@pytest.mark.parametrize("score", SCORES)
def test_ties_and_every_case_left_out_agree_with_scikit_learn(rng, score: str) -> None:
    rows = runs_of(rng, seeds=(0,), case_effects=rng.normal(size=CASES))
    rows["p"] = expit(np.round(logit(rows.p)))
    cases = np.unique(rows.case)
    values = image_scores(rows, cases, score)
    assert values[0] == pytest.approx(sklearn_score(rows, score))
    for value, name in zip(values[1:], cases, strict=True):
        assert value == pytest.approx(sklearn_score(rows[rows.case != name], score))


def test_an_image_in_several_folds_counts_in_each(rng) -> None:
    """Official folds test a case several times: pairs stay within folds, a case is left out of all of them."""
    rows = joined("official", {(0, 100, fold): fabricate(rng, fold=0) for fold in (1, 2)})
    cases = np.unique(rows.case)
    values = image_scores(rows, cases, "auroc")
    assert values[0] == pytest.approx(sklearn_score(rows, "auroc"))
    assert values[1] == pytest.approx(sklearn_score(rows[rows.case != cases[0]], "auroc"))


def test_the_interval_of_a_score_stays_within_its_limits(rng) -> None:
    rows = runs_of(rng, effect=0.4, case_effects=rng.normal(size=CASES)).assign(among="all")
    found = estimate(rows, ALONE, "auroc")
    assert 0 < found["low"] < found["value"] < found["high"] < 1
    assert found["t"] is None
    found = estimate(rows.assign(p=expit(8.0 * rows.malignant - 4)), ALONE, "auroc")
    assert (found["value"], found["low"]) == (1.0, None)
    assert "no spread" in found["reason"]


def test_one_seed_is_said_to_be_conditional_and_undefined_scores_have_a_reason(rng) -> None:
    rows = runs_of(rng, seeds=(0,), case_effects=rng.normal(size=CASES)).assign(among="all")
    found = estimate(rows, ALONE, "auroc")
    assert found["conditional"].startswith("conditional on the fitted models")
    assert found["seed_se"] is None
    malignant = rows[rows.malignant == 1]
    for score in ("auroc", "balanced_accuracy"):
        found = estimate(malignant, ALONE, score)
        assert found["value"] is None
        assert "one class only" in found["reason"]
    assert estimate(malignant, ALONE, "accuracy")["low"] is not None
    found = estimate(rows[(rows.malignant == 1) | (rows.case == "14-00")], ALONE, "auroc")
    assert found["value"] is not None
    assert found["low"] is None
    assert "single case" in found["reason"]


def test_an_arm_without_images_at_one_magnification_has_no_score(rng) -> None:
    rows = runs_of(rng).assign(among="all")
    other = rows.assign(magnification=200, image="x" + rows.image, among="other")
    found = estimate(pd.concat([rows, other]), ALONE, "auroc")
    assert (found["value"], found["magnifications"]) == (None, 2)


def test_what_is_missing_is_left_out_of_both_arms(rng) -> None:
    def block(keys: set[tuple[int, int, int]]) -> set[tuple[int, int, int]]:
        index = pd.MultiIndex.from_tuples(sorted(keys), names=["seed", "magnification", "fold"])
        return set(whole_block(pd.Series(1, index=index)))

    keys = {(s, 100, f) for s in range(3) for f in range(5)}
    assert block(keys) == keys
    assert block(keys - {(1, 100, 2)}) == {k for k in keys if k[2] != 2}  # loses 2 runs, the seed 4
    assert block(keys - {(1, 100, f) for f in range(4)}) == {k for k in keys if k[0] != 1}
    rows = pd.concat([runs_of(rng, "leaky"), runs_of(rng, "clean")], ignore_index=True)
    rows = rows[~((rows.arm == "leaky") & (rows.seed == 2) & (rows.fold == 1))]
    kept, coverage = side_by_side(rows, ["leaky", "clean"])
    assert coverage["folds"] == [0, 2]
    assert coverage["runs_left_out"] == 2 + 3
    assert set(kept.seed) == {0, 1, 2}
    images = [set(own.image) for _, own in kept.groupby(["arm", "seed"])]
    assert images == [images[0]] * 6
    assert side_by_side(rows, ["leaky", "nowhere"])[0].empty


def test_arms_with_other_images_are_compared_on_the_common_ones(rng) -> None:
    rows = pd.concat([runs_of(rng, "leaky"), runs_of(rng, "clean")], ignore_index=True)
    kept, _ = side_by_side(rows[(rows.arm == "clean") | (rows.case != "14-03")], ["leaky", "clean"])
    assert "14-03" not in set(kept.case)


def test_a_known_leak_is_found_with_its_dose_and_no_leak_is_not(rng) -> None:
    effects = rng.normal(size=CASES)
    noise = {(s, f): rng.normal(size=(CASES, 4)) for s in range(5) for f in range(3)}

    def arm(name: str, effect: float) -> pd.DataFrame:
        runs = {
            (s, 100, f): fabricate(rng, fold=f, effect=effect, case_effects=effects, noise=n)
            for (s, f), n in noise.items()
        }
        return joined(name, runs)

    arms = {"injected 0": 0.0, "injected 0.25": 0.0, "injected 0.5": 0.8, "injected 1": 1.6}
    block = injection(pd.concat([arm(*each) for each in arms.items()], ignore_index=True))
    assert [r["arm"] for r in block["arms"]] == list(arms)
    values = [r["auroc"]["value"] for r in block["arms"]]
    assert values[0] == values[1] < values[2] < values[3]
    null, half, full = block["pairs"]
    assert null["auroc"]["value"] == 0  # the same predictions: no spread either
    assert null["auroc"]["p_holm"] is None
    assert half["auroc"]["low"] > 0
    assert half["auroc"]["value"] < full["auroc"]["value"]
    assert full["auroc"]["p_holm"] == pytest.approx(
        max(min(2 * full["auroc"]["p"], 1), 0) if full["auroc"]["p"] <= half["auroc"]["p"] else
        max(full["auroc"]["p"], 2 * half["auroc"]["p"])
    )  # fmt: skip


def test_slides_are_compared_on_cases_with_several_slides_only(rng) -> None:
    effects = rng.normal(size=CASES)

    def arm(name: str, effect: float) -> pd.DataFrame:
        few = runs_of(rng, name, effect=0.0, case_effects=effects, cases=range(8))
        many = runs_of(rng, name, effect=effect, case_effects=effects, cases=range(8, CASES), slides=2)
        return pd.concat([few, many], ignore_index=True)

    arms = {"slide_kfold": 2.0, "case_kfold": 0.0, "image_random": 3.0}
    rows = pd.concat([arm(*each) for each in arms.items()], ignore_index=True)
    block = contrast(rows)
    assert [(r["arm"], r["among"]) for r in block["pairs"]] == [
        ("image_random", "all images"),
        ("slide_kfold", MANY_SLIDES),
    ]
    slides = block["pairs"][1]
    assert slides["auroc"]["cases"] == 16
    assert slides["auroc"]["value"] > 0
    alone = contrast(rows[rows.arm == "image_random"])
    assert alone["pairs"] == []
    assert len(alone["arms"]) == 1


def test_official_folds_show_the_leak_on_touched_images_only(rng) -> None:
    effects = 0.5 * rng.normal(size=CASES)
    shared = {f: [f"14-{c:02d}" for c in range(12) if c % 3 == f] for f in range(3)}
    noise = {(s, f): rng.normal(size=(CASES, 4)) for s in range(4) for f in range(3)}

    def arm(name: str, on_touched: float) -> pd.DataFrame:
        lifted = effects + on_touched * (np.arange(CASES) < 12)
        runs = {
            (s, 100, f): fabricate(rng, fold=f, case_effects=lifted, noise=n) for (s, f), n in noise.items()
        }
        return joined(name, runs)

    arms = {"official": 0.0, "official clean": -1.5, "official matched": 0.0}
    block = official(pd.concat([arm(*each) for each in arms.items()], ignore_index=True), shared)
    pairs = {(r["arm"], r["reference"], r["among"]): r["auroc"] for r in block["pairs"]}
    assert len(pairs) == 9
    assert pairs["official", "official clean", TOUCHED]["value"] > 0.1
    assert pairs["official", "official clean", UNTOUCHED]["value"] == 0
    assert pairs["official", "official matched", TOUCHED]["value"] == 0
    both = pairs["official", "official clean", "touched minus untouched"]
    assert both["value"] == pytest.approx(pairs["official", "official clean", TOUCHED]["value"])
    arms = {(r["arm"], r["among"]): r["auroc"]["value"] for r in block["arms"]}
    assert arms["official", "touched minus untouched"] == pytest.approx(
        arms["official", TOUCHED] - arms["official", UNTOUCHED]
    )
    untouched = pd.concat([arm("official", 0.0), arm("official clean", 0.0)], ignore_index=True)
    no_touch = official(untouched, {})
    assert {r["among"] for r in no_touch["pairs"]} == {UNTOUCHED}

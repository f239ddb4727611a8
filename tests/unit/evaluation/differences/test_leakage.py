"""The arms' scores and differences against scikit-learn, refits by hand, and a simulation with a known effect."""

from collections.abc import Iterable

import numpy as np
import pytest
from histo_lightning.evaluation.leakage import FORMULAS, SCORES, Rows, auroc, cases_of, estimate, rows_of
from histo_lightning.evaluation.leakage_arms import (
    MANY,
    TOUCHED,
    UNTOUCHED,
    contrast,
    injection,
    many_slide_cases,
    official,
    side_by_side,
    whole_block,
)
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from histo_lightning.evaluation.table import Table
from histo_lightning.evaluation.table_checks import make_table

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
) -> Table:
    """Predictions of one fold: margin = class + case effect + ``effect`` + image noise."""
    effects = np.zeros(CASES) if case_effects is None else case_effects
    rows = [(c, i) for c in cases if c % 3 == fold for i in range(images)]
    malignant = np.array([c % 4 != 0 for c, _ in rows])
    noise = rng.normal(size=(CASES, images)) if noise is None else noise
    margin = np.array([1.0 + effect + effects[c] + noise[c, i] for c, i in rows])
    logit = np.where(malignant, margin, -margin)
    slide = [f"DC-14-{c}{'AB'[i % slides]}" if m else f"A-14-{c}{'AB'[i % slides]}"
             for (c, i), m in zip(rows, malignant, strict=True)]  # fmt: skip
    return make_table(
        "binary",
        image=[f"{c}-{i}.png" for c, i in rows],
        path=[f"{c}-{i}.png" for c, i in rows],
        class_name=["malignant" if m else "benign" for m in malignant],
        subtype=["DC" if m else "A" for m in malignant],
        slide=slide,
        case=[f"14-{c:02d}" for c, _ in rows],
        magnification=[100] * len(rows),
        part="test",
        logits=np.column_stack([np.zeros(len(rows)), logit]),
    )


def runs_of(rng, seeds=(0, 1, 2), **settings):
    return {(s, 100, f): fabricate(rng, fold=f, **settings) for s in seeds for f in range(3)}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260101)


def sklearn_score(tables: list[Table], score: str) -> float:
    truth = np.concatenate([t.malignant for t in tables])
    p = np.concatenate([t.p_malignant for t in tables])
    if score == "auroc":  # pairs of one fold only, pooled
        pairs = [int(t.malignant.sum() * (1 - t.malignant).sum()) for t in tables]
        return float(np.average([roc_auc_score(t.malignant, t.p_malignant) for t in tables], weights=pairs))
    return float(
        {"balanced_accuracy": balanced_accuracy_score, "accuracy": accuracy_score}[score](truth, p >= 0.5)
    )


@pytest.mark.parametrize("score", SCORES)
def test_a_difference_is_section_5_written_out(rng, score: str) -> None:
    effects = rng.normal(size=CASES)
    leaky = runs_of(rng, effect=0.8, case_effects=effects)
    clean = runs_of(rng, case_effects=effects)
    (ours, theirs), coverage = side_by_side([leaky, clean])
    found = estimate([(1.0, ours), (-1.0, theirs)], score)

    def difference(seed: int, without: str = "") -> float:
        def value(runs) -> float:
            return sklearn_score(
                [t.rows(t.case != without) for (s, _, _), t in runs.items() if s == seed], score
            )

        return value(leaky) - value(clean)

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
    assert coverage == {"seeds": [0, 1, 2], "magnifications": [100], "folds": [0, 1, 2], "runs_left_out": 0}


@pytest.mark.parametrize("score", SCORES)
def test_ties_and_every_case_left_out_agree_with_scikit_learn(rng, score: str) -> None:
    tables = {f: fabricate(rng, fold=f, case_effects=rng.normal(size=CASES)) for f in range(3)}
    rounded = {f: make_like(t, np.round(t.logits)) for f, t in tables.items()}
    rows = rows_of(rounded)
    cases = cases_of([rows])
    values = FORMULAS[score](rows, cases)
    assert values[0] == pytest.approx(sklearn_score(list(rounded.values()), score))
    for i, name in enumerate(cases.name.tolist()):
        left = [t.rows(t.case != name) for t in rounded.values()]
        assert values[1 + i] == pytest.approx(sklearn_score(left, score))


def make_like(table: Table, logits: np.ndarray) -> Table:
    return make_table(
        "binary", image=table.image.tolist(), path=table.path.tolist(), class_name=table.class_name.tolist(),
        subtype=table.subtype.tolist(), slide=table.slide.tolist(), case=table.case.tolist(),
        magnification=table.magnification.tolist(), part="test", logits=logits,
    )  # fmt: skip


def test_an_image_in_several_folds_counts_in_each(rng) -> None:
    """Official folds test a case several times: pairs stay within folds, a case is left out of all of them."""
    first, second = (fabricate(rng, fold=0) for _ in range(2))
    rows = rows_of({1: first, 2: second})
    values = auroc(rows, cases_of([rows]))
    assert values[0] == pytest.approx(sklearn_score([first, second], "auroc"))
    name = str(first.case[0])
    left = [t.rows(t.case != name) for t in (first, second)]
    assert values[1] == pytest.approx(sklearn_score(left, "auroc"))


def test_the_interval_of_a_score_stays_within_its_limits(rng) -> None:
    runs = runs_of(rng, effect=0.4, case_effects=rng.normal(size=CASES))
    (cells,), _ = side_by_side([runs])
    found = estimate([(1.0, cells)], "auroc")
    assert 0 < found["low"] < found["value"] < found["high"] < 1
    assert found["t"] is None
    perfect = {
        key: make_like(t, np.column_stack([0 * t.p_malignant, 8.0 * t.malignant - 4]))
        for key, t in runs.items()
    }
    (cells,), _ = side_by_side([perfect])
    found = estimate([(1.0, cells)], "auroc")
    assert (found["value"], found["low"]) == (1.0, None)
    assert "no spread" in found["reason"]


def test_one_seed_is_said_to_be_conditional_and_undefined_scores_have_a_reason(rng) -> None:
    runs = runs_of(rng, seeds=(0,), case_effects=rng.normal(size=CASES))
    (cells,), _ = side_by_side([runs])
    found = estimate([(1.0, cells)], "auroc")
    assert found["conditional"].startswith("conditional on the fitted models")
    assert found["seed_se"] is None
    malignant = {key: t.rows(t.malignant == 1) for key, t in runs.items()}
    (cells,), _ = side_by_side([malignant])
    for score in ("auroc", "balanced_accuracy"):
        found = estimate([(1.0, cells)], score)
        assert found["value"] is None
        assert "one class only" in found["reason"]
    assert estimate([(1.0, cells)], "accuracy")["low"] is not None
    lone = {key: t.rows((t.malignant == 1) | (t.case == "14-00")) for key, t in runs.items()}
    (cells,), _ = side_by_side([lone])
    found = estimate([(1.0, cells)], "auroc")
    assert found["value"] is not None
    assert found["low"] is None
    assert "single case" in found["reason"]


def test_what_is_missing_is_left_out_of_both_arms(rng) -> None:
    keys = {(s, 100, f) for s in range(3) for f in range(5)}
    assert whole_block(keys) == keys
    assert whole_block(keys - {(1, 100, 2)}) == {k for k in keys if k[2] != 2}  # loses 2 runs, the seed 4
    assert whole_block(keys - {(1, 100, f) for f in range(4)}) == {k for k in keys if k[0] != 1}
    assert whole_block(set()) == set()
    leaky, clean = runs_of(rng), runs_of(rng)
    del leaky[2, 100, 1]
    (ours, theirs), coverage = side_by_side([leaky, clean])
    assert coverage["folds"] == [0, 2]
    assert coverage["runs_left_out"] == 2 + 3
    assert {s for s, _ in ours} == {0, 1, 2}
    assert all((ours[k].image == theirs[k].image).all() for k in ours)


def test_arms_with_other_images_are_compared_on_the_common_ones(rng) -> None:
    leaky, clean = runs_of(rng), runs_of(rng)
    leaky = {key: t.rows(t.case != "14-03") for key, t in leaky.items()}
    (ours, theirs), _ = side_by_side([leaky, clean])
    assert all("14-03" not in rows.case for rows in [*ours.values(), *theirs.values()])


def test_a_known_leak_is_found_with_its_dose_and_no_leak_is_not(rng) -> None:
    effects = rng.normal(size=CASES)
    noise = {(s, f): rng.normal(size=(CASES, 4)) for s in range(5) for f in range(3)}

    def arm(effect: float):
        return {
            (s, 100, f): fabricate(rng, fold=f, effect=effect, case_effects=effects, noise=n)
            for (s, f), n in noise.items()
        }

    arms = {
        "injected 0": arm(0.0),
        "injected 0.25": arm(0.0),
        "injected 0.5": arm(0.8),
        "injected 1": arm(1.6),
    }
    block = injection(arms)
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


def drawn_rows(rng: np.random.Generator, case_effects: np.ndarray) -> Rows:
    """As ``fabricate`` over three folds, without a table."""
    case = np.repeat(np.arange(CASES), 4)
    truth = (case % 4 != 0).astype(np.int64)
    margin = 1.0 + case_effects[case] + rng.normal(size=len(case))
    p = 1 / (1 + np.exp(-np.where(truth == 1, margin, -margin)))
    names = np.char.mod("14-%02d", case)
    images = np.char.mod("%d", np.arange(len(case)))
    return Rows(truth, (p >= 0.5).astype(np.int64), p, images, names, case % 3)


def test_the_interval_of_no_effect_contains_0_nineteen_times_in_twenty(rng) -> None:
    """Two arms of one law: case effects shared, arm by case and training noise (seed by case) of each one's own. Nominal 95 %."""
    trials, inside, missed = 400, 0, 0
    for _ in range(trials):
        effects = rng.normal(size=CASES)

        def arm(effect: float, effects=effects):
            each = (
                effects + effect + 0.8 * rng.normal(size=CASES)
            )  # what the arm does to each case, in every seed
            return {(s, 100): drawn_rows(rng, each + 0.5 * rng.normal(size=CASES)) for s in range(4)}

        clean = arm(0.0)
        found = estimate([(1.0, arm(0.0)), (-1.0, clean)], "auroc")
        inside += found["low"] <= 0 <= found["high"]
        strong = estimate([(1.0, arm(2.0)), (-1.0, clean)], "auroc")
        missed += strong["low"] <= 0 <= strong["high"]
    assert 0.92 <= inside / trials <= 0.99, (inside, missed)
    assert missed / trials < 0.5  # and it is no interval that contains everything


def test_slides_are_compared_on_cases_with_several_slides_only(rng) -> None:
    effects = rng.normal(size=CASES)

    def arm(effect: float):
        few = runs_of(rng, effect=0.0, case_effects=effects, cases=range(8))
        many = runs_of(rng, effect=effect, case_effects=effects, cases=range(8, CASES), slides=2)
        return {key: joined(few[key], many[key]) for key in few}

    arms = {"slide_kfold": arm(2.0), "case_kfold": arm(0.0), "image_random": arm(3.0)}
    block = contrast(arms)
    assert [(r["arm"], r["among"]) for r in block["pairs"]] == [
        ("image_random", "all images"),
        ("slide_kfold", MANY),
    ]
    slides = block["pairs"][1]
    assert slides["auroc"]["cases"] == 16
    assert slides["auroc"]["value"] > 0
    assert many_slide_cases(list(arms["case_kfold"].values())) == [f"14-{c:02d}" for c in range(8, CASES)]
    alone = contrast({"image_random": arms["image_random"]})
    assert alone["pairs"] == []
    assert len(alone["arms"]) == 1


def joined(first: Table, second: Table) -> Table:
    return Table(*(np.concatenate([getattr(t, name) for t in (first, second)]) for name in Table.__slots__))


def test_official_folds_show_the_leak_on_touched_images_only(rng) -> None:
    effects = 0.5 * rng.normal(size=CASES)
    shared = {f: [f"14-{c:02d}" for c in range(12) if c % 3 == f] for f in range(3)}
    noise = {(s, f): rng.normal(size=(CASES, 4)) for s in range(4) for f in range(3)}

    def arm(on_touched: float):
        lifted = effects + on_touched * (np.arange(CASES) < 12)
        return {k: fabricate(rng, fold=k[2], case_effects=lifted, noise=noise[k[0], k[2]]) for k in
                ((s, 100, f) for s, f in noise)}  # fmt: skip

    block = official(
        {"official": arm(0.0), "official clean": arm(-1.5), "official matched": arm(0.0)}, shared
    )
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
    no_touch = official({"official": arm(0.0), "official clean": arm(0.0)}, {})
    assert {r["among"] for r in no_touch["pairs"]} == {UNTOUCHED}

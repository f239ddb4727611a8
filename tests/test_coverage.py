"""Do the 95 % intervals cover 95 %? Simulated predictions on the real 100X case sizes, with known truths.

Model (protocol, section 4): an image's margin is d + b_case + e and its logit +-margin by class, d = 2,
sd_b = sd_e = 1.4. So balanced accuracy, sensitivity, specificity and patient recognition rate are
Phi(d / sqrt(sd_b^2 + sd_e^2)) and the image AUROC is Phi(2 d / sqrt(2 (sd_b^2 + sd_e^2))).
"""

from collections import defaultdict
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from histo_lightning.data.breakhis.census import census
from histo_lightning.evaluation import Table, make_table
from histo_lightning.evaluation.intervals import case_weights, newcombe_auroc
from histo_lightning.evaluation.level_intervals import bootstrap, class_support
from histo_lightning.evaluation.levels import Units, units
from histo_lightning.evaluation.resampling import (
    Statistic,
    auroc_of,
    count_statistics,
    recognition_statistics,
)
from histo_lightning.evaluation.scores import auroc

Floats = NDArray[np.float64]

REPLICATES = 1500
DRAWS = 600
IMAGE_BOOTSTRAPS = 100
# At 2.8 the case AUROC is 1 in two fifths of the replicates. Chosen after 4 had missed the limit; docs/decisions.md.
MODERATE, STRONG = 2.0, 2.8
SD_CASE = SD_IMAGE = 1.4


def true_share(distance: float) -> float:
    return float(norm.cdf(distance / np.hypot(SD_CASE, SD_IMAGE)))


def true_auroc(distance: float) -> float:
    return float(norm.cdf(2 * distance / np.sqrt(2 * (SD_CASE**2 + SD_IMAGE**2))))


@cache
def layout() -> tuple[Table, NDArray[np.int64]]:
    """A table of the 2,048 binary 100X images (slide 13412 once), and the case index of each."""
    every = [name for slide in census().values() for name in slide.names() if name.magnification == 100]
    names = [name for name in every if name.slide != "LC-14-13412"]
    table = make_table(
        "binary",
        image=[name.file_name for name in names],
        path=[name.official_path for name in names],
        class_name=[name.class_name for name in names],
        subtype=[name.subtype for name in names],
        slide=[name.slide for name in names],
        case=[name.case for name in names],
        magnification=[name.magnification for name in names],
        part="test",
        logits=np.zeros((len(names), 2)),
    )
    return table, np.unique(table.case, return_inverse=True)[1]


def simulated(distance: float, seed: int) -> Table:
    table, case = layout()
    random = np.random.default_rng([int(10 * distance), seed])
    margin = (
        distance + random.normal(0, SD_CASE, case.max() + 1)[case] + random.normal(0, SD_IMAGE, len(case))
    )
    logit = np.where(table.malignant == 1, margin, -margin)
    return replace(
        table,
        logits=np.column_stack([-logit / 2, logit / 2]),
        p_malignant=expit(logit),
        predicted=(logit > 0).astype(np.int64),
    )


def interval(here: Units, statistic: Statistic, weights: Floats) -> tuple[float, float]:
    found = bootstrap(here, statistic, weights, class_support(here))
    assert found.low is not None, found.reason
    return found.low, found.high


def percentile(draws: Floats) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def image_bootstrap(here: Units, draws: int, seed: int) -> tuple[float, float]:
    """The invalid interval: percentiles of the AUROC over images drawn as if they were independent."""
    random = np.random.default_rng(seed)
    order = np.argsort(here.p)
    truth = here.truth[order]
    aurocs = []
    for _ in range(draws):
        counts = np.bincount(random.integers(len(truth), size=len(truth)), minlength=len(truth))
        benign, malignant = counts * (truth == 0), counts * (truth == 1)
        below = np.cumsum(benign)
        aurocs.append(malignant @ below / (malignant.sum() * below[-1]))
    return percentile(np.array(aurocs))


@cache
def simulation(distance: float, replicates: int) -> tuple[dict[str, Floats], Floats]:
    """(replicates, 2) interval ends by method, and the (replicates,) case-level AUROCs."""
    ends: dict[str, list[tuple[float, float]]] = defaultdict(list)
    case_aurocs = []
    for seed in range(replicates):
        table = simulated(distance, seed)
        image, slide, case = (units(table, level) for level in ("image", "slide", "case"))
        weights = case_weights(image.case_class, DRAWS, seed)
        image_auroc = auroc_of(image, image.truth == 1, image.p)
        ends["image AUROC, expanded BCa"].append(interval(image, image_auroc, weights))
        ends["image AUROC, percentile"].append(percentile(image_auroc(weights)))
        if seed < IMAGE_BOOTSTRAPS:
            ends["image AUROC, image bootstrap"].append(image_bootstrap(image, DRAWS, seed))
        ends["image BA, expanded BCa"].append(
            interval(image, count_statistics(image)["balanced_accuracy"], weights)
        )
        rate = recognition_statistics(slide)["patient_recognition_rate"]
        ends["PRR, expanded BCa"].append(interval(slide, rate, weights))
        case_aurocs.append(auroc(case.truth, case.p, case.fold))
        ends["case AUROC, Newcombe"].append(
            newcombe_auroc(case_aurocs[-1], int((case.truth == 0).sum()), int((case.truth == 1).sum()))
        )
    return {name: np.array(pairs) for name, pairs in ends.items()}, np.array(case_aurocs)


def coverage(ends: Floats, truth: float) -> float:
    return float(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean())


def test_the_layout_is_the_real_one() -> None:
    table, case = layout()
    cases = np.bincount(case)
    malignant = np.zeros(len(cases), np.int64)
    malignant[case] = table.malignant
    assert (len(table), len(cases), malignant.sum()) == (2048, 70, 54)
    assert true_share(MODERATE) == pytest.approx(0.844, abs=5e-4)
    assert true_auroc(MODERATE) == pytest.approx(0.923, abs=5e-4)


def test_intervals_cover_at_moderate_skill() -> None:
    ends, case_aurocs = simulation(MODERATE, REPLICATES)
    share, area = true_share(MODERATE), true_auroc(MODERATE)
    # The case AUROC is an unbiased estimate of its own expectation, so the mean over replicates is its truth.
    truths = defaultdict(lambda: area) | {
        "image BA, expanded BCa": share,
        "PRR, expanded BCa": share,
        "case AUROC, Newcombe": float(case_aurocs.mean()),
    }
    covered = {name: coverage(pairs, truths[name]) for name, pairs in ends.items()}
    print(covered)
    for name in ("image AUROC, expanded BCa", "image BA, expanded BCa", "PRR, expanded BCa"):
        assert 0.92 <= covered[name] <= 0.985, (name, covered)
    assert covered["case AUROC, Newcombe"] >= 0.93, covered
    assert covered["image AUROC, expanded BCa"] - covered["image AUROC, percentile"] >= 0.02, covered
    assert covered["image AUROC, image bootstrap"] < 0.60, covered


def test_intervals_cover_at_great_skill() -> None:
    ends, case_aurocs = simulation(STRONG, 500)
    covered = coverage(ends["image AUROC, expanded BCa"], true_auroc(STRONG))
    print(covered, (case_aurocs == 1).mean(), ends["case AUROC, Newcombe"].mean(axis=0))
    assert covered >= 0.89, covered
    assert 0.3 < (case_aurocs == 1).mean() < 0.7, "the scenario is not the strong one"
    newcombe = ends["case AUROC, Newcombe"]
    assert (newcombe[:, 0] < 0.99).all(), "an interval at [1, 1] claims certainty"
    assert coverage(newcombe, float(case_aurocs.mean())) >= 0.93

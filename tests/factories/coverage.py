"""Simulated predictions on the real 100X case sizes with known truths, and the intervals that they get.

Model (protocol, section 4): an image's margin is d + b_case + e and its logit +-margin by class,
sd_b = sd_e = 1.4. So balanced accuracy and patient recognition rate are Phi(d / sqrt(sd_b^2 + sd_e^2)) and the image
AUROC is Phi(2 d / sqrt(2 (sd_b^2 + sd_e^2))). The case AUROC is an unbiased estimate of its own expectation, so its
truth is the mean over the replicates. Run as a script, it measures one row of ``evaluation.remarks.MEASURED``:
``python tests/factories/coverage.py <d> <replicates> <draws>``.
"""

import sys
from collections import defaultdict
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from histo_lightning.data.breakhis.names import census
from histo_lightning.evaluation import Table, get_score, make_table
from histo_lightning.evaluation.intervals import bootstrap, case_weights, class_support, newcombe_auroc
from histo_lightning.evaluation.levels import Units, units

Floats = NDArray[np.float64]
SD_CASE = SD_IMAGE = 1.4
IMAGE_BOOTSTRAPS = 100
AUROC, PERCENTILE, IMAGES = "image_auroc", "image AUROC, percentile", "image AUROC, image bootstrap"
BALANCED, RATE, CASES = "image_balanced_accuracy", "patient_recognition_rate", "case_auroc"


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


def percentile(draws: Floats) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def image_bootstrap(here: Units, draws: int, seed: int) -> tuple[float, float]:
    """The invalid interval: percentiles of the AUROC over images drawn as if they were independent."""
    random = np.random.default_rng(seed)
    truth = here.truth[np.argsort(here.p)]
    aurocs = []
    for _ in range(draws):
        counts = np.bincount(random.integers(len(truth), size=len(truth)), minlength=len(truth))
        benign, malignant = counts * (truth == 0), counts * (truth == 1)
        below = np.cumsum(benign)
        aurocs.append(malignant @ below / (malignant.sum() * below[-1]))
    return percentile(np.array(aurocs))


@cache
def simulation(distance: float, replicates: int, draws: int) -> tuple[dict[str, Floats], Floats]:
    """(replicates, 2) interval ends by method, and the (replicates,) case-level AUROCs; seeds 0, 1, 2, ..."""
    ends: dict[str, list[tuple[float, float]]] = defaultdict(list)
    case_aurocs = []
    for seed in range(replicates):
        table = simulated(distance, seed)
        image, slide, case = (units(table, level) for level in ("image", "slide", "case"))
        weights = case_weights(image.case_class, draws, seed)
        for key, here in ((AUROC, image), (BALANCED, image), (RATE, slide)):
            statistic = get_score(key.removeprefix("image_")).statistic(here)
            found = bootstrap(here, statistic, weights, class_support(here))
            ends[key].append((found["low"], found["high"]))
            if key == AUROC:
                ends[PERCENTILE].append(percentile(statistic(weights)))
        if seed < IMAGE_BOOTSTRAPS:
            ends[IMAGES].append(image_bootstrap(image, draws, seed))
        case_aurocs.append(get_score("auroc").value(case))
        malignant = int(case.truth.sum())
        ends[CASES].append(newcombe_auroc(case_aurocs[-1], len(case) - malignant, malignant))
    return {name: np.array(pairs) for name, pairs in ends.items()}, np.array(case_aurocs)


def coverages(distance: float, replicates: int, draws: int) -> dict[str, float]:
    """Share of the replicates whose interval holds the truth, by method."""
    ends, case_aurocs = simulation(distance, replicates, draws)
    truths = defaultdict(lambda: true_auroc(distance)) | {
        BALANCED: true_share(distance),
        RATE: true_share(distance),
        CASES: float(case_aurocs.mean()),
    }
    return {
        name: float(((pairs[:, 0] <= truths[name]) & (truths[name] <= pairs[:, 1])).mean())
        for name, pairs in ends.items()
    }


if __name__ == "__main__":
    print(sys.argv[1:], coverages(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])), flush=True)

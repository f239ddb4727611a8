"""Does the interval of a leak contain the truth? Simulated arms without and with an effect."""

import numpy as np
import pandas as pd
from scipy.special import expit

from histo_lightning.evaluation.differences.leakage import estimate

CASES, IMAGES, SEEDS = 24, 4, 4
BOTH = {("leaky", "all"): 1.0, ("clean", "all"): -1.0}


def drawn(random: np.random.Generator, arm: str, case_effects: np.ndarray) -> pd.DataFrame:
    """An arm's predictions: what it does to each case in every seed, training noise of seed by case, and of the image."""
    own = case_effects + 0.8 * random.normal(size=CASES)
    noisy = own + 0.5 * random.normal(size=(SEEDS, CASES))
    margin = 1.0 + noisy[..., None] + random.normal(size=(SEEDS, CASES, IMAGES))
    seed, case, image = (index.ravel() for index in np.indices(margin.shape))
    malignant = (case % 4 != 0).astype(int)
    columns = {
        "seed": seed,
        "fold": case % 3,
        "case": case,
        "malignant": malignant,
        "image": case * IMAGES + image,
    }
    p = expit(np.where(malignant, 1, -1) * margin.ravel())
    return pd.DataFrame(columns).assign(arm=arm, among="all", magnification=100, p=p)


def test_the_interval_of_no_effect_contains_0_nineteen_times_in_twenty() -> None:
    """Two arms of one law: case effects shared, the rest of each one's own. Nominal 95 %."""
    random = np.random.default_rng(20260101)
    trials, inside, missed = 200, 0, 0
    for _ in range(trials):
        effects = random.normal(size=CASES)
        clean = drawn(random, "clean", effects)
        found = estimate(pd.concat([drawn(random, "leaky", effects), clean]), BOTH, "auroc")
        inside += found["low"] <= 0 <= found["high"]
        strong = estimate(pd.concat([drawn(random, "leaky", effects + 2.0), clean]), BOTH, "auroc")
        missed += strong["low"] <= 0 <= strong["high"]
    assert 0.92 <= inside / trials <= 0.995, (inside, missed)
    assert missed / trials < 0.5  # and it is no interval that contains everything

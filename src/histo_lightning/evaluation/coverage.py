"""How often the nominal 95 % intervals of a run hold, measured for networks that separate the classes as well."""

from statistics import NormalDist

SCALE = 1.4
"""Image AUROC = Phi(2 d / sqrt(2 (1.4^2 + 1.4^2))) = Phi(d / 1.4) for the separation d of the protocol's model."""

SCORES = ("image_auroc", "image_balanced_accuracy", "patient_recognition_rate", "case_auroc")
MEASURED = {
    1.0: (0.957, 0.955, 0.966, 0.957),
    2.0: (0.950, 0.946, 0.962, 0.974),
    2.8: (0.927, 0.940, 0.955, 0.979),
    3.5: (0.905, 0.939, 0.944, 0.994),
    4.0: (0.886, 0.933, 0.932, 0.994),
}
"""Coverage of ``SCORES`` by separation d: case AUROC by Newcombe's method 5, the others by expanded BCa, 2,000 draws.

Simulated with the protocol's model (``STATISTICS.md`` section 4: ICC .5, the 16 benign and 54 malignant cases of
100X with their real sizes), 3,000 replicates with the seeds [10 d, 0], [10 d, 1], ..., so a coverage of .95 has a
standard error of .004: ``tests/factories/coverage.py``; ``tests/statistics/test_coverage.py`` repeats it.
"""


def separation_of(image_auroc: float) -> float:
    """The measured separation d next to that of a run with this AUROC by image, in [0, 1]."""
    distance = SCALE * NormalDist().inv_cdf(min(max(image_auroc, 0.5), 1 - 1e-9))
    return min(MEASURED, key=lambda separation: abs(separation - distance))


def coverage_of(image_auroc: float | None) -> str:
    """A sentence on how often intervals hold where a run has this AUROC by image; None where it is undefined."""
    simulated = "With 16 benign and 54 malignant cases, in simulations"
    if image_auroc is None:
        shares = [100 * shares[0] for shares in MEASURED.values()]
        return (
            f"{simulated}, nominal 95 % intervals of the AUROC by image hold in {min(shares):.0f} to {max(shares):.0f} "
            "of 100 samples, fewest near perfection; where this run lies is unknown."
        )
    nearest = separation_of(image_auroc)
    image, _, _, case = MEASURED[nearest]
    return (
        f"{simulated} of networks that rank images about as well as this one (AUROC "
        f"{NormalDist().cdf(nearest / SCALE):.3f}), nominal 95 % intervals hold in {100 * image:.0f} of 100 samples "
        f"for the AUROC by image and in {100 * case:.0f} for the AUROC by case."
    )

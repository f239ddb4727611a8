"""How often the nominal 95 % intervals of a run hold, measured for networks that separate the classes as well."""

from statistics import NormalDist
from typing import NamedTuple

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


class Coverage(NamedTuple):
    """Shares of samples whose nominal 95 % interval holds the truth, where the classes are as far apart as in a run.

    ``separation`` is the measured d next to the run's; None where it is unknown, and then the shares are the lowest.
    """

    separation: float | None
    image_auroc: float
    case_auroc: float
    sentence: str


def coverage_of(image_auroc: float | None) -> Coverage:
    """The coverage in the regime of a run with this AUROC by image, in [0, 1]; None where it is undefined."""
    simulated = "With 16 benign and 54 malignant cases, in simulations"
    by_image, _, _, by_case = zip(*MEASURED.values(), strict=True)
    if image_auroc is None:
        sentence = (
            f"{simulated}, nominal 95 % intervals of the AUROC by image hold in {100 * min(by_image):.0f} to "
            f"{100 * max(by_image):.0f} of 100 samples, fewest near perfection; where this run lies is unknown."
        )
        return Coverage(None, min(by_image), min(by_case), sentence)
    distance = SCALE * NormalDist().inv_cdf(min(max(image_auroc, 0.5), 1 - 1e-9))
    nearest = min(MEASURED, key=lambda separation: abs(separation - distance))
    image, _, _, case = MEASURED[nearest]
    sentence = (
        f"{simulated} of networks that rank images about as well as this one (AUROC "
        f"{NormalDist().cdf(nearest / SCALE):.3f}), nominal 95 % intervals hold in {100 * image:.0f} of 100 samples "
        f"for the AUROC by image and in {100 * case:.0f} for the AUROC by case."
    )
    return Coverage(nearest, image, case, sentence)

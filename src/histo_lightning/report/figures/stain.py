"""How strongly the images of each case are stained with haematoxylin and eosin."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from histo_lightning.data.names import CLASSES
from histo_lightning.report.style import BLUE, GREY, TEXT_SIZE, VERMILLION, label_axes, new_figure


def stain_figure(cases: Sequence[str], classes: Sequence[str], stains: NDArray[np.float64]) -> Figure:
    """By case: the median image as a point, the middle half of the images as a line.

    Args:
        cases, classes: of each of N images; a case that is empty is left out.
        stains: N x 2, optical density of haematoxylin and eosin.
    """
    figure, panels = new_figure(5.0, 6.6, rows=2)
    case_of, class_of = np.array(cases), np.array(classes)
    for axes, stain, values in zip(panels, ("Haematoxylin", "Eosin"), stains.T, strict=True):
        start = 0
        for class_name, colour in zip(CLASSES, (BLUE, VERMILLION), strict=True):
            own = (class_of == class_name) & (case_of != "")
            names = np.unique(case_of[own])
            quartiles = [np.percentile(values[own & (case_of == case)], [25, 50, 75]) for case in names]
            if quartiles:
                low, middle, high = np.array(sorted(quartiles, key=lambda three: float(three[1]))).T
                x = np.arange(start, start + len(names))
                axes.vlines(x, low, high, color=colour, linewidth=1.6, alpha=0.6)
                axes.plot(x, middle, "o", color=colour, markersize=3.5, label=f"{class_name}, {len(x)} cases")
            start += len(names) + 2
        label_axes(axes, stain, "cases, sorted within each class", "optical density, mean of an image")
        axes.set_xticks([])
        axes.grid(axis="y", color=GREY, alpha=0.2, linewidth=0.6)
        if axes.has_data():
            axes.legend(fontsize=TEXT_SIZE - 1, frameon=False, loc="best")
    return figure

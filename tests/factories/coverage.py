"""The real 100X case sizes, to be filled with simulated predictions."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from histo_lightning.data.census import census
from histo_lightning.evaluation import Table, make_table


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

"""``results.csv``: a row a run, also for runs that failed or never started."""

from typing import Any

import pandas as pd

from histo_lightning.comparison.names import value_text
from histo_lightning.comparison.reading import COSTS, SHOWN_SCORES
from histo_lightning.comparison.settings import PLACE_KEYS, settings_of, varying
from histo_lightning.evaluation.table_csv import csv_text, quote_cell

FIRST = {"model.name": "model", "optimizer.name": "optimizer", "magnification": "magnification",
         "split.name": "split", "split.fold": "fold", "seed": "seed"}  # fmt: skip


def results_csv(runs: pd.DataFrame) -> str:
    """The table as CSV text; texts that a spreadsheet would run are quoted as in ``predictions/*.csv``."""
    table = results_table(runs)
    rows: list[Any] = [table.columns, *table.itertuples(index=False, name=None)]
    return "".join(",".join(map(_cell, row)) + "\n" for row in rows)


def results_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The columns of ``results.csv``; NaN or None is an empty cell."""
    settings = settings_of(runs)
    places = [key for key in PLACE_KEYS if settings[key].map(value_text).nunique() > 1]
    own = [key for key in [*places, *varying(settings)] if key not in FIRST]
    names = [f"{part}_{name}" for part in ("test", "val") for name in SHOWN_SCORES]
    scores = [f"{name}{suffix}" for name in names for suffix in ("", "_low", "_high")]
    reads = pd.Series([status.get("test_read") for status in runs["status"]], runs.index, dtype=object)
    table = runs.drop(columns="split").rename(columns=FIRST).assign(test_read=reads)
    return table[
        ["run", "state", *FIRST.values(), *own, *COSTS, *scores, "label", "test_read", "folder", "error"]
    ]


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) >= 1e3:
        return str(int(value))  # counts of parameters, FLOPs and bytes
    text = value_text(value)
    return text if isinstance(value, bool | int | float) else csv_text(quote_cell(text))

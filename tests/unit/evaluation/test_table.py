"""The predictions table: what it refuses, and that a CSV gives back what was written."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories.predictions import as_columns
from histo_lightning.data.breakhis.names import SUBTYPE_CLASS, SUBTYPES
from histo_lightning.errors import UserError
from histo_lightning.evaluation import (
    Table,
    make_table,
    read_predictions,
    score_predictions,
    write_predictions,
)
from histo_lightning.evaluation.table import as_table, columns
from histo_lightning.runs import quote_cell, unquote_cell


def small_table(task: str = "binary", rows: int = 6, names: list[str] | None = None) -> Table:
    random = np.random.default_rng(rows)
    subtype = [SUBTYPES[(3 * i) % 8] for i in range(rows)]
    return make_table(
        task,
        image=names or [f"{i}.png" for i in range(rows)],
        path=[f"a, b/{i}.png" for i in range(rows)],
        class_name=[SUBTYPE_CLASS[s] for s in subtype],
        subtype=subtype,
        slide=[f"{s}-14-{i}AB" for i, s in enumerate(subtype)],
        case=[f"14-{i}" for i in range(rows)],
        magnification=[(40, 100, 200, 400, 0)[i % 5] for i in range(rows)],
        part="val",
        logits=random.normal(size=(rows, 2 if task == "binary" else 8)),
    )


def assert_same(first: Table, second: Table) -> None:
    assert first.task == second.task
    for name in Table.__slots__:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_columns_are_the_contract() -> None:
    assert ",".join(columns("binary")) == (
        "image,path,class,subtype,slide,case,magnification,part,label,logit_benign,logit_malignant,p_malignant,predicted"
    )
    assert [c for c in columns("subtype") if c.startswith("logit_")] == [f"logit_{s}" for s in SUBTYPES]


@pytest.mark.parametrize("task", ["binary", "subtype"])
def test_a_file_gives_back_every_bit(tmp_path: Path, task: str) -> None:
    table = small_table(task, 20)
    write_predictions(tmp_path / "p.csv", table)
    assert_same(read_predictions(tmp_path / "p.csv"), table)
    header, first, *_ = (tmp_path / "p.csv").read_text().splitlines()
    assert header == ",".join(columns(task))
    assert first.split(",")[-2] == repr(float(table.p_malignant[0]))
    assert list(tmp_path.iterdir()) == [tmp_path / "p.csv"], "a temporary file was left"


def test_unknown_magnification_is_an_empty_cell(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", small_table(rows=5))
    last = (tmp_path / "p.csv").read_text().splitlines()[-1]
    assert ",14-4,,val," in last
    assert read_predictions(tmp_path / "p.csv").magnification.tolist() == [40, 100, 200, 400, 0]


HOSTILE = st.text(
    st.one_of(
        st.sampled_from("=+-@'\"\t\r\n, ;é\u2028"), st.characters(exclude_characters="\x00", codec="utf-8")
    ),
    min_size=1,
    max_size=8,
)


@given(st.lists(HOSTILE, min_size=1, max_size=5, unique=True))
def test_hostile_names_come_back(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = tmp_path_factory.mktemp("csv") / "p.csv"
    table = small_table(rows=len(names), names=names)
    write_predictions(path, table)
    assert_same(read_predictions(path), table)


@pytest.mark.parametrize("text", ["=1+1", "'=1+1", "''=1+1", "'", "''", "'x", "''-", "-1.png", "@SUM", "+"])
def test_quoting_is_undone_whatever_the_text_looks_like(text: str) -> None:
    assert unquote_cell(quote_cell(text)) == text


@given(HOSTILE)
def test_no_cell_would_run_in_a_spreadsheet(text: str) -> None:
    assert not quote_cell(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert unquote_cell(quote_cell(text)) == text


def test_names_that_are_not_utf8_come_back(tmp_path: Path) -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    write_predictions(tmp_path / "p.csv", small_table(rows=1, names=[name]))
    assert read_predictions(tmp_path / "p.csv").image.tolist() == [name]


def test_numbers_are_not_quoted(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", small_table())
    assert "'-" not in (tmp_path / "p.csv").read_text()


class Frame:
    """What a DataFrame read by pandas looks like here: ``in``, ``[]``, NaN for empty cells, numpy columns."""

    def __init__(self, cells: dict[str, Any]) -> None:
        self.cells = cells

    def __contains__(self, name: object) -> bool:
        return name in self.cells

    def __getitem__(self, name: str) -> Any:
        return np.array(self.cells[name], dtype=object)


def test_a_data_frame_is_read_like_a_mapping() -> None:
    cells = as_columns(small_table())
    frame = dict(cells, subtype=[float("nan")] * 6, magnification=[40.0, float("nan"), "200", "", 100, None])
    table = as_table(Frame(frame))
    assert table.subtype.tolist() == [""] * 6
    assert table.magnification.tolist() == [40, 0, 200, 0, 100, 0]


def broken(**changes: Any) -> dict[str, Any]:
    cells = as_columns(small_table())
    for name, change in changes.items():
        column = {"class_name": "class"}.get(name, name)
        if change is None:
            del cells[column]
        else:
            cells[column] = [*cells[column][:2], change, *cells[column][3:]]
    return cells


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({name: [] for name in columns("binary")}, ["no row"]),
        (broken(slide=None), ["column slide is missing", "logit_benign"]),
        (broken(image="0.png"), ["row 3 (0.png)", "appears twice"]),
        (broken(image=""), ["row 3", "empty"]),
        (broken(class_name="benin"), ["row 3 (2.png)", "unknown class", "benign and malignant"]),
        (broken(subtype="XX"), ["row 3", "unknown subtype"]),
        (broken(subtype="DC", class_name="benign", label=0), ["row 3", "other class"]),
        (broken(label=0), ["row 3", "label disagrees with class", "0 benign, 1 malignant"]),
        (broken(label=7), ["row 3", "class index from 0 to 1"]),
        (broken(logit_benign=float("nan")), ["row 3", "logit_benign is not a finite number"]),
        (broken(logit_malignant=float("-inf")), ["row 3", "logit_malignant is not a finite number"]),
        (broken(logit_malignant="many"), ["row 3", "logit_malignant is not a finite number"]),
        (broken(p_malignant=float("nan")), ["row 3", "p_malignant is not a finite number"]),
        (broken(p_malignant=1.5), ["row 3", "p_malignant is outside 0 to 1"]),
        (broken(magnification="forty"), ["row 3", "magnification is not a whole number"]),
        (broken(magnification=-40), ["row 3", "magnification"]),
        (broken(magnification=float("inf")), ["row 3", "magnification"]),
        (broken(logit_benign=50.0, logit_malignant=-50.0, predicted=1), ["row 3", "largest logit"]),
        (broken() | {"case": ["14-1"]}, ["case has 1 cells for 6 images"]),
    ],
)
def test_what_is_no_predictions_table_is_refused_in_one_line(cells: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        as_table(cells)
    assert "\n" not in str(caught.value)
    for words in ["predictions", *said]:
        assert words in str(caught.value)
    with pytest.raises(UserError):
        score_predictions(cells)


def test_row_three_is_malignant_so_the_cases_above_mean_what_they_say() -> None:
    table = small_table()
    assert (table.class_name[2], table.subtype[2]) == ("malignant", "MC")
    as_table(broken(part="test"))


def test_eight_classes_need_a_subtype_and_its_label() -> None:
    cells = as_columns(small_table("subtype"))
    with pytest.raises(UserError, match="unknown subtype"):
        as_table(cells | {"subtype": [""] * 6})
    with pytest.raises(UserError, match="label disagrees with subtype"):
        as_table(cells | {"label": [1] * 6})
    del cells["logit_DC"]
    with pytest.raises(UserError, match="logit_DC is missing"):
        as_table(cells)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("image,path\na.png\n", "row 1 has 1 cells"),
        ("image,image\n", "appears twice"),
        (",".join(columns("binary")) + "\n", "no row"),
        ('image,path\n"a.png', "not a CSV"),
        ("\x89PNG\r\n", "missing"),
    ],
)
def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read_predictions(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_an_unwritable_place_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        score_predictions(tmp_path / "none.csv")
    (tmp_path / "p.csv").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_predictions(tmp_path / "p.csv", small_table())
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_logits_of_the_wrong_shape_are_refused() -> None:
    table = small_table()
    cells = {
        name: as_columns(table)[name]
        for name in ("image", "path", "subtype", "slide", "case", "magnification")
    }
    with pytest.raises(UserError, match="one logit a class"):
        make_table("subtype", class_name=table.class_name.tolist(), part="val", logits=table.logits, **cells)


def test_the_room_imports_fast_and_alone() -> None:
    code = (
        "import sys, histo_lightning.evaluation as e;"
        "print([m for m in ('torch', 'lightning', 'pytorch_lightning', 'sklearn', 'matplotlib', 'scipy', 'pandas')"
        " if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

"""Random command lines, split files, tables of predictions, file names and run folders: a result or one line, never another exception.

``HISTO_FUZZ=1000`` tries as many examples of each instead of a few.
"""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from factories.predictions import random_table
from factories.sweeps import config_of, write_run
from histo_lightning.comparison.results import compare_runs
from histo_lightning.config.checks import schema_fields
from histo_lightning.config.compose import config_tree, read_jobs
from histo_lightning.config.schema import SCHEMAS, AuditConfig, Config
from histo_lightning.data.breakhis.records import breakhis_records, folder_records
from histo_lightning.data.splits.reading import read_splits
from histo_lightning.errors import UserError
from histo_lightning.evaluation.table import read_predictions, write_predictions
from histo_lightning.inspection.audit import audit
from histo_lightning.report.index import write_index
from histo_lightning.report.run_page import write_report
from histo_lightning.report.summaries import print_summary
from histo_lightning.report.words import labels_of
from histo_lightning.runs import RunFolder, read_json

MORE = int(os.environ.get("HISTO_FUZZ", "0"))


def examples(few: int):
    quiet = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)
    return settings(max_examples=MORE or few, suppress_health_check=quiet, derandomize=not MORE)


def outcome(call, *arguments, **options):
    """What a call returns; None where it refuses, in one line that is safe to print."""
    result, message = None, ""
    try:
        result = call(*arguments, **options)
    except UserError as error:
        message = str(error)
    assert message.isprintable()
    return result


KEYS = [name for schema in (Config, SCHEMAS["tune"]) for name, _ in schema_fields(schema)]
KEYS += [
    "model",
    "trainer",
    "trainer.flags",
    "trainer.x",
    "model._target_",
    "callbacks.ema",
    "logger.csv",
    "debug",
]
KEYS += [
    "hydra.mode",
    "hydra.sweeper.params",
    "hydra/launcher",
    "tune.space",
    "augment.steps.x",
    "imports",
    "",
    "x",
]
VALUES = [
    "",
    "null",
    "true",
    "-1",
    "1e400",
    "nan",
    "inf",
    "9" * 40,
    "[]",
    "{}",
    "[1,2]",
    "{a:1}",
    "'",
    "\\",
    "~",
]
VALUES += [
    "${x}",
    "${oc.env:HOME}",
    "???",
    "a,b",
    "range(3)",
    "choice(1,2)",
    "glob(*)",
    "@x",
    "0x10",
    "1:30",
    "[[[]]]",
]
VALUES += [
    "os.system",
    "torch.optim.SGD",
    "{_target_: os.system}",
    "\udcff",
    "\x1b[31m",
    "x" * 300,
    "int(3)",
    "1.",
    "[",
]
OVERRIDES = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "", "+", "++", "~"]),
        st.sampled_from(KEYS),
        st.sampled_from(["=", "=", "=", "", "=="]),
        st.sampled_from(VALUES) | st.text(max_size=8),
    ),
)


@examples(5)
@given(
    st.sampled_from(["train", "tune", "predict", "compare"]),
    st.lists(OVERRIDES, min_size=1, max_size=2),
    st.booleans(),
)
@example("train", ["hydra.sweeper.params=0x10"], True)
@example("train", ["hydra.mode='${a}'"], False)
@example("train", ["trainer.flags=-1"], False)
@example("train", ["debug=nan"], False)
@example("train", ["~scheduler=+1"], False)
def test_a_command_line_is_read_or_refused(command: str, overrides: list[str], sweep: bool) -> None:
    with config_tree():
        read = outcome(read_jobs, command, overrides, multirun=sweep)
    assert read is None or read.jobs


DAMAGE = [
    '"',
    "'",
    ",",
    "\n",
    "\r",
    "|",
    ";",
    "\0",
    "\ufeff",
    "\x1b[31m",
    "=1",
    "NaN",
    "1e999",
    "{",
    "[",
    "٣",
    "\ud800",
]
PIECES = st.sampled_from(DAMAGE) | st.text(max_size=5) | st.sampled_from(["9" * 400, "x" * 5000])


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """A text in which pieces were put in, taken out or doubled, as bytes."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        text = text[:start] + draw(PIECES | st.just(text[start:end] * 2)) + text[end:]
    data = text.encode("utf-8", "surrogatepass")
    return data + draw(st.sampled_from([b"", b"", b"\xff\xfe"]))


SPLITS = (
    "SOB_M_DC-14-2523-40-001.png|40|1|train\nSOB_B_A-14-22549AB-40-001.png|40|1|test\n",
    "fold,mag,grp,filename\n1,40,train,a/SOB_B_A-14-22549AB-40-001.png\n1,40,test,SOB_M_DC-14-2523-40-001.png\n",
    "path;part\na.png;train\nb.png;test\n",
    '{"parts": {"train": ["SOB_B_A-14-22549AB-40-001.png"], "test": ["SOB_M_DC-14-2523-40-001.png", "b.png"]}}',
)


@examples(60)
@given(st.sampled_from(SPLITS).flatmap(damaged), st.sampled_from(["s.csv", "s.json", "s.txt"]))
def test_a_split_file_is_read_or_refused(tmp_path: Path, data: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(data)
    splits = outcome(read_splits, tmp_path / name)
    assert splits is None or all(len(split.parts) > 1 for split in splits)
    audits = outcome(audit, AuditConfig(split_file=str(tmp_path / name)))
    assert audits is None or splits is not None


@pytest.fixture(scope="module")
def table_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("table") / "test.csv"
    write_predictions(path, random_table(3, 3))
    return path.read_text(encoding="utf-8")


@examples(60)
@given(st.data())
def test_a_table_of_predictions_is_read_or_refused(
    tmp_path: Path, table_text: str, data: st.DataObject
) -> None:
    (tmp_path / "t.csv").write_bytes(data.draw(damaged(table_text)))
    if table := outcome(read_predictions, tmp_path / "t.csv"):
        write_predictions(tmp_path / "again.csv", table)
        again = read_predictions(tmp_path / "again.csv")
        assert again.image.tolist() == table.image.tolist()
        assert again.logits.tolist() == table.logits.tolist()


PLACES = st.sampled_from(
    ["train/benign/", "train/malignant/", "val/benign/", "test/malignant/", "", "x/", "TEST/Benign/"]
)
NAMES = st.text(st.characters(blacklist_characters="/\0"), min_size=1, max_size=12).map(
    lambda name: f"{name}.png"
)
KNOWN = st.sampled_from(
    ["SOB_M_DC-14-2523-40-001.png", "SOB_B_A-14-22549AB-40-001.png", "sob_b_a-14-22549ab-40-001.PNG"]
)


@examples(60)
@given(st.lists(st.builds(str.__add__, PLACES, NAMES | KNOWN), max_size=6, unique=True))
def test_names_of_images_become_records_or_are_refused(paths: list[str]) -> None:
    for read in (breakhis_records, folder_records):
        if records := outcome(read, paths, "root"):
            assert {record.path for record in records} <= set(paths)
            assert [record.image for record in records] == sorted(record.image for record in records)


@pytest.fixture(scope="module")
def made_by_hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder without a manifest."""
    return write_run(tmp_path_factory.mktemp("by hand") / "runs", config_of(), per_slide=1, draws=100)


def places(value: object, above: tuple = ()) -> list[tuple]:
    """The keys that lead to a value and to all within it, of a list to its first ones."""
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value[:3]) if isinstance(value, list) else inner
    return [above, *(place for key, each in inner for place in places(each, (*above, key)))]


def print_finished(run: Path) -> None:
    """What ``train`` reads of a run that is finished."""
    metrics, status = read_json(run / "metrics.json"), RunFolder(run).status
    labels = labels_of(metrics, str(metrics.get("split")))
    print_summary(run, metrics, labels, float(status.get("seconds") or 0.0))


@examples(12)
@given(
    st.sampled_from(["metrics.json", "metrics.json", "status.json", "split.json"]),
    st.data(),
    st.sampled_from(
        [5, -1, 1.5, "x", "", [1], [], {}, {"a": 1}, None, True, float("nan"), 10**400, [[1]], ["x"]]
    ),
)
def test_a_run_of_wrong_values_is_read_or_refused(
    made_by_hand: Path, tmp_path: Path, name: str, data: st.DataObject, new: object
) -> None:
    file = made_by_hand / name
    before = file.read_text()
    content = {"": json.loads(before)}
    *above, key = ("", *data.draw(st.sampled_from(places(content[""]))))
    inner = content
    for each in above:
        inner = inner[each]
    inner[key] = new
    file.write_text(json.dumps(content[""]))
    try:
        outcome(compare_runs, [made_by_hand.parent], tmp_path / "out")
        outcome(write_index, made_by_hand.parent)
        outcome(write_report, made_by_hand)
        outcome(print_finished, made_by_hand)
    finally:
        file.write_text(before)

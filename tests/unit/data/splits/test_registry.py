"""The registry: what shipped kinds say of themselves, which keys go together, and a stranger's kind of 20 lines."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from histo_lightning.config.identity import split_words
from histo_lightning.config.schema import Config
from histo_lightning.data.splits import SplitConfig, check_split_keys
from histo_lightning.data.splits.registry import KINDS
from histo_lightning.errors import UserError

SHIPPED = {"case_kfold", "slide_kfold", "official", "folders", "file", "image_random", "injection"}
STRANGER = '''
"""Cases of even numbers train, others validate or test by their last digit."""

from histo_lightning.data.splits import Draft, SplitKind, register_split


@register_split
class EvenCases(SplitKind):
    name = "even_cases"
    group = "case"
    keys = ("seed",)

    def assign(self, records, config):
        parts = {"train": [], "val": [], "test": []}
        for record in records:
            digit = int(record.case[-1]) + config.seed
            parts["train" if digit % 2 == 0 else "val" if digit % 4 == 1 else "test"].append(record)
        return Draft(parts, notes=["by the number's last digit"])
'''


def test_shipped_kinds_and_their_keys_exist() -> None:
    assert set(KINDS) >= SHIPPED
    keys = {field.name for field in fields(SplitConfig)}
    for kind in KINDS.values():
        assert set(kind.keys) <= keys - {"name", "group"}
        assert kind.group in (None, "case", "slide", "image")
        assert (kind.group is None) == kind.given
    with pytest.raises(UserError, match=r"split\.name=kfold: allowed are case_kfold, "):
        check_split_keys(SplitConfig("kfold"), magnification="40x")


@pytest.mark.parametrize(
    ("config", "more", "message"),
    [
        (
            {"group": "slide"},
            {},
            "split=case_kfold groups by case; split.group is for split=file and split=folders",
        ),
        ({"clean": True}, {}, r"split\.clean=true: only split=official uses it, not split=case_kfold"),
        ({"matched": True}, {}, "only split=official"),
        ({"injected": 0.5}, {}, r"split\.injected=0\.5: only split=injection"),
        ({"name": "official", "group": "slide", "clean": True, "matched": True}, {}, "give one of them"),
        ({"name": "official", "group": "slide", "shuffle_labels": True}, {}, "only split=case_kfold, "),
        ({"shuffle_labels": True}, {"task": "subtype"}, "not task=subtype"),
        ({"name": "injection", "injected": 0.1}, {}, r"0 \(the clean arm\) and 0\.25 to 1"),
        ({"name": "injection"}, {"magnification": "all"}, "magnification=all: .*give one of 40x, 100x"),
        ({}, {"dataset": "folders"}, "use split=file or split=folders, not split=case_kfold"),
        ({"name": "folders"}, {}, "split=folders needs dataset=folders, not dataset=synthetic"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(config: dict, more: dict, message: str) -> None:
    settings = {"dataset": "synthetic", "task": "binary", "magnification": "40x"} | more
    with pytest.raises(UserError, match=message):
        check_split_keys(SplitConfig(**config), **settings)


def test_keys_that_go_together_pass() -> None:
    for config, dataset in (
        (SplitConfig(), "breakhis"),
        (SplitConfig("injection", injected=0.25, shuffle_labels=True), "synthetic"),
        (SplitConfig("official", fold=1, group="slide", matched=True), "breakhis"),
        (SplitConfig("file", path="a.csv", group="image"), "folders"),
        (SplitConfig("folders", group="slide"), "folders"),
    ):
        check_split_keys(config, dataset=dataset, task="binary", magnification="40x")


def test_a_runs_name_says_what_its_split_is() -> None:
    assert split_words(Config(split=SplitConfig())) == "case_kfold-0"
    assert split_words(Config(split=SplitConfig("injection", injected=0.25))) == "injection-0-0.25"
    assert split_words(Config(split=SplitConfig("injection", injected=0.0))) == "injection-0-0"
    assert split_words(Config(split=SplitConfig("official", fold=1, clean=True))) == "official-1-clean"
    assert split_words(Config(split=SplitConfig(fold=3, shuffle_labels=True))) == "case_kfold-3-shuffled"


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60
    )


def test_a_strangers_kind_is_one_file(tmp_path: Path) -> None:
    """Listed with the others, built, proved and written like them; another process only needs the import."""
    (tmp_path / "even_cases.py").write_text(STRANGER)
    assert len(STRANGER.strip().splitlines()) <= 20
    code = """
import json, even_cases
from histo_lightning.data.breakhis.names import census_names
from histo_lightning.data.breakhis.records import record_of
from histo_lightning.data.splits import *
from histo_lightning.data.splits.registry import KINDS
from histo_lightning.errors import UserError
records = [record_of(name) for name in census_names()]
config = SplitConfig("even_cases")
check_split_keys(config, dataset="breakhis", task="binary", magnification="100x")
split = build_split(records, config, magnification="100x")
open("split.json", "w").write(json.dumps(split.as_dict()))
assert build_split(records, SplitConfig("file", path="split.json"), magnification="100x").hash == split.hash
whole = build_split(records, config)
try:
    build_split(records, SplitConfig("even_cases", clean=True))
except UserError as error:
    refusal = str(error)
print(json.dumps([split.as_dict(), whole.partition_hash, list(KINDS), refusal]))
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    split, partition, kinds, refusal = json.loads(done.stdout)
    assert "even_cases" in kinds
    assert split["kind"] == "even_cases"
    assert split["label"] == ""
    assert split["partition_hash"] == partition
    assert "by the number's last digit" in split["notes"]
    assert {int(case[-1]) % 2 for case in split["cases"]["train"]} == {0}
    assert refusal == "split.clean=true: only split=official uses it, not split=even_cases"


def test_a_strangers_leak_is_refused(tmp_path: Path) -> None:
    leaky = STRANGER.replace("record.case[-1]", "str(record.sequence)[-1]")
    (tmp_path / "even_cases.py").write_text(leaky)
    code = """
import even_cases
from histo_lightning.data.breakhis.names import census_names
from histo_lightning.data.breakhis.records import record_of
from histo_lightning.data.splits import *
build_split([record_of(name) for name in census_names()], SplitConfig("even_cases"))
"""
    done = python(code, tmp_path)
    assert done.returncode == 1
    assert "UserError: split=even_cases: 70 case(s) are in two parts" in done.stderr


def test_kinds_are_listed_without_heavy_libraries(tmp_path: Path) -> None:
    heavy = "('numpy', 'torch', 'pytorch_lightning')"
    code = f"import sys\nfrom histo_lightning.data.splits import *\nprint([m for m in {heavy} if m in sys.modules])"
    assert python(code, tmp_path).stdout.strip() == "[]"

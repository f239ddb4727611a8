"""What users of other projects type is answered with what it is called here."""

import pytest

from factories.configs import read_line
from histo_lightning.config.checks import ALIASES, advice, schema_fields
from histo_lightning.config.compose import config_tree, parse, prepare_argument
from histo_lightning.config.schema import TuneConfig
from histo_lightning.config.tree import conf_dir
from histo_lightning.errors import UserError


@pytest.mark.parametrize("name", ALIASES)
def test_each_alias_is_refused_with_its_advice(name: str) -> None:
    value = "optuna" if name == "hydra/sweeper" else "1"
    with config_tree(), pytest.raises(UserError) as error:
        parse([prepare_argument(f"{name}={value}")])
    assert str(error.value).startswith(f"unknown key {name!r}; here it is {ALIASES[name]} (")
    assert advice(name) == f"; here it is {ALIASES[name]}"


def test_plus_signs_do_not_get_around_it() -> None:
    for sign in ("+", "++"):
        with pytest.raises(UserError, match=r"here it is epochs=<n>"):
            read_line(f"{sign}trainer.max_epochs=3")


def test_no_alias_hides_a_key_or_a_group() -> None:
    keys = set(dict(schema_fields(TuneConfig)))
    groups = {path.name for path in conf_dir().iterdir() if path.is_dir()}
    assert not set(ALIASES) & (keys | groups)
    assert advice("seed") == ""


@pytest.mark.parametrize("line", [text for text in ALIASES.values() if text.startswith("callbacks=[")])
def test_advice_that_is_a_line_works(line: str) -> None:
    override = line.split(";")[0].split(" ")[0]
    assert len(read_line(override, check=None).jobs) == 1

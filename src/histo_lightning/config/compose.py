"""From overrides to checked configs: Hydra composes and multiplies, every job of a sweep is checked before any starts."""

import copy
import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from histo_lightning.config.checks import advice, is_known, keys_with, nearest, to_config, unknown_key
from histo_lightning.config.schema import SCHEMAS, AnyConfig, Config, TuneConfig
from histo_lightning.config.tree import conf_dir, option_names
from histo_lightning.errors import UserError
from histo_lightning.runs.files import utf8

LONGEST_ARGUMENT = 10_000  # characters; Hydra reads 3,000 a second
FOLDER_KEYS = ("run.dir", "sweep.dir", "sweep.subdir", "output_subdir", "job.chdir")  # of hydra
Overrides = tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """One checked config of a command line: its overrides, and the texts for a run folder's ``.hydra/``."""

    overrides: Overrides
    config: Any  # of the command's schema
    hydra: dict[str, str]


@dataclass(frozen=True)
class Composition:
    """A command line that has been read: its overrides, its jobs (one without a sweep), and the launcher's name."""

    overrides: Overrides
    jobs: tuple[Job, ...]
    multirun: bool
    launcher: str


def quoted(value: str) -> str:
    """A text that Hydra's grammar and OmegaConf read back unchanged."""
    value = re.sub(r"(\\*)('|\${)", r"\1\1\\\2", value)  # backslashes count before these only
    return "'" + re.sub(r"(\\+)$", r"\1\1", value) + "'"


def prepare_argument(argument: str) -> str:
    """An argument for Hydra: literal values quoted, ``++`` before dotted keys (an option's file may leave them out), ``+group`` as ``group``."""
    name, equals, value = argument.partition("=")
    if not equals:
        return argument
    if re.match(r"\+[^+]", name) and (conf_dir() / name[1:]).is_dir():
        name = name[1:]
    if name.lstrip("+") in keys_with("literal", True) and value not in ("", "null"):
        value = quoted(value)
    if "." in name and is_known(name, TuneConfig):  # it holds all keys of a training run
        name = f"++{name}"
    return f"{name}={value}"


@contextmanager
def config_tree() -> Iterator[None]:
    """Hydra over ``conf/``."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        # Plugins register settings of the same names, which would restrict ours.
        stored = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
        for name in option_names("hydra/launcher"):
            stored.pop(f"{name}.yaml", None)
        yield


@contextmanager
def one_line() -> Iterator[None]:
    """Hydra's messages of several lines as one; it meets odd values with any exception."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(" ".join(lines[:2]) or type(error).__name__) from error


def parse(arguments: Sequence[str], config_name: str = "train", search: Sequence[str] = ()) -> list[Override]:
    """Overrides of a command line; UserError where one cannot be read or names no key or option, also in folders of ``search``."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = []
    for argument in arguments:
        if (length := len(argument)) > LONGEST_ARGUMENT:
            problem = f"{length:,} characters where {LONGEST_ARGUMENT:,} are allowed"
            raise UserError(f"{argument[:40]}...: {problem}; put long lists in a file")
        try:
            overrides += parser.parse_overrides([argument])
        except HydraException as error:
            mend = "write key=value, and quote values with special signs"
            raise UserError(f"cannot read {argument!r}: {mend}") from error
        _check_override(overrides[-1], config_name, search)
    return overrides


def _check_override(override: Override, config_name: str, search: Sequence[str]) -> None:
    """Refuse unknown keys and options with the nearest match, before Hydra does it in several lines."""
    name, schema = override.key_or_group, cast(Any, SCHEMAS[config_name])
    if name.removeprefix("hydra.") in FOLDER_KEYS:
        raise UserError(f"{name}: use output_dir=<folder>, and run_name= or sweep_name= for the name in it")
    if advice(name):
        raise unknown_key(name, schema)
    if name == "hydra" or name.startswith("hydra."):
        return
    options = [] if "." in name else option_names(name)
    if "." not in name and (search or "/" in name):  # in folders of the user's own, and Hydra's
        loader = GlobalHydra.instance().config_loader()
        with one_line():
            names = loader.get_group_options(name, config_name=config_name, overrides=list(search))
        options = sorted(option for option in names if not option.startswith("_"))
    if not options and not (is_known(name, schema) or name.startswith("hydra/")):
        raise unknown_key(name, schema)
    if options and not override.is_delete():
        value = override.value()
        for item in value.list if isinstance(value, ChoiceSweep) else [value]:
            for choice in item if isinstance(item, list) else [item]:
                text = "null" if choice is None else str(choice)
                if isinstance(choice, (str, int, type(None))) and text not in options:
                    allowed = f"allowed are {', '.join(options)}{nearest(text, options)}"
                    raise UserError(f"{name}={text}: no such option; {allowed}")


def _composed(config_name: str, overrides: Sequence[str]) -> DictConfig:
    with one_line():
        return compose(config_name, overrides=list(overrides), return_hydra_config=True)


def _is_value(override: Override, config_name: str) -> bool:
    """Whether an override gives a key of ours a value, and chooses no option."""
    name = override.key_or_group
    own = override.package is None and is_known(name, cast(Any, SCHEMAS[config_name]))
    return own and ("." in name or not option_names(name))


def job_tree(config_name: str, job: Sequence[Override], trees: dict[Overrides, DictConfig]) -> DictConfig:
    """What Hydra composes from a job's overrides; jobs with the same options share one of ``trees`` and set their values in a copy.

    Hydra takes 0.15 s for a job, most of it for the options; it too sets values after them, in their order.
    """
    if any(each.is_delete() or each.is_add() for each in job):  # then the order of all counts
        return _composed(config_name, [str(each.input_line) for each in job])
    values = [each for each in job if _is_value(each, config_name)]
    options = tuple(str(each.input_line) for each in job if each not in values)
    if options not in trees:
        trees[options] = _composed(config_name, options)
    with one_line():
        tree = copy.deepcopy(trees[options])
        for each in values:
            OmegaConf.update(tree, each.key_or_group, each.value(), force_add=each.is_force_add())
        own, about = [o for o in job if not o.is_hydra_override()], tree.hydra.job.config.override_dirname
        tree.hydra.overrides.task = [each.input_line for each in own]
        named = sorted(str(each.input_line) for each in own if each.key_or_group not in about.exclude_keys)
        tree.hydra.job.override_dirname = about.item_sep.join(named).replace("=", about.kv_sep)
    return tree


def _job(config_name: str, tree: DictConfig, overrides: Sequence[str]) -> Job:
    with open_dict(tree):
        hydra = tree.pop("hydra")
    parts = {"config": tree, "hydra": OmegaConf.create({"hydra": hydra}), "overrides": hydra.overrides.task}
    texts = {f"{name}.yaml": OmegaConf.to_yaml(part) for name, part in parts.items()}
    return Job(tuple(overrides), to_config(tree, SCHEMAS[config_name]), texts)


def read_jobs(
    config_name: str, arguments: Sequence[str], *, multirun: bool, prepared: Sequence[str] = ()
) -> Composition:
    """Compose and check every job of a command line, inside :func:`config_tree`; ``prepared``: by :func:`prepare_argument`."""
    given = (*map(prepare_argument, arguments), *prepared)
    search = [line for line in given if line.lstrip("+").startswith("hydra.searchpath=")]
    overrides = parse(given, config_name, search)
    fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
    tree = _composed(config_name, fixed)
    with one_line():
        launcher = str(tree.hydra.runtime.choices.get("hydra/launcher", "basic"))
        multirun = multirun or tree.hydra.mode == RunMode.MULTIRUN
        sweeper: Any = OmegaConf.to_container(tree.hydra.sweeper, resolve=False)
        products = [dict(product) for product in sweeper.get("products") or [sweeper.get("params") or {}]]
    if not multirun:
        for override in filter(Override.is_sweep_override, overrides):
            line = str(override.input_line).lstrip("+")
            raise UserError(f"{line}: several values make a sweep; add -m to run them all")
        return Composition(given, (_job(config_name, tree, fixed),), False, launcher)
    # Only what is run names a sweep, so the same command resumes it.
    own = sorted(a for a in given if not a.startswith(("output_dir=", "json=", "hydra", "resume=")))
    sweep_name = f"sweep_{hashlib.sha256(utf8(chr(0).join(own))).hexdigest()[:8]}"
    chosen = {override.key_or_group for override in overrides}  # the command line wins
    jobs, trees = [], dict[Overrides, DictConfig]()
    read = cache(lambda line: parse([line], config_name, search)[0])
    for product in products:
        values = [prepare_argument(f"{key}={text}") for key, text in product.items() if key not in chosen]
        choices = []
        for override in (*parse(values, config_name, search), *overrides):
            key, several = str(override.input_line).split("=", 1)[0], override.is_sweep_override()
            each = (f"{key}={value}" for value in override.sweep_string_iterator()) if several else ()
            choices.append([*each] or [str(override.input_line)])
        for lines in itertools.product(*choices):
            job = _job(config_name, job_tree(config_name, [*map(read, lines)], trees), lines)
            if isinstance(job.config, Config) and job.config.sweep_name is None:
                job.config.sweep_name = sweep_name
            jobs.append(job)
    return Composition(given, tuple(jobs), True, launcher)


def config_of(config_name: str, arguments: Sequence[str], prepared: Sequence[str] = ()) -> AnyConfig:
    """The checked config of a command line without ``-m``; ``prepared`` as in :func:`read_jobs`."""
    with config_tree():
        return read_jobs(config_name, arguments, multirun=False, prepared=prepared).jobs[0].config  # type: ignore[no-any-return]

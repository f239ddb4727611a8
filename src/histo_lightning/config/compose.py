"""From overrides to checked configs: Hydra composes and multiplies, every job of a sweep is checked before any starts.

Hydra's own messages (several lines, exit status 1) are replaced by one line.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from histo_lightning.config.aliases import ALIASES
from histo_lightning.config.checks import FREE, is_known, literal_keys, nearest, to_config, unknown_key
from histo_lightning.config.schema import SCHEMAS, AnyConfig, Config, TuneConfig
from histo_lightning.config.tree import conf_dir
from histo_lightning.errors import UserError

FOLDER_KEYS = (
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.sweep.subdir",
    "hydra.output_subdir",
    "hydra.job.chdir",
)


@dataclass(frozen=True)
class Job:
    """One checked config of a command line: its overrides, and the texts for a run folder's ``.hydra/``."""

    overrides: tuple[str, ...]
    config: AnyConfig
    hydra: dict[str, str]


@dataclass(frozen=True)
class Composition:
    """A command line that has been read: its overrides, its jobs (one without a sweep), and the launcher's name."""

    overrides: tuple[str, ...]
    jobs: tuple[Job, ...]
    multirun: bool
    launcher: str


def prepare_argument(argument: str) -> str:
    """Make an argument safe for Hydra.

    The value of a key that is taken literally is quoted, so that Hydra's grammar and OmegaConf's interpolation
    leave it alone. A dotted key gets ``++``: it can be set though its group's file leaves it out. ``+group=option`` is
    ``group=option`` where the group is one of ours.
    """
    name, equals, value = argument.partition("=")
    if not equals:
        return argument
    if name.startswith("+") and not name.startswith("++") and (conf_dir() / name[1:]).is_dir():
        name = name[1:]
    if name.lstrip("+") in literal_keys() and value not in ("", "null"):
        value = value.replace("${", r"\${")
        value = re.sub(r"(\\*)'", r"\1\1\\'", value)  # backslashes count before a quote only
        value = re.sub(r"(\\+)$", r"\1\1", value)
        value = f"'{value}'"
    if "." in name and is_known(name, TuneConfig):  # it holds all keys of a training run
        name = f"++{name}"
    return f"{name}={value}"


@contextmanager
def config_tree(config_dirs: Sequence[str] = ()) -> Iterator[list[str]]:
    """Hydra over ``conf/`` and a user's folders; yields the overrides that add the latter.

    Raises:
        UserError: a folder does not exist.
    """
    folders = []
    for folder in config_dirs:
        path = Path(folder).resolve()
        if not path.is_dir():
            raise UserError(f"--config-dir {folder}: no such folder")
        folders.append(f"file://{path}")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        _prefer_our_launchers()
        yield [f"hydra.searchpath=[{','.join(folders)}]"] if folders else []


def _prefer_our_launchers() -> None:
    """Take the plugins' settings out of Hydra's store where conf/ has a file of that name, which they would restrict."""
    stored = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for path in (conf_dir() / "hydra" / "launcher").glob("*.yaml"):
        stored.pop(path.name, None)


def group_options(group: str, search: Sequence[str] = (), config_name: str = "train") -> list[str]:
    """The options of a group in ``conf/`` and in the user's folders, sorted."""
    loader = GlobalHydra.instance().config_loader()
    try:
        options = loader.get_group_options(group, config_name=config_name, overrides=list(search))
        return sorted(option for option in options if not option.startswith("_"))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_first_line(error)) from error


def parse(arguments: Sequence[str], config_name: str = "train", search: Sequence[str] = ()) -> list[Override]:
    """Overrides of a command's line.

    Raises:
        UserError: one cannot be read, or names a key or an option that does not exist.
    """
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = []
    for argument in arguments:
        try:
            override = parser.parse_overrides([argument])[0]
        except HydraException as error:
            raise UserError(
                f"cannot read {argument!r}: write key=value, and quote values with special signs"
            ) from error
        _check_override(override, config_name, search)
        overrides.append(override)
    return overrides


def _check_override(override: Override, config_name: str, search: Sequence[str]) -> None:
    """Refuse unknown keys and options with the nearest match, before Hydra does it in several lines."""
    name, schema = override.key_or_group, SCHEMAS[config_name]
    if name in FOLDER_KEYS:
        raise UserError(
            f"{name}: use output_dir=<folder>, and run_name= or sweep_name= for the folder's name in it"
        )
    if name == "hydra/sweeper" or name in ALIASES:
        raise unknown_key(name, schema)
    if name == "hydra" or name.startswith("hydra."):
        return
    options = group_options(name, search, config_name) if "." not in name else []
    if options and not override.is_delete():
        wanted = override.value()
        choices = wanted.list if isinstance(wanted, ChoiceSweep) else [wanted]
        for choice in choices:
            for one in choice if isinstance(choice, list) else [choice]:
                label = str(getattr(one, "text", one))
                if isinstance(one, (str, int)) and label not in options:
                    raise UserError(
                        f"{name}={label}: no such option; allowed are {', '.join(options)}{nearest(label, options)}"
                    )
        return
    if not options and not is_known(name, schema) and name not in FREE and not name.startswith("hydra/"):
        raise unknown_key(name, schema)


def expand(overrides: Sequence[Override], multirun: bool) -> list[list[str]]:
    """The override lists of all jobs: one without ``-m``, else every combination of the values given."""
    if not multirun:
        for override in overrides:
            if override.is_sweep_override():
                raise UserError(
                    f"{str(override.input_line).lstrip('+')}: several values make a sweep; add -m to run them all"
                )
    values: list[list[str]] = []
    for override in overrides:
        if override.is_sweep_override():
            prefix = str(override.input_line).split("=", 1)[0]
            values.append([f"{prefix}={value}" for value in override.sweep_string_iterator()])
        else:
            values.append([str(override.input_line)])
    return [list(job) for job in itertools.product(*values)]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def composed(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """What Hydra composes, with its own node ``hydra``; raises UserError."""
    try:
        return compose(config_name, overrides=list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_first_line(error)) from error


def job_of(config_name: str, tree: DictConfig, overrides: Sequence[str]) -> Job:
    """The checked job of a composed tree."""
    hydra = tree.hydra
    own = OmegaConf.masked_copy(tree, [str(name) for name in tree if name != "hydra"])
    texts = {
        "config.yaml": OmegaConf.to_yaml(own),
        "hydra.yaml": OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})),
        "overrides.yaml": OmegaConf.to_yaml(hydra.overrides.task),
    }
    return Job(tuple(overrides), to_config(own, SCHEMAS[config_name]), texts)


def sweep_id(arguments: Sequence[str]) -> str:
    """A name for a sweep that only depends on its overrides: the same command goes on."""
    own = sorted(a for a in arguments if not a.startswith(("output_dir=", "json=", "hydra", "resume=")))
    return f"sweep_{hashlib.sha256(chr(0).join(own).encode()).hexdigest()[:8]}"


def read_jobs(
    config_name: str,
    arguments: Sequence[str],
    *,
    multirun: bool,
    search: Sequence[str] = (),
    prepared: Sequence[str] = (),
) -> Composition:
    """Compose and check every job of a command line, inside :func:`config_tree`.

    Args:
        config_name: of the command.
        arguments: as typed.
        multirun: whether several values of a key make a sweep.
        search: what :func:`config_tree` yields.
        prepared: more overrides, that :func:`prepare_argument` has made already; quoting them again would change them.

    Raises:
        UserError: anything the user can mend.
    """
    given = (*map(prepare_argument, arguments), *prepared)
    if given_path := [a for a in given if a.startswith(("hydra.searchpath=", "++hydra.searchpath="))]:
        search = [*search, *given_path]
    overrides = parse(given, config_name, search)
    fixed = [str(o.input_line) for o in overrides if not o.is_sweep_override()]
    tree = composed(config_name, [*search, *fixed] if search and not given_path else fixed)
    launcher = str(tree.hydra.runtime.choices.get("hydra/launcher", "basic"))
    products: list[dict[str, Any]] = [{}]
    multirun = multirun or tree.hydra.mode == RunMode.MULTIRUN
    if multirun:
        sweeper: Any = OmegaConf.to_container(tree.hydra.sweeper, resolve=False)
        products = sweeper.get("products") or [sweeper.get("params") or {}]
    extra = [] if given_path else list(search)
    lists: list[list[str]] = []
    chosen = {override.key_or_group for override in overrides}  # the command line wins
    for product in products:
        values = [
            prepare_argument(f"{name}={value}") for name, value in product.items() if name not in chosen
        ]
        own = parse(values, config_name, search)
        lists += [[*extra, *job] for job in expand([*own, *overrides], multirun)]
    if not multirun and lists == [[*extra, *fixed]]:
        return Composition(given, (job_of(config_name, tree, lists[0]),), False, launcher)
    jobs = []
    name = sweep_id(given)
    for overrides_of_job in lists:
        job = job_of(config_name, composed(config_name, overrides_of_job), overrides_of_job)
        if isinstance(job.config, Config) and job.config.sweep_name is None:
            job.config.sweep_name = name
        jobs.append(job)
    return Composition(given, tuple(jobs), multirun, launcher)


def config_of(config_name: str, arguments: Sequence[str], prepared: Sequence[str] = ()) -> AnyConfig:
    """The checked config that a command line without ``-m`` describes; ``prepared`` as in :func:`read_jobs`.

    Raises:
        UserError: anything the user can mend.
    """
    with config_tree():
        return read_jobs(config_name, arguments, multirun=False, prepared=prepared).jobs[0].config

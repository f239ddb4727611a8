"""From a command line to checked configs and jobs: what every Hydra front door shares.

Hydra composes and multiplies; its own messages (several lines, exit status 1) are replaced by one line and
exit status 2, and nothing starts before every job of a sweep has been validated.
"""

import hashlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir, main
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from histo_lightning.config import LITERAL_KEYS, is_known, nearest, schema_keys, to_config
from histo_lightning.errors import UserError
from histo_lightning.schema import SCHEMAS, AnyConfig, Config, TuneConfig

SWEEPING = ("train", "tune")  # commands that take -m
EXIT_DEFECT, EXIT_USER, EXIT_FOUND, EXIT_INTERRUPTED = 1, 2, 3, 75


def conf_dir() -> Path:
    """The config tree: inside the installed package (a wheel), else at the repository root (an editable install)."""
    packaged = Path(str(files("histo_lightning"))) / "conf"
    if packaged.is_dir():
        return packaged
    root = Path(__file__).resolve().parents[2] / "conf"
    if root.is_dir():
        return root
    raise UserError(
        f"the config tree is missing: neither {packaged} nor {root} is there; install the package again"
    )


def prepare_argument(argument: str) -> str:
    """Make an argument safe for Hydra.

    The value of a key that is taken literally is quoted, so that Hydra's grammar and OmegaConf's interpolation
    leave it alone. A dotted key of the schema gets ``++``: it can be set though its group's file leaves it out.
    """
    key, equals, value = argument.partition("=")
    if equals and key.lstrip("+") in LITERAL_KEYS and value not in ("", "null"):
        value = value.replace("${", r"\${")
        value = re.sub(r"(\\*)'", r"\1\1\\'", value)  # backslashes count before a quote only
        value = re.sub(r"(\\+)$", r"\1\1", value)
        value = f"'{value}'"
    if (
        equals and "." in key and is_known(key, schema_keys(TuneConfig))
    ):  # it holds all keys of a training run
        key = f"++{key}"
    return f"{key}{equals}{value}"


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def _check_override(override: Override, schema: type[AnyConfig]) -> None:
    """Refuse unknown keys and group options with the nearest match, before Hydra does it in several lines."""
    key = override.key_or_group
    if key == "hydra" or key.startswith("hydra."):
        return
    if (conf_dir() / key).is_dir() and not key.startswith("hydra"):
        options = _options(key)
        wanted = override.value()
        choices = wanted.list if isinstance(wanted, ChoiceSweep) else [wanted]
        for choice in choices:
            name = str(getattr(choice, "text", choice))
            if isinstance(choice, (str, int)) and name not in options:
                raise UserError(
                    f"{key}={name}: no such option; allowed are {', '.join(options)}{nearest(name, options)}"
                )
        return
    allowed = schema_keys(schema)
    groups = sorted({k.split(".")[0] for k in allowed if "." in k} | {"experiment"})
    if not is_known(key, allowed) and key not in groups and not key.startswith("hydra/"):
        raise UserError(
            f"unknown key {key!r}{nearest(key, allowed + groups)} (all keys stand in conf/train.yaml)"
        )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def parse(arguments: Sequence[str], config_name: str = "train") -> list[Override]:
    """Overrides of a command's line; raise UserError for what cannot be read or does not exist."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = []
    for argument in arguments:
        try:
            override = parser.parse_overrides([argument])[0]
        except HydraException as error:
            raise UserError(
                f"cannot read {argument!r}: write key=value, and quote values with special signs"
            ) from error
        _check_override(override, SCHEMAS[config_name])
        overrides.append(override)
    return overrides


def expand(overrides: list[Override], multirun: bool) -> list[list[str]]:
    """The override lists of all jobs: one without ``-m``, else the product that Hydra's basic sweeper makes."""
    if not multirun:
        for override in overrides:
            if override.is_sweep_override():
                raise UserError(f"{override.input_line}: several values make a sweep; add -m to run them all")
        return [[str(override.input_line) for override in overrides]]
    batches = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return [list(job) for batch in batches for job in batch]


def _sweep_settings(
    config_name: str, overrides: Sequence[Override]
) -> tuple[bool, str, list[dict[str, str]]]:
    """Whether an experiment file is a sweep by itself, the launcher's name, and the products of the sweep."""
    fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
    try:
        hydra = compose(config_name, overrides=fixed, return_hydra_config=True).hydra
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_first_line(error)) from error
    given = OmegaConf.to_container(hydra.sweeper, resolve=False)
    assert isinstance(given, dict)
    products = given.get("products") or [given.get("params") or {}]
    return hydra.mode == RunMode.MULTIRUN, str(hydra.runtime.choices["hydra/launcher"]), products


def compose_all(config_name: str, jobs: list[list[str]]) -> list[AnyConfig]:
    """Compose and check every job; the first that is wrong raises UserError."""
    configs = []
    for job in jobs:
        try:
            configs.append(to_config(compose(config_name, overrides=job), SCHEMAS[config_name]))
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_first_line(error)) from error
    return configs


def sweep_id(arguments: Sequence[str]) -> str:
    """A name for a sweep that only depends on its overrides: the same command goes on."""
    own = sorted(a for a in arguments if not a.startswith(("output_dir=", "json=", "hydra", "resume=")))
    return f"sweep_{hashlib.sha256(chr(0).join(own).encode()).hexdigest()[:8]}"


def hydra_texts(composed: DictConfig) -> dict[str, str]:
    """The three files of a run folder's ``.hydra/``."""
    hydra = HydraConfig.instance().cfg
    assert hydra is not None
    return {
        "config.yaml": OmegaConf.to_yaml(composed),
        "hydra.yaml": OmegaConf.to_yaml(hydra),
        "overrides.yaml": OmegaConf.to_yaml(HydraConfig.get().overrides.task),
    }


def _prefer_our_launchers() -> None:
    """Take the plugins' settings out of Hydra's store where conf/ has a file of that name, which they would restrict."""
    stored = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for name in _options("hydra/launcher"):
        stored.pop(f"{name}.yaml", None)


@dataclass(frozen=True)
class Command:
    """A command line that has been read: its overrides, its jobs (one without a sweep), each job's checked config.

    ``shows`` is True where Hydra only prints something (``--help``, ``--cfg``); there are no jobs then.
    """

    overrides: tuple[str, ...]
    jobs: tuple[list[str], ...]
    configs: tuple[AnyConfig, ...]
    multirun: bool
    launcher: str
    shows: bool


def read_command(config_name: str) -> Command:
    """Read ``sys.argv`` and validate every job before any work.

    Raises:
        UserError: anything the user can mend.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to guard()
    sys.argv[1:] = [prepare_argument(argument) for argument in sys.argv[1:]]
    usage = StringIO()
    try:
        with redirect_stderr(usage):
            arguments = get_args_parser().parse_args(sys.argv[1:])
    except SystemExit as stop:
        if stop.code:
            raise UserError(usage.getvalue().strip().splitlines()[-1] + " (see --help)") from None
        raise
    given = tuple(arguments.overrides)
    if arguments.help or arguments.hydra_help or arguments.cfg or arguments.info:
        return Command(given, (), (), False, "basic", True)
    if arguments.multirun and config_name not in SWEEPING:
        raise UserError(f"{config_name} takes no -m: only {' and '.join(SWEEPING)} do")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        _prefer_our_launchers()
        overrides = parse(given, config_name)
        swept, launcher = False, "basic"
        products: list[dict[str, str]] = [{}]
        if config_name == "train":
            swept, launcher, products = _sweep_settings(config_name, overrides)
        multirun = swept or bool(arguments.multirun)
        jobs: list[list[str]] = []
        for product in products:
            own = parse([f"{key}={value}" for key, value in product.items()], config_name)
            jobs += expand([*own, *overrides], multirun)  # what the command line says wins
        configs = compose_all(config_name, jobs)
        if multirun:
            name = sweep_id(given)
            for job, config in zip(jobs, configs, strict=True):
                if isinstance(config, Config) and config.sweep_name is None:
                    config.sweep_name = name
                    job.append(f"sweep_name={name}")
            if jobs[0][-1] == f"sweep_name={name}":
                sys.argv.append(f"sweep_name={name}")
    if not (arguments.multirun or arguments.run):  # said outright: an experiment file may make itself a sweep
        sys.argv.insert(1, "--multirun" if multirun else "--run")
    return Command(given, tuple(jobs), tuple(configs), multirun, launcher, False)


def run_hydra(config_name: str, task: Callable[[DictConfig], None]) -> None:
    """Let Hydra run ``task`` on ``sys.argv``: its one job, or with ``--multirun`` those of the sweeper."""
    try:
        main(config_path=str(conf_dir()), config_name=config_name, version_base="1.3")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_first_line(error)) from error


def run_here(config_name: str, work: Callable[[Any, dict[str, str]], Any]) -> list[Any]:
    """Let Hydra run ``work(config, hydra_texts)`` in this process; what it returned for each job.

    The first job that raises ends it; the list is empty where Hydra only showed something.
    """
    results: list[Any] = []
    raised: list[BaseException] = []

    def task(composed: DictConfig) -> None:
        if raised:
            return
        try:
            results.append(work(to_config(composed, SCHEMAS[config_name]), hydra_texts(composed)))
        except BaseException as error:  # kept from Hydra, which would add lines of its own
            raised.append(error)

    run_hydra(config_name, task)
    if raised:
        raise raised[0]
    return results


def launch(config_name: str, work: Callable[[Any, dict[str, str]], Any]) -> list[Any]:
    """Read the command line and run ``work`` for each of its jobs, here and one after the other."""
    command = read_command(config_name)
    if not command.multirun:
        return run_here(config_name, work)
    from hydra_plugins.histo_lightning_sweeps.sweeper import jobs_to_launch

    with jobs_to_launch(command.jobs):
        return run_here(config_name, work)


def guard(run: Callable[[], int]) -> int:
    """Run a front door; turn what goes wrong into one line on stderr and an exit status.

    ``HISTO_DEBUG=1`` shows the traceback.
    """
    try:
        return run()
    except UserError as error:
        return _report(error, f"error: {error}", EXIT_USER)
    except KeyboardInterrupt as error:
        return _report(
            error,
            "interrupted: the same command goes on (training: from its last finished epoch)",
            EXIT_INTERRUPTED,
        )
    except BrokenPipeError:  # the reader (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # the front door: the last place that can keep a traceback off the screen
        where = "" if _debugging() else " (HISTO_DEBUG=1 shows where)"
        return _report(error, f"defect: {type(error).__name__}: {_first_line(error)}{where}", EXIT_DEFECT)


def _debugging() -> bool:
    return os.environ.get("HISTO_DEBUG") == "1"


def _report(error: BaseException, message: str, status: int) -> int:
    if _debugging():
        traceback.print_exception(error)
    print(message, file=sys.stderr)
    return status

"""Objects from ``_target_``: looked up, checked by base class and by signature, and only then built."""

import importlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from histo_lightning.config.checks import advice, nearest
from histo_lightning.errors import UserError

# Packages whose modules may be imported to look a name up, also for a checkpoint from somewhere else.
KNOWN_PACKAGES = ("histo_lightning", "torch", "torchvision", "pytorch_lightning", "lightning")
NETWORK_MODULES = {"histo_lightning.models", "torchvision.models"}  # or a user's imports
TYPE_NAMES: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
TYPE_NAMES |= {list: "a list", tuple: "a list", dict: "keys and values", type(None): "null"}
Callee = Callable[..., Any]


def import_modules(names: Iterable[str]) -> None:
    """Import the user's modules, whose networks may then be named; UserError where one is missing or fails."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a user's module raises
            problem = f"cannot be imported ({type(error).__name__}: {error})"
            mend = "give a module of the current folder or of the Python path"
            raise UserError(f"imports=[{name}]: {problem}; {mend}") from error
        NETWORK_MODULES.add(name)


def locate(target: str, key: str, *, imported_only: bool = False) -> Any:
    """The object of a dotted name, or UserError; ``imported_only`` (a checkpoint's name) imports modules of well-known packages only."""
    parts = target.split(".")
    for count in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:count])
        if module not in sys.modules:
            if imported_only and parts[0] not in KNOWN_PACKAGES:
                continue
            try:
                importlib.import_module(module)
            except ImportError:
                continue
            except Exception as error:  # whatever a module raises when it is imported
                raise UserError(f"{key}={target}: importing {module} fails ({error})") from error
        located: Any = sys.modules[module]
        for part in parts[count:]:
            if not hasattr(located, part):
                names = [name for name in dir(located) if not name.startswith("_")]
                raise UserError(f"{key}={target}: {module} has no {part!r}{nearest(part, names)}")
            located, module = getattr(located, part), f"{module}.{part}"
        return located
    hint = "name its module in imports=[...]" if imported_only else "is it installed, or in this folder?"
    raise UserError(f"{key}={target}: there is no module {'.'.join(parts[:-1]) or target!r}; {hint}")


def arguments(settings: Mapping[str, Any], leave: Iterable[str] = ()) -> dict[str, Any]:
    """The arguments among settings: all but ``_target_``, ``name`` and those in ``leave``."""
    return {name: value for name, value in settings.items() if name not in ("_target_", "name", *leave)}


def _located(given: Any, key: str, wanted: str, imported_only: bool) -> Any:
    if not isinstance(given, Mapping):
        raise UserError(f"{key}={given}: give _target_ and arguments, or ~{key} to take it out{advice(key)}")
    target = given.get("_target_")
    if not isinstance(target, str):
        raise UserError(f"{key}._target_ is missing: name {wanted}")
    return locate(target, f"{key}._target_", imported_only=imported_only)


def class_of(settings: Mapping[str, Any], base: type, key: str, *, imported_only: bool = False) -> type[Any]:
    """The class that ``_target_`` names; UserError where it is not a subclass of ``base``."""
    wanted = f"a subclass of {base.__module__}.{base.__name__}"
    located = _located(settings, key, wanted, imported_only)
    if not (isinstance(located, type) and issubclass(located, base)):
        raise UserError(f"{key}._target_={settings['_target_']}: is no {base.__name__}; name {wanted}")
    return located


def network_factory(settings: Mapping[str, Any], *, imported_only: bool = False) -> Callee:
    """What makes a network, defined in this package, torchvision.models or a user's module; UserError for others."""
    located = _located(settings, "model", "a network, or choose model=<option>", imported_only)
    defined = located.func if isinstance(located, partial) else located
    trusted = f"{getattr(defined, '__module__', '')}.".startswith(tuple(f"{n}." for n in NETWORK_MODULES))
    if not (trusted and isinstance(defined, (type, types.FunctionType))):
        problem = "is not a network of histo_lightning.models or torchvision.models"
        mend = "a network of your own comes with imports=[its_module]"
        raise UserError(f"model._target_={settings['_target_']}: {problem}; {mend}")
    return typing.cast(Callee, located)


def parameters_of(callee: Callee) -> Mapping[str, inspect.Parameter]:
    """The parameters of a signature; none where it is built in C."""
    for evaluated in (True, False):  # annotations may need modules that are not there
        with suppress(Exception):
            return inspect.signature(callee, eval_str=evaluated).parameters
    return {}


def check_arguments(callee: Callee, given: Mapping[str, Any], key: str, filled: Iterable[str] = ()) -> None:
    """UserError for an argument that a signature lacks or needs, or of another type; the program itself gives those in ``filled``."""
    parameters = parameters_of(callee)
    named = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    open_ended = not parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    allowed = [name for name in named if name not in filled]
    for name, value in given.items():
        if isinstance(value, dict) and "_target_" in value:
            raise UserError(f"{key}.{name}._target_: objects inside arguments are not built; give a value")
        if name in named and not (name in filled and value is None):
            _check_type(f"{key}.{name}", value, named[name])
        elif name not in named and not open_ended:
            hint = f"{nearest(name, allowed)}; it takes {', '.join(allowed)}"
            raise UserError(f"{key}.{name}: {_name_of(callee)} has no such argument{hint}")
    for name in allowed:
        if named[name].default is inspect.Parameter.empty and name not in given:
            raise UserError(f"{key}.{name} is missing: {_name_of(callee)} needs it")


def _name_of(callee: Any) -> str:
    while isinstance(callee, partial):
        callee = callee.func
    return str(getattr(callee, "__name__", callee))


def _check_type(name: str, value: Any, parameter: inspect.Parameter) -> None:
    accepted = _accepted(parameter.annotation)
    if not accepted:  # no annotation, or none of basic types: the default says more
        default = type(parameter.default)
        accepted = {int, float} if default in (int, float) else {default} & {bool, str}
        if not accepted or value is None:
            return
    kind = tuple if isinstance(value, list) and tuple in accepted else type(value)
    fits = kind in accepted or (kind is int and float in accepted)
    if not fits and value not in [choice for choice in accepted if not isinstance(choice, type)]:
        if float in accepted:
            accepted.add(int)
        words = sorted({TYPE_NAMES.get(one, repr(one)) for one in accepted})
        raise UserError(f"{name}={value}: is of another type; allowed is {', or '.join(words)}")


def _accepted(annotation: Any) -> set[Any]:
    """The basic types and literal values that an annotation names; empty where it names none but null."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        accepted = {kind for one in inner for kind in _accepted(one)}
        return set() if accepted == {type(None)} else accepted
    if origin is typing.Literal:
        return set(inner)
    return {type(None) if annotation is None else origin or annotation} & TYPE_NAMES.keys()


def build(callee: Callee, given: Mapping[str, Any], key: str, **filled: Any) -> Any:
    """Call with checked arguments, and ``filled`` where the config says nothing or null; UserError if they do not fit."""
    parameters = parameters_of(callee)
    own = {name: value for name, value in filled.items() if name in parameters and given.get(name) is None}
    values = {name: value for name, value in given.items() if name not in own}
    check_arguments(callee, values, key, filled=own)
    for name, value in values.items():
        if isinstance(value, list) and name in parameters and isinstance(parameters[name].default, tuple):
            values[name] = tuple(value)
    try:
        return callee(**own, **values)
    except ModuleNotFoundError as error:
        raise UserError(f"{key}: needs the package {error.name}; install it (see the README)") from error
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{key}: {_name_of(callee)} refuses its arguments ({reason[0]})") from error

"""Objects from ``_target_``: found, checked by kind and by signature, and only then built.

``{"_target_": "torch.optim.AdamW", "lr": 0.001}`` names a class and its arguments. What it names must be a subclass of the
base that its place in the config asks for; a name that merely begins with a trusted package says nothing
(``torch.optim.adam.torch.hub.load`` begins with ``torch.optim``).
"""

import importlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from histo_lightning.config.checks import nearest
from histo_lightning.errors import UserError

# Packages whose modules may be imported to look a name up, also for a checkpoint from somewhere else.
KNOWN_PACKAGES = ("histo_lightning", "torch", "torchvision", "pytorch_lightning", "lightning")
NETWORK_MODULES = [
    "histo_lightning.models",
    "torchvision.models",
]  # networks come from here, or from a user's imports
YAML_WORDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    tuple: "a list",
    dict: "keys and values",
    type(None): "null",
}
BASIC = (bool, int, float, str, list, tuple, dict, type(None))


def import_modules(names: Iterable[str]) -> None:
    """Import the user's own modules, from the current folder or the Python path; their networks may then be named.

    Raises:
        UserError: a module cannot be found or fails.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a user's module raises
            raise UserError(
                f"imports=[{name}]: cannot be imported ({type(error).__name__}: {error}); give a module of the current "
                "folder or of the Python path"
            ) from error
        if name not in NETWORK_MODULES:
            NETWORK_MODULES.append(name)


def locate(target: str, key: str, *, imported_only: bool = False) -> Any:
    """The object that a dotted name means.

    Args:
        imported_only: import nothing but modules of well-known packages: the name comes from a checkpoint.

    Raises:
        UserError: there is no such object.
    """
    parts = target.split(".")
    found: Any = None
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
        found = sys.modules[module]
        for position, part in enumerate(parts[count:], start=count):
            if not hasattr(found, part):
                names = [name for name in dir(found) if not name.startswith("_")]
                raise UserError(
                    f"{key}={target}: {'.'.join(parts[:position])} has no {part!r}{nearest(part, names)}"
                )
            found = getattr(found, part)
        return found
    hint = (
        "; name its module in imports=[...]"
        if imported_only
        else "; is it installed, or in the current folder?"
    )
    raise UserError(f"{key}={target}: there is no module {'.'.join(parts[:-1]) or target!r}{hint}")


def arguments(settings: Mapping[str, Any], leave: Iterable[str] = ()) -> dict[str, Any]:
    """The arguments among settings: all but ``_target_``, ``name`` and those in ``leave``."""
    return {name: value for name, value in settings.items() if name not in ("_target_", "name", *leave)}


def class_of(settings: Mapping[str, Any], base: type, key: str, *, imported_only: bool = False) -> type[Any]:
    """The class that ``_target_`` names.

    Raises:
        UserError: there is none, or it is not a subclass of ``base``.
    """
    target = settings.get("_target_")
    if not isinstance(target, str):
        raise UserError(f"{key}._target_ is missing: name a subclass of {base.__module__}.{base.__name__}")
    found = locate(target, f"{key}._target_", imported_only=imported_only)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(
            f"{key}._target_={target}: is no {base.__name__}; name a subclass of {base.__module__}.{base.__name__}"
        )
    return found


def network_factory(settings: Mapping[str, Any], *, imported_only: bool = False) -> Callable[..., Any]:
    """What makes a network: a class or function defined in this package, torchvision.models or a user's module.

    Raises:
        UserError: there is none, or it is defined elsewhere.
    """
    target = settings.get("_target_")
    if not isinstance(target, str):
        raise UserError("model._target_ is missing: name a network, or choose model=<option>")
    found = locate(target, "model._target_", imported_only=imported_only)
    defined = found.func if isinstance(found, partial) else found
    module = str(getattr(defined, "__module__", ""))
    callable_kind = isinstance(defined, (type, types.FunctionType))
    if not callable_kind or not any(
        module == name or module.startswith(f"{name}.") for name in NETWORK_MODULES
    ):
        raise UserError(
            f"model._target_={target}: is not a network of histo_lightning.models or torchvision.models; a network of your "
            "own comes with imports=[its_module]"
        )
    return typing.cast(Callable[..., Any], found)


def check_arguments(
    callee: Callable[..., Any], given: Mapping[str, Any], key: str, *, filled: Iterable[str] = ()
) -> None:
    """Compare arguments with a signature: names, required ones, and simple types.

    Args:
        filled: names of arguments that the program gives itself.

    Raises:
        UserError: an unknown argument (with the nearest), a missing one, or a value of another type.
    """
    try:
        parameters = dict(inspect.signature(callee).parameters)
    except (TypeError, ValueError):  # built in C: nothing to compare with
        return
    if isinstance(callee, type):
        parameters.pop("self", None)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    filled = list(filled)
    allowed = [name for name in named if name not in filled]
    types_of = _annotations(callee)
    for name, value in given.items():
        if isinstance(value, dict) and "_target_" in value:
            raise UserError(
                f"{key}.{name}._target_: objects inside arguments are not built; give a plain value"
            )
        if name in filled and value is None:
            continue
        if name not in named:
            if open_ended:
                continue
            raise UserError(
                f"{key}.{name}: {_name_of(callee)} has no such argument{nearest(name, allowed)}; it takes {', '.join(allowed)}"
            )
        _check_type(f"{key}.{name}", value, named[name], types_of.get(name))
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in given and name not in filled:
            raise UserError(f"{key}.{name} is missing: {_name_of(callee)} needs it")


def _name_of(callee: Any) -> str:
    while isinstance(callee, partial):
        callee = callee.func
    return str(getattr(callee, "__name__", callee))


def _annotations(callee: Callable[..., Any]) -> dict[str, Any]:
    function = callee.__init__ if isinstance(callee, type) else callee  # type: ignore[misc]
    try:
        return typing.get_type_hints(function)
    except Exception:  # annotations that need modules which are not there
        return {}


def _check_type(name: str, value: Any, parameter: inspect.Parameter, annotation: Any) -> None:
    default = parameter.default
    accepted = set(_accepted(annotation)) if annotation is not None else set()
    if object in accepted or not accepted:
        accepted = set()
        if isinstance(default, bool):
            accepted = {bool}
        elif isinstance(default, (int, float)):
            accepted = {int, float}
        elif isinstance(default, str):
            accepted = {str}
        if not accepted or value is None:
            return
    if float in accepted:
        accepted.add(int)
    choices = [choice for choice in accepted if not isinstance(choice, type)]
    kinds = tuple(kind for kind in accepted if isinstance(kind, type))
    if isinstance(value, bool) and bool not in kinds:
        matches = value in choices
    else:
        matches = isinstance(value, kinds) or (isinstance(value, list) and tuple in kinds) or value in choices
    if not matches:
        words = sorted(
            {YAML_WORDS.get(kind, kind.__name__) for kind in kinds} | {repr(choice) for choice in choices}
        )
        raise UserError(f"{name}={value}: is of another type; allowed is {', or '.join(words)}")


def _accepted(annotation: Any) -> Iterable[Any]:
    """The basic types and literal values of an annotation; ``object`` where it allows other things too."""
    if annotation is None:
        return [type(None)]
    if annotation in BASIC:
        return [annotation]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        found = [kind for one in inner for kind in _accepted(one)]
        basic = [kind for kind in found if kind is not object]
        return basic if basic and set(basic) != {type(None)} else [object]
    if origin is Literal:
        return list(inner)
    if origin in (list, tuple, dict):
        return [origin]
    return [object]


def build(callee: Callable[..., Any], given: Mapping[str, Any], key: str, **filled: Any) -> Any:
    """Call with checked arguments; ``filled`` goes where the signature has it and the config says nothing or null.

    Raises:
        UserError: the arguments do not fit, or the callee refuses them.
    """
    try:
        parameters = inspect.signature(callee).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    own = {name: value for name, value in filled.items() if name in parameters and given.get(name) is None}
    values = {name: value for name, value in given.items() if name not in own}
    check_arguments(callee, values, key, filled=own)
    for name, value in values.items():
        if isinstance(value, list) and name in parameters and isinstance(parameters[name].default, tuple):
            values[name] = tuple(value)
    try:
        return callee(**own, **values)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        raise UserError(
            f"{key}: needs the package {error.name}; install it (the README lists the extras)"
        ) from error
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{key}: {_name_of(callee)} refuses its arguments ({reason[0]})") from error

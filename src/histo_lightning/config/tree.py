"""The config tree ``conf/``: its folder, and the content of an option's file."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from histo_lightning.errors import UserError


@cache
def conf_dir() -> Path:
    """The config tree: inside the installed package (a wheel), else at the repository root (an editable install)."""
    packaged, root = Path(str(files("histo_lightning"))) / "conf", Path(__file__).parents[3] / "conf"
    for folder in (packaged, root.resolve()):
        if folder.is_dir():
            return folder
    raise UserError(f"the config tree is missing: neither {packaged} nor {root} is there; install it again")


def option_names(group: str) -> list[str]:
    """The names of a group's options, sorted, without files that only others build on."""
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml") if not file.name.startswith("_"))


def option(group: str, name: str) -> dict[str, Any]:
    """An option's file with the files of its group that its defaults list names; UserError where there is none."""
    path = conf_dir() / group / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"{group}={name}: no such option; allowed are {', '.join(option_names(group))}")
    content: dict[str, Any] = dict(OmegaConf.to_container(OmegaConf.load(path)) or {})  # type: ignore[arg-type]
    merged: dict[str, Any] = {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            merged |= option(group, entry)
    return merged | content

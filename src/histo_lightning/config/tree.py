"""The config tree ``conf/``: where it lies, and what a file of it says."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from histo_lightning.errors import UserError


@cache
def conf_dir() -> Path:
    """The config tree: inside the installed package (a wheel), else at the repository root (an editable install)."""
    packaged = Path(str(files("histo_lightning"))) / "conf"
    if packaged.is_dir():
        return packaged
    root = Path(__file__).resolve().parents[3] / "conf"
    if root.is_dir():
        return root
    raise UserError(
        f"the config tree is missing: neither {packaged} nor {root} is there; install the package again"
    )


def option(group: str, name: str) -> dict[str, Any]:
    """The content of ``conf/<group>/<name>.yaml``, with the files of the same group that its defaults list names.

    Raises:
        UserError: there is no such option.
    """
    path = conf_dir() / group / f"{name}.yaml"
    if not path.is_file():
        names = sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))
        raise UserError(f"{group}={name}: no such option; allowed are {', '.join(names)}")
    content: dict[str, Any] = dict(OmegaConf.to_container(OmegaConf.load(path)) or {})  # type: ignore[arg-type]
    merged: dict[str, Any] = {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            merged |= option(group, entry)
    return merged | content

"""``--help``: what a command does, its keys with their comments, and the options of its groups, read from ``conf/``."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from histo_lightning.config.tree import conf_dir
from histo_lightning.errors import UserError

WIDTH = 110
SWEEPING = ("train", "tune")  # commands that take -m
FLAGS = (
    ("-m, --multirun", "run every combination of the values given"),
    ("-c, --cfg job", "print the composed config of each job and stop; hydra and all print more"),
    ("-cd, --config-dir", "a folder with config files of your own, beside conf/"),
    ("-h, --help [group]", "this page, or the keys of a group's options"),
    ("--version", "the version"),
)


def help_text(command: str, group: str | None = None) -> str:
    """The help page of a command, or of one of its groups.

    Raises:
        UserError: there is no such group.
    """
    if group is not None:
        return _group_page(group)
    path = conf_dir() / f"{command}.yaml"
    header = OmegaConf.select(OmegaConf.load(path), "hydra.help.header") or ""
    lines = [str(header).rstrip(), ""]
    groups = list(_groups(path))
    if groups:
        lines.append("Groups (group=option; the default is in brackets; --help <group> lists its keys):")
        lines += _columns((name, _options(name, default)) for name, default in groups)
        lines.append("")
    flags = FLAGS if command in SWEEPING else FLAGS[1:]
    lines += ["Keys (key=value):", *_columns(_keys(path)), "", "Flags:", *_columns(flags)]
    return "\n".join(lines)


def _groups(path: Path) -> Iterator[tuple[str, str]]:
    """Groups in the defaults list of a command's file, also of the file that it builds on."""
    for entry in _defaults(path):
        if isinstance(entry, str):
            if entry != "_self_":
                yield from _groups(conf_dir() / f"{entry}.yaml")
            continue
        for name, default in entry.items():
            if (conf_dir() / str(name)).is_dir():
                chosen = [default] if isinstance(default, str) else default or []
                yield str(name), ", ".join(chosen)
    if path.stem == "train":
        yield "hydra/launcher", "basic"


def _defaults(path: Path) -> list[Any]:
    content: Any = OmegaConf.load(path)
    return list(content.get("defaults") or [])


def _options(group: str, default: str) -> str:
    names = sorted(file.stem for file in (conf_dir() / group).glob("*.yaml") if not file.stem.startswith("_"))
    if default and default not in names:
        names.insert(0, default)
    return ", ".join(f"[{name}]" if name == default else name for name in names)


def _keys(path: Path) -> Iterator[tuple[str, str]]:
    """``key: value`` and its comment, from a file's text; what it says about Hydra itself is left out."""
    for entry in _defaults(path):
        if isinstance(entry, str) and entry != "_self_":
            yield from _keys(conf_dir() / f"{entry}.yaml")
    yield from commented_keys(path)


def commented_keys(path: Path) -> Iterator[tuple[str, str]]:
    """``key=value`` and its comment, line by line of a config file, without what concerns Hydra itself."""
    parents: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"( *)([\w.]+):(?: +([^#]*?))?(?: *# *(.*))?$", line)
        if not match:
            continue
        depth = len(match[1]) // 2
        parents[depth:] = [match[2]]
        if parents[0] in ("hydra", "defaults") or (match[3] is None and match[4] is None):
            continue
        yield f"{'.'.join(parents)}={match[3] or ''}", match[4] or ""


def _group_page(group: str) -> str:
    folder = conf_dir() / group
    if not folder.is_dir():
        names = sorted(path.name for path in conf_dir().iterdir() if path.is_dir() and path.name != "hydra")
        raise UserError(f"--help {group}: no such group; groups are {', '.join(names)}")
    lines = []
    for path in sorted(folder.glob("*.yaml")):
        comments = [
            line.lstrip("# ")
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.startswith("#") and "@package" not in line
        ]
        lines.append(f"{group}={path.stem}: {comments[0] if comments else ''}")
        packaged = "@package _global_" in path.read_text(encoding="utf-8")
        prefix = "" if packaged else f"{group.replace('/', '.')}."
        lines += _columns((f"{prefix}{key}", text) for key, text in commented_keys(path))
    return "\n".join(lines)


def _columns(rows: "Iterator[tuple[str, str]] | tuple[tuple[str, str], ...]") -> list[str]:
    """Rows of two columns, the second wrapped to the width of the page."""
    pairs = list(rows)
    width = min(max((len(left) for left, _ in pairs), default=0), 34)
    lines = []
    for left, right in pairs:
        pieces = textwrap.wrap(right, WIDTH - width - 4) or [""]
        lines.append(f"  {left:<{width}}  {pieces[0]}".rstrip())
        lines += [f"  {'':<{width}}  {piece}" for piece in pieces[1:]]
    return lines

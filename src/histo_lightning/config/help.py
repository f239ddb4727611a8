"""``--help``: what a command does, its keys with their comments, and the options of its groups, read from ``conf/``."""

import re
import textwrap
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from histo_lightning.config.tree import conf_dir, option_names
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
    """The help page of a command, or of one of its groups. Raises UserError: there is no such group."""
    if group is not None:
        return _group_page(group)
    path = conf_dir() / f"{command}.yaml"
    lines = [str(OmegaConf.select(OmegaConf.load(path), "hydra.help.header") or "").rstrip(), ""]
    groups, files = {}, []
    for entry in _content(path):
        if isinstance(entry, Path):
            files.append(entry)
        elif (conf_dir() / entry[0]).is_dir():
            groups[entry[0]] = _options(*entry)
    if groups:
        lines.append("Groups (group=option; the default is in brackets; --help <group> lists its keys):")
        lines += [*_columns(groups.items()), ""]
    keys = chain.from_iterable(map(commented_keys, files))
    flags = FLAGS if command in SWEEPING else FLAGS[1:]
    return "\n".join([*lines, "Keys (key=value):", *_columns(keys), "", "Flags:", *_columns(flags)])


def _content(path: Path) -> Iterator[Any]:
    """Groups with their options and files that a command's file builds on, in the order of its defaults list; itself last."""
    content: Any = OmegaConf.load(path)
    for entry in content.get("defaults") or []:
        if not isinstance(entry, str):
            yield from entry.items()
        elif entry != "_self_":
            yield from _content(conf_dir() / f"{entry}.yaml")
    if path.stem == "train":
        yield "hydra/launcher", "basic"
    yield path


def _options(group: str, default: Any) -> str:
    chosen = default if isinstance(default, str) else ", ".join(default or [])
    names = option_names(group)
    if chosen and chosen not in names:
        names.insert(0, chosen)
    return ", ".join(f"[{name}]" if name == chosen else name for name in names)


def commented_keys(path: Path) -> Iterator[tuple[str, str]]:
    """``key=value`` and its comment, line by line of a config file, without what concerns Hydra itself."""
    parents: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"( *)([\w.]+):(?: +([^#]*?))?(?: *# *(.*))?$", line)
        if match:
            parents[len(match[1]) // 2 :] = [match[2]]
            if parents[0] not in ("hydra", "defaults") and (match[3] is not None or match[4] is not None):
                yield f"{'.'.join(parents)}={match[3] or ''}", match[4] or ""


def _group_page(group: str) -> str:
    folder = conf_dir() / group
    if not folder.is_dir():
        names = sorted(path.name for path in conf_dir().iterdir() if path.is_dir() and path.name != "hydra")
        raise UserError(f"--help {group}: no such group; groups are {', '.join(names)}")
    lines = []
    for path in sorted(folder.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        comments = re.findall(r"^# *(?!.*@package)(.*)$", text, re.MULTILINE)
        lines.append(f"{group}={path.stem}: {comments[0] if comments else ''}")
        prefix = "" if "@package _global_" in text else f"{group.replace('/', '.')}."
        lines += _columns((f"{prefix}{key}", comment) for key, comment in commented_keys(path))
    return "\n".join(lines)


def _columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    pairs = list(rows)
    width = min(max((len(left) for left, _ in pairs), default=0), 34)
    lines = []
    for left, right in pairs:
        first, *more = textwrap.wrap(right, WIDTH - width - 4) or [""]
        lines.append(f"  {left:<{width}}  {first}".rstrip())
        lines += [f"  {'':<{width}}  {piece}" for piece in more]
    return lines

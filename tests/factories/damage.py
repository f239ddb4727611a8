"""Seeded damage to the files of a folder, and what a command made of it."""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

BIG = 2**20  # bytes, above which a copy is a link: damage replaces files, and never writes into one
KINDS = ("bit", "byte", "cut", "zero", "swap", "empty", "missing")
GOOD = ("refused", "said", "harmless")  # the others are "silent" (wrong content, no word) and "defect"


@dataclass
class Damage:
    """One damage of a kind to a file; ``names`` are the files concerned, two where they were swapped."""

    kind: str
    names: tuple[str, ...]


def copy_folder(source: Path, target: Path) -> Path:
    """A copy whose files can be damaged without harm to the source."""

    def copy(path: str, to: str) -> None:
        if Path(path).stat().st_size > BIG:
            Path(to).hardlink_to(path)
        else:
            shutil.copy2(path, to)

    return Path(shutil.copytree(source, target, copy_function=copy))


def files_of(folder: Path) -> list[str]:
    """Every file below a folder that is not empty, but locks."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def damage(folder: Path, kind: str, name: str, draw: random.Random) -> Damage:
    """Damage a file below a folder; swapped with another of its type, else of any."""
    path = folder / name
    content, names = path.read_bytes(), (name,)
    if kind == "swap":
        others = [other for other in files_of(folder) if (folder / other).read_bytes() != content]
        alike = [other for other in others if Path(other).suffix == path.suffix]
        other = folder / draw.choice(alike or others)
        names, theirs = (name, other.relative_to(folder).as_posix()), other.read_bytes()
        for target, new in ((path, theirs), (other, content)):
            target.unlink()
            target.write_bytes(new)
        return Damage(kind, names)
    path.unlink()
    at = draw.randrange(len(content))
    if kind == "bit":
        content = content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
    elif kind == "byte":
        content = content[:at] + bytes([(content[at] + draw.randrange(1, 256)) % 256]) + content[at + 1 :]
    elif kind == "cut":
        content = content[:at]
    elif kind == "zero":
        end = min(at + draw.choice((16, 512, 4096)), len(content))
        zeroed = content[:at] + bytes(end - at) + content[end:]
        content = zeroed if zeroed != content else content[:-1]
    if kind != "missing":
        path.write_bytes(b"" if kind == "empty" else content)
    return Damage(kind, names)


def judged(done: Damage, status: int, said: str, same: bool) -> str:
    """The outcome of a command; ``same``: it left what it leaves without damage."""
    named = any(Path(name).name in said for name in done.names)
    if status == 1 or "Traceback" in said or "defect:" in said:
        return "defect"
    if status == 2:
        return "refused" if named else "unnamed"
    if named:
        return "said"
    return "harmless" if same else "silent"


def trials(count: int, names: list[str], seed: int) -> Iterator[tuple[str, str, random.Random]]:
    """Kind, file and generator of each trial: every kind in turn, every file about as often."""
    draw = random.Random(seed)
    order = [name for _ in range(count // len(names) + 1) for name in draw.sample(names, len(names))]
    for number in range(count):
        yield KINDS[number % len(KINDS)], order[number], random.Random(f"{seed}/{number}")


Command = Callable[[Path, Path], list[str]]
"""The folder under test and one for output -> the arguments of a command, its name first."""

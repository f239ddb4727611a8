"""``histo-lightning <command>`` and ``python -m histo_lightning <command>``; without a command, the list of them."""

import importlib
import sys

from histo_lightning.config.checks import nearest
from histo_lightning.config.exits import start_program
from histo_lightning.errors import UserError
from histo_lightning.runs.version import __version__

COMMANDS = {
    "train": "train a network on one split, score it and report; -m sweeps over settings",
    "compare": "put any mix of runs into one table and compare them; choose by validation",
    "tune": "search for hyper-parameters on one fold's validation set, with Optuna",
    "evaluate": "score a checkpoint on a data set, on cases it has not seen",
    "predict": "predict any images with a checkpoint; heat maps on request",
    "export": "write a checkpoint as ONNX, torch.export or safetensors, checked against it",
    "audit": "check any split for cases, slides and images on both sides",
    "prepare": "verify a data set and build its pixel cache; report, preview, download",
    "report": "write one index page of everything below a folder",
    "benchmark": "measure the speed against the limits and against the naive pipeline",
}


def main() -> int:
    """Run the command that the first argument names."""
    first, *rest = sys.argv[1:] or ["--help"]
    if first in COMMANDS:
        # `report` is a room, so its command is the package's own main module.
        module = importlib.import_module(f"histo_lightning.{first}{'.__main__' if first == 'report' else ''}")
        # Lightning's launcher starts further processes by this name.
        sys.modules["__main__"].__spec__ = module.__spec__
        sys.argv = [module.__file__ or first, *rest]
        return int(module.main())
    if first == "--version":
        print(f"histo_lightning {__version__}")
    elif first in ("-h", "--help"):
        print(f"histo_lightning {__version__}: python -m histo_lightning.<command> [key=value ...]\n")
        print(*(f"  {name:<10} {text}" for name, text in COMMANDS.items()), sep="\n")
        print("\nEvery command takes --help.")
    else:
        raise UserError(f"unknown command {first!r}{nearest(first, list(COMMANDS))}")
    return 0


def console() -> None:
    """The console script ``histo-lightning``."""
    start_program(main, "__main__")


if __name__ == "__main__":
    console()

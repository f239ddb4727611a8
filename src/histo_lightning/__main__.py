"""``histo-lightning <command>`` and ``python -m histo_lightning <command>``; without a command, the list of them."""

import importlib
import sys

from histo_lightning.config.checks import nearest
from histo_lightning.config.exits import EXIT_USER, guard
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
    words = sys.argv[1:]
    if words and words[0] == "--completion":
        from histo_lightning.config.completion import script  # only for shells

        print(script(words[1] if len(words) > 1 else "bash"))
        return 0
    if words and words[0] == "--complete":
        from histo_lightning.config.completion import candidates  # only for shells

        print("\n".join(candidates(words[1:], list(COMMANDS))))
        return 0
    if words and words[0] in COMMANDS:
        module = importlib.import_module(
            f"histo_lightning.{words[0]}{'.__main__' if words[0] == 'report' else ''}"
        )
        # Lightning's launcher starts further processes by this name.
        sys.modules["__main__"].__spec__ = module.__spec__
        sys.argv = [module.__file__ or words[0], *words[1:]]
        return int(module.main())
    if words and words[0] == "--version":
        print(f"histo_lightning {__version__}")
        return 0
    if words and words[0] not in ("-h", "--help"):
        print(f"error: unknown command {words[0]!r}{nearest(words[0], list(COMMANDS))}", file=sys.stderr)
        return EXIT_USER
    print(f"histo_lightning {__version__}: python -m histo_lightning.<command> [key=value ...]\n")
    for name, text in COMMANDS.items():
        print(f"  {name:<10} {text}")
    print(
        "\nEvery command takes --help. `histo-lightning --completion bash` prints what completes commands and keys in a shell."
    )
    return 0


def console() -> None:
    """The console script ``histo-lightning``."""
    sys.exit(guard(main))


if __name__ == "__main__":
    console()

"""``python -m histo_lightning`` lists the commands."""

import sys

import histo_lightning

COMMANDS = {
    "train": "train a network on one split, score it and report; -m sweeps over settings",
    "compare": "put any mix of runs into one table and compare them; choose by validation",
    "tune": "search for hyper-parameters on one fold's validation part, with Optuna",
    "evaluate": "score a checkpoint on a data set, on cases it has not seen",
    "predict": "predict any images with a checkpoint; heat maps on request",
    "export": "write a checkpoint as ONNX, torch.export or safetensors, checked against it",
    "audit": "check any split for cases, slides and images on both sides",
    "prepare": "verify a data set and build its pixel cache; report, preview, download",
    "benchmark": "measure the speed against the limits and against the naive pipeline",
}


def main() -> int:
    print(
        f"histo_lightning {histo_lightning.__version__}: python -m histo_lightning.<command> [key=value ...]\n"
    )
    for name, text in COMMANDS.items():
        print(f"  {name:<10} {text}")
    print("\nEvery command takes --help.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

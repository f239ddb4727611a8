"""What identifies a run: the hash of what its result depends on, and a readable name."""

import hashlib
import json
from dataclasses import asdict

from histo_lightning.config.checks import flatten, keys_with
from histo_lightning.config.schema import Config

# What changes no result: flags of Lightning's Trainer, and callbacks.
SILENT_FLAGS = (
    *("log_every_n_steps", "num_nodes", "num_sanity_val_steps", "profiler", "detect_anomaly"),
    "enable_autolog_hparams",
)
SILENT_CALLBACKS = ("progress", "dashboard")


def hashed(config: Config) -> str:
    """Eight hex digits of the config without what does not change the result."""
    tree, left_out = asdict(config), keys_with("hashed", False)
    del tree["logger"]
    for group, names in ((tree["trainer"]["flags"], SILENT_FLAGS), (tree["callbacks"], SILENT_CALLBACKS)):
        for name in names:
            group.pop(name, None)
    values = {name: value for name, value in flatten(tree) if name not in left_out}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:8]


def readable_name(config: Config) -> str:
    """``resnet18_adamw_40x_case_kfold-0_s0``, or ``run_name``, with the hash behind it; ``[A-Za-z0-9._-]`` only."""
    parts = [config.model["name"], config.optimizer["name"], config.magnification, split_words(config)]
    if config.dataset.name != "synthetic":
        parts.insert(0, config.dataset.name)
    if config.task != "binary":
        parts.append(config.task)
    name = config.run_name or "_".join([*parts, f"s{config.seed}"])
    return f"{name}_{hashed(config)}"


def split_words(config: Config) -> str:
    """``case_kfold-0``, ``injection-0-0.25``, ``official-1-clean``, ``case_kfold-0-shuffled``: for a run's name."""
    split = config.split
    words = [split.name, str(split.fold)]
    if split.injected is not None:
        words.append(f"{split.injected:g}")
    words += [word for word in ("clean", "matched") if getattr(split, word)]
    return "-".join([*words, *(["shuffled"] if split.shuffle_labels else [])])


def shortened(config: Config) -> str:
    """``SHORTENED (limit_train_batches=2)``: the label of a run that is no result; empty for any other run."""
    if config.debug:
        return f"SHORTENED (debug={config.debug})"
    words = [
        f"{name}={value}"
        for name, value in sorted(config.trainer.flags.items())
        if (name.startswith("limit_") and value is not None and repr(value) != "1.0")  # 1 is one batch
        or (name in ("fast_dev_run", "overfit_batches") and value)
    ]
    return f"SHORTENED ({', '.join(words)})" if words else ""

"""Which split keys go together."""

from histo_lightning.config.schema import Config
from histo_lightning.data.split_plan import LEAST_SHARE, SHUFFLED_KINDS
from histo_lightning.errors import UserError

GROUP_OF = {
    "case_kfold": "case",
    "slide_kfold": "slide",
    "official": "slide",
    "image_random": "image",
    "injection": "case",
}


def check_split(config: Config) -> None:
    """Refuse keys of ``split`` that contradict its kind, the data set, the task or the magnification.

    Raises:
        UserError: with the key, what was given and what is allowed.
    """
    split, dataset = config.split, config.dataset
    if split.name in GROUP_OF and split.group != GROUP_OF[split.name]:
        raise UserError(
            f"split.group={split.group}: split={split.name} groups by {GROUP_OF[split.name]}; "
            "split.group is for split=folders and split=file"
        )
    for key in ("clean", "matched"):
        if getattr(split, key) and split.name != "official":
            raise UserError(
                f"split.{key}=true: only split=official has shared cases to drop, not split={split.name}"
            )
    if split.clean and split.matched:
        raise UserError("split.matched=true: is the control beside split.clean=true; give one of them")
    if split.shuffle_labels and split.name not in SHUFFLED_KINDS:
        raise UserError(
            f"split.shuffle_labels=true: has no control with split={split.name}; use {', '.join(SHUFFLED_KINDS)}"
        )
    if split.shuffle_labels and config.task != "binary":
        raise UserError(
            f"split.shuffle_labels=true: shuffles benign and malignant, not task={config.task}; use task=binary"
        )
    if split.injected and split.injected < LEAST_SHARE:
        raise UserError(
            f"split.injected={split.injected:g}: allowed are 0 (the clean arm) and {LEAST_SHARE:g} to 1"
        )
    if split.name == "injection" and config.magnification == "all":
        raise UserError(
            "magnification=all: split=injection tells siblings apart at one magnification; give 40x, 100x, 200x or 400x"
        )
    if dataset.name == "folders" and split.name not in ("folders", "file"):
        raise UserError(
            f"dataset=folders carries its own parts: use split=folders (or split=file), not {split.name}"
        )
    if dataset.name != "folders" and split.name == "folders":
        raise UserError(f"split=folders needs dataset=folders, not dataset={dataset.name}")

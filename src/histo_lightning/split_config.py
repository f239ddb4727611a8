"""Which split keys go together in a whole config, and what a run's name says of them."""

from histo_lightning.data.splits import check_split_keys
from histo_lightning.data.splits.registry import split_words as split_words
from histo_lightning.schema import Config


def check_split(config: Config) -> None:
    """Refuse keys of ``split`` that contradict its kind, the data set, the task or the magnification.

    Raises:
        UserError: with the key, what was given and what is allowed.
    """
    check_split_keys(
        config.split, dataset=config.dataset.name, task=config.task, magnification=config.magnification
    )

"""One trial: train with its setting on each fold of the study and read validation, never the test set."""

from collections.abc import Sequence

from histo_lightning.callbacks.pruning import Pruned, Pruning
from histo_lightning.errors import UserError
from histo_lightning.runs import RunFolder, read_json
from histo_lightning.training.run import run_training
from histo_lightning.tuning.plan import Plan
from histo_lightning.tuning.search import Attempt


def train_trial(plan: Plan, attempt: Attempt) -> float:
    """The objective, averaged over the folds. With one fold the pruner sees every epoch, else the mean after every fold.

    Raises:
        Pruned: the pruner gave the trial up.
        UserError: the setting cannot be trained.
    """
    values: list[float] = []
    for fold in plan.folds:
        values.append(_train(plan, attempt, fold))
        means = [sum(values[:count]) / count for count in range(1, len(values) + 1)]
        if len(plan.folds) > 1 and attempt.judge(means) and fold != plan.folds[-1]:
            raise Pruned(f"pruned after fold {fold}")
    return means[-1]


def _train(plan: Plan, attempt: Attempt, fold: int) -> float:
    several, parent = len(plan.folds) > 1, plan.folder / "trials"
    name = plan.run_name(attempt.search, attempt.number) + (f"_fold{fold}" if several else "")
    changes = {"test": False, "run_name": name, "trainer.progress": "none"}
    config = plan.run_config(attempt.values, fold, **changes)
    watching = [] if several else [Pruning(attempt.judge, config.epochs)]
    try:
        folder = run_training(config, parent, plan.hydra, watching, pictures=False)
    except Pruned as pruned:
        for path in parent.glob(f"{name}_*"):  # it has not failed: it could go on
            RunFolder(path).update(state="interrupted", error=str(pruned))
        raise
    curve = [
        float("nan") if value is None else float(value)
        for value in read_json(folder / "metrics.json")["monitored"]
    ]
    if not several:  # a run that was finished before a kill reports here for the first time
        attempt.judge(curve)
    return objective(plan, curve)


def objective(plan: Plan, curve: Sequence[float]) -> float:
    """A run's value: of the epoch whose weights are scored, the best one or (``scored_weights=last``) the last.

    Raises:
        UserError: it is undefined.
    """
    scored = curve[-1:] if plan.config.scored_weights == "last" else curve
    defined = [value for value in scored if value == value]
    if not defined:
        raise UserError(f"{plan.config.monitor} was undefined in the scored epoch")
    return min(defined) if plan.minimise else max(defined)

"""Epoch metrics, accumulated on the device and read once an epoch: nothing here makes a step wait."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, multiclass_accuracy, multiclass_auroc
from torchmetrics.utilities.data import dim_zero_cat

STATES = ("logits", "labels", "cases", "indices")


class TrainingMetrics(Metric):
    """``loss`` (mean over images) and ``accuracy`` of the training batches of an epoch, as the network saw them.

    ``seen``: of each batch the images' indices (int64 B) and logits (B x classes).
    """

    full_state_update = False
    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.add_state("totals", default=torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor, indices: Tensor | None = None) -> None:
        """Add a batch: its mean loss (scalar), logits B x classes, labels and, where known, indices int64 B."""
        if indices is not None:
            self.seen.append((indices, logits))
        correct = (logits.argmax(dim=1) == labels).sum()
        # Filled on the device; a number from the host would be a copy that the step waits for.
        count = torch.full_like(loss, labels.shape[0])
        self.totals += torch.stack([loss * count, correct.to(loss.dtype), count])

    def restore(self, totals: Tensor, seen: list[tuple[Tensor, Tensor]]) -> None:
        """Go on from the ``totals`` (float64, 3) and ``seen`` of an earlier object."""
        self.totals, self.seen, self._update_count = totals.to(self.totals), [*seen], 1

    def reset(self) -> None:
        super().reset()
        self.seen = []

    def compute(self) -> dict[str, Tensor]:
        loss, correct, count = self.totals
        return {"loss": (loss / count).float(), "accuracy": (correct / count).float()}


class EvaluationMetrics(Metric):
    """The scores of a pass over a data set, where an image that a batch was filled up with counts once.

    Of images: ``loss`` (mean negative log likelihood), ``accuracy``, ``balanced_accuracy`` (mean recall of the classes
    present), ``auroc`` (one-vs-rest mean; NaN where a class is absent). Of cases: ``case_auroc`` (of mean probabilities), and
    ``case_log_loss``, the mean over classes of the mean over cases of the mean over images of that likelihood.
    """

    full_state_update = False

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor, cases: Tensor, indices: Tensor) -> None:
        """Add a batch: float32 B x classes, int64 B, int64 B, and which image of the data set each is, int64 B."""
        for name, values in zip(STATES, (logits.detach().float(), labels, cases, indices), strict=True):
            getattr(self, name).append(values)

    def compute(self) -> dict[str, Tensor]:
        """All scores, each a scalar on the metric's device, computed on the CPU: once an epoch, and deterministic."""
        logits, labels, cases, indices = (dim_zero_cat(getattr(self, name)).cpu() for name in STATES)
        _, first = np.unique(indices.numpy(), return_index=True)
        logits, labels, cases = logits[first], labels[first], cases[first]
        log_p = functional.log_softmax(logits, dim=1)
        losses = functional.nll_loss(log_p, labels, reduction="none")
        present = torch.bincount(labels, minlength=self.num_classes) > 0
        predicted = logits.argmax(dim=1)
        recall = multiclass_accuracy(predicted, labels, self.num_classes, average=None)
        groups, group = torch.unique(cases * self.num_classes + labels, return_inverse=True)
        group_label = groups % self.num_classes
        group_loss = _mean_by(group, losses, len(groups))
        class_loss = _mean_by(group_label, group_loss, self.num_classes)
        group_p = torch.stack([_mean_by(group, p, len(groups)) for p in log_p.exp().unbind(1)], dim=1)
        scores = {
            "loss": losses.mean(),
            "accuracy": (predicted == labels).float().mean(),
            "balanced_accuracy": recall[present].mean(),
            "auroc": self._auroc(log_p.exp(), labels, present),
            "case_auroc": self._auroc(group_p, group_label, present),
            "case_log_loss": class_loss[present].mean(),
        }
        return {name: value.to(self.device) for name, value in scores.items()}

    def _auroc(self, p: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        if not bool(present.all()):
            return p.new_tensor(float("nan"))
        if self.num_classes == 2:
            return binary_auroc(p[:, 1], labels)
        return multiclass_auroc(p, labels, self.num_classes)


def _mean_by(group: Tensor, values: Tensor, groups: int) -> Tensor:
    """Mean of values by group index (NaN for an empty group)."""
    total = torch.zeros(groups, dtype=values.dtype, device=values.device).index_add_(0, group, values)
    return total / torch.bincount(group, minlength=groups)

"""Epoch metrics over a whole part, by image and by case, accumulated on the device."""

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, multiclass_accuracy, multiclass_auroc
from torchmetrics.utilities.data import dim_zero_cat


class PartMetrics(Metric):
    """Collects logits, labels and cases by ``update``; ``compute`` gives all epoch scores of a part.

    - ``loss``: mean negative log likelihood of images.
    - ``accuracy``, ``balanced_accuracy`` (mean recall of the classes present), ``auroc``.
    - ``case_auroc``: of the mean probability of each case.
    - ``case_log_loss``: mean over classes of the mean over cases of the mean over images of the negative log
      likelihood: every case of a class counts the same, and so does every class present.

    AUROC is NaN where a class is absent. With eight classes ``auroc`` is one-vs-rest, averaged over the classes.
    """

    full_state_update = False
    logits: list[Tensor]
    labels: list[Tensor]
    cases: list[Tensor]

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("logits", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")
        self.add_state("cases", default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor, cases: Tensor) -> None:
        """Add a batch: float32 B x classes, int64 B, int64 B."""
        self.logits.append(logits.detach().float())
        self.labels.append(labels)
        self.cases.append(cases)

    def compute(self) -> dict[str, Tensor]:
        """All scores, each a scalar on the metric's device, computed on the CPU: once an epoch, and deterministic."""
        logits, labels, cases = (
            dim_zero_cat(state).cpu() for state in (self.logits, self.labels, self.cases)
        )
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
        found = {
            "loss": losses.mean(),
            "accuracy": (predicted == labels).float().mean(),
            "balanced_accuracy": recall[present].mean(),
            "auroc": self._auroc(log_p.exp(), labels, present),
            "case_auroc": self._auroc(group_p, group_label, present),
            "case_log_loss": class_loss[present].mean(),
        }
        return {name: value.to(self.device) for name, value in found.items()}

    def _auroc(self, p: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        if not bool(present.all()):
            return torch.tensor(float("nan"), device=p.device)
        if self.num_classes == 2:
            return binary_auroc(p[:, 1], labels)
        return multiclass_auroc(p, labels, self.num_classes)


def _mean_by(group: Tensor, values: Tensor, groups: int) -> Tensor:
    """Mean of values by group index (NaN for an empty group)."""
    total = torch.zeros(groups, dtype=values.dtype, device=values.device).index_add_(0, group, values)
    return total / torch.bincount(group, minlength=groups)

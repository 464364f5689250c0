"""Soft targets without the classes that say nothing: for class counts whose dense targets would be large."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["SparseSoftTargetCrossEntropy", "SparseTargets"]


class SparseTargets(NamedTuple):
    """Soft targets of which most classes have one and the same probability."""

    indices: Tensor
    """int64 ``(n, m)``: classes, each once a row. Where a row has fewer, 0 with the probability `absent`."""
    probabilities: Tensor
    """float32 ``(n, m)``."""
    absent: Tensor
    """float32 ``(n,)``: probability of each class that is not listed."""
    num_classes: int
    """Classes in all, listed or not."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> SparseTargets:
        """Return the targets on a device."""
        indices, probabilities, absent = (
            part.to(device, non_blocking=non_blocking)
            for part in (self.indices, self.probabilities, self.absent)
        )
        return SparseTargets(indices, probabilities, absent, self.num_classes)

    def dense(self) -> Tensor:
        """Return the same targets as float32 ``(n, num_classes)``."""
        absent = self.absent[:, None]
        excess = (self.probabilities - absent).nan_to_num(0)
        targets = absent.expand(-1, self.num_classes).clone()
        return targets.scatter_add_(1, self.indices, excess)


class SparseSoftTargetCrossEntropy(nn.Module):
    """Cross entropy of logits with `SparseTargets`; equal to that with the dense targets.

    Parameters
    ----------
    reduction
        ``"mean"`` or ``"sum"`` over the samples, or ``"none"``.

    Notes
    -----
    With q the student's log-probabilities: the absent probability times the sum of q, and for each listed
    class what it has beyond that.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction: {reduction!r}, expected 'mean', 'sum' or 'none'")
        self.reduction = reduction

    def forward(self, logits: Tensor, targets: SparseTargets) -> Tensor:
        """Return the loss: float32 (float64 for such logits), of no dimension, or ``(n,)`` without reduction.

        Parameters
        ----------
        logits
            ``(n, num_classes)``, of any floating dtype.

        Raises
        ------
        ValueError
            The targets are of another number of classes, or of samples.
        """
        expected = (len(targets.absent), targets.num_classes)
        if logits.shape != expected:
            raise ValueError(f"logits: {tuple(logits.shape)}, expected {expected} as the targets have")
        wide = logits if logits.dtype == torch.float64 else logits.float()
        log_probabilities = torch.log_softmax(wide, dim=1)
        listed = log_probabilities.gather(1, targets.indices)
        excess = targets.probabilities - targets.absent[:, None]
        losses = -(targets.absent * log_probabilities.sum(dim=1) + (excess * listed).sum(dim=1))
        match self.reduction:
            case "mean":
                return losses.mean()
            case "sum":
                return losses.sum()
        return losses


def softmax_by_class(classes: Tensor, scores: Tensor, baseline: Tensor, *, num_classes: int) -> SparseTargets:
    """Return the softmax of scores that are summed by class.

    Parameters
    ----------
    classes
        int64 ``(n, m)``, in any order, repeated or not; `num_classes` and above count for nothing.
    scores
        float32 ``(n, m)``: what is added to the score of the class.
    baseline
        float32 ``(n,)``: the score of every class before that.
    """
    ordered, order = classes.sort(dim=1)
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    slot = starts.long().cumsum(1) - 1  # the class's place among those of its row
    sums = torch.zeros_like(scores).scatter_add_(1, slot, scores.gather(1, order))
    listed = torch.full_like(ordered, num_classes).scatter_(1, slot, ordered)
    n_slots = min(classes.shape[1], num_classes + 1)  # one more, for the classes that count for nothing
    if classes.device.type == "cpu" and not torch.compiler.is_compiling() and slot.numel():
        n_slots = int(slot[:, -1].max()) + 1
    listed, sums = listed[:, :n_slots], sums[:, :n_slots]

    is_class = listed < num_classes
    totals = baseline[:, None] + torch.where(is_class, sums, 0)
    highest = torch.maximum(totals.amax(dim=1), baseline) if n_slots else baseline
    powers = (totals - highest[:, None]).exp()
    absent_power = (baseline - highest).exp()
    n_absent = num_classes - is_class.sum(dim=1)
    norm = (powers * is_class).sum(dim=1) + n_absent * absent_power
    absent = absent_power / norm
    probabilities = torch.where(is_class, powers / norm[:, None], absent[:, None])
    return SparseTargets(torch.where(is_class, listed, 0), probabilities, absent, num_classes)

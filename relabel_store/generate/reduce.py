"""Dense logits to the k best classes of each cell, on the device that holds them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Kept:
    """What is kept of the dense logits of n samples, before rounding.

    Parameters
    ----------
    indices
        int64 ``(n, k, n_rows, n_cols)``, by falling logit; ties at the edge of the top k go to the
        lower class index.
    values
        float32, same shape.
    rest
        float32 ``(n, n_rows, n_cols)``, log-sum-exp of the other classes; None when not asked for.
    """

    indices: Tensor
    values: Tensor
    rest: Tensor | None


def keep_top_k(logits: Tensor, k: int, *, with_rest: bool) -> Kept:
    """Return the k best classes of each cell.

    Parameters
    ----------
    logits
        ``(n, num_classes, n_rows, n_cols)``, any float dtype; compared in float32.

    Notes
    -----
    ``torch.topk`` leaves open which of equal classes it takes. One class more is asked for: only
    where it ties with the last one kept is the cell sorted in full.
    """
    scores = logits.float().permute(0, 2, 3, 1).contiguous()  # (n, n_rows, n_cols, num_classes)
    num_classes = scores.shape[-1]
    values, indices = scores.topk(min(k + 1, num_classes), dim=-1)
    if num_classes > k:
        is_tied = values[..., k - 1] == values[..., k]
        values, indices = values[..., :k].contiguous(), indices[..., :k].contiguous()
        if is_tied.any():
            tied = scores[is_tied]
            ordered = tied.sort(dim=-1, descending=True, stable=True)
            values[is_tied] = ordered.values[:, :k]
            indices[is_tied] = ordered.indices[:, :k]
    rest = None
    if with_rest:
        rest = scores.scatter(-1, indices, -torch.inf).logsumexp(dim=-1)
    return Kept(indices.permute(0, 3, 1, 2), values.permute(0, 3, 1, 2), rest)

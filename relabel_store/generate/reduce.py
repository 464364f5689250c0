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
    """Return the k best classes of each cell, in host memory.

    Parameters
    ----------
    logits
        ``(n, num_classes, n_rows, n_cols)``, any float dtype; compared in float32.
    """
    return KeepingTopK(logits, k, with_rest=with_rest).result()


class KeepingTopK:
    """The k best classes of each cell, which a device may still be at work on.

    Making it does not wait for a GPU: its results are on their way to the host behind the work that makes them,
    so that the next batch can be given to the GPU before anyone asks for them.

    Parameters
    ----------
    logits
        ``(n, num_classes, n_rows, n_cols)``, any float dtype; compared in float32.

    Notes
    -----
    ``torch.topk`` leaves open which of equal classes it takes. One class more is asked for: only
    where it ties with the last one kept is the cell sorted in full.
    """

    def __init__(self, logits: Tensor, k: int, *, with_rest: bool) -> None:
        scores = logits.float().permute(0, 2, 3, 1).contiguous()  # (n, n_rows, n_cols, num_classes)
        num_classes = scores.shape[-1]
        self._k = min(k, num_classes)
        values, indices = scores.topk(min(k + 1, num_classes), dim=-1)
        self._scores = scores
        self._is_tied = values[..., k - 1] == values[..., k] if num_classes > k else None
        self._on_device = (values[..., :k].contiguous(), indices[..., :k].contiguous())
        rest = None
        if with_rest:
            # Whichever of equal classes is left out, the sum over the others is the same.
            rest = scores.scatter(-1, self._on_device[1], -torch.inf).logsumexp(dim=-1)
        any_tied = None if self._is_tied is None else self._is_tied.any()
        self._on_host = [_start_copy(found) for found in (*self._on_device, rest, any_tied)]
        self._copied: torch.cuda.Event | None = None
        if scores.is_cuda:
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def result(self) -> Kept:
        """Return what is kept, in host memory, once it is there."""
        if self._copied is not None:
            self._copied.synchronize()
        values, indices, rest, any_tied = self._on_host
        if any_tied is not None and bool(any_tied):
            values, indices = (found.cpu() for found in self._settle_ties())
        assert values is not None
        assert indices is not None
        return Kept(indices.permute(0, 3, 1, 2), values.permute(0, 3, 1, 2), rest)

    @torch.inference_mode()
    def _settle_ties(self) -> tuple[Tensor, Tensor]:
        values, indices = self._on_device
        assert self._is_tied is not None
        ordered = self._scores[self._is_tied].sort(dim=-1, descending=True, stable=True)
        values[self._is_tied] = ordered.values[:, : self._k]
        indices[self._is_tied] = ordered.indices[:, : self._k]
        return values, indices


def _start_copy(found: Tensor | None) -> Tensor | None:
    """Return where a tensor will be in host memory once its device has done its work."""
    if found is None or not found.is_cuda:
        return found
    # Only into pinned memory does a copy run beside the host.
    return torch.empty(found.shape, dtype=found.dtype, pin_memory=True).copy_(found, non_blocking=True)

"""What can be wrong with the label maps of others, and the reason to give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from relabel_store.errors import LabelSourceError
from relabel_store.labels.topk import FloatArray, has_repeated_classes
from relabel_store.labels.values import ValueStep

# The smallest integer that a dtype cannot tell from its neighbour.
FIRST_AMBIGUOUS = {"float16": 2048, "bfloat16": 256, "float32": 1 << 24}
_SLACK = 1e-2  # by which the sum of some probabilities may pass 1: they are rounded to float16


def reasons_against(
    indices: FloatArray, scores: FloatArray, dtypes: Sequence[str], *, num_classes: int, value_step: ValueStep
) -> list[str | None]:
    """Return for each map why it cannot be stored; None where it can.

    Parameters
    ----------
    indices, scores
        float32 ``(n, k, n_rows, n_cols)``, whatever they hold.
    dtypes
        In what the file of each had its indices.
    num_classes
        Of the teacher.
    value_step
        What scores are rounded to.

    Raises
    ------
    LabelSourceError
        A sound map has a class that the teacher cannot have, or that its dtype cannot name: then none can be trusted.
    """
    n = len(indices)
    reasons: list[str | None] = [None] * n
    largest = indices.reshape(n, -1).max(axis=1)
    with np.errstate(invalid="ignore"):
        faults = {
            "its scores hold NaN or infinity": ~_all(np.isfinite(scores)),
            "its class indices hold NaN or infinity": ~_all(np.isfinite(indices)),
            "its class indices are no whole numbers from 0 up": ~_all(
                (indices >= 0) & (indices == np.rint(indices))
            ),
            "a class is twice in a cell": has_repeated_classes(indices),
            f"a score past {value_step.limit:g}, which value step {value_step.to_json()} cannot hold; try "
            "--value-step exact": ~_all(np.abs(scores) <= value_step.limit),
        }
    for reason, has_fault in faults.items():
        for at in np.flatnonzero(has_fault):
            reasons[at] = reasons[at] or reason
    for at in np.flatnonzero(largest >= min(num_classes, *FIRST_AMBIGUOUS.values())):
        if reasons[at] is None:
            _require_class(int(largest[at]), dtypes[int(at)], num_classes)
    return reasons


def _require_class(largest: int, dtype: str, num_classes: int) -> None:
    if largest >= FIRST_AMBIGUOUS[dtype]:
        raise LabelSourceError(
            f"labels: class index {largest} as {dtype}, expected less than {FIRST_AMBIGUOUS[dtype]}: past it {dtype} "
            "cannot tell one class from the next, so the classes of these labels are lost; they have to be made again"
        )
    if largest >= num_classes:
        raise LabelSourceError(
            f"labels: class index {largest}, expected less than {num_classes}, the class count; give --num-classes if "
            "the teacher has more"
        )


def require_logits(scores: FloatArray) -> None:
    """Check that scores of some maps are not probabilities.

    Parameters
    ----------
    scores
        ``(n, k, n_rows, n_cols)``, finite.

    Raises
    ------
    LabelSourceError
        All of them lie between 0 and 1, and those of a cell add up to no more than 1.
    """
    if not scores.size or scores.min() < 0 or scores.max() > 1 or scores.sum(axis=1).max() > 1 + _SLACK:
        return
    raise LabelSourceError(
        "labels: scores between 0 and 1 that add up to no more than 1 in each cell, so probabilities, expected scores "
        "before softmax: pooling averages those, and takes the softmax after that. The logarithm of a probability is "
        "its score but for one number a cell, which files of the best few classes do not hold: make the labels again "
        "without the softmax"
    )


def negative_fraction(scores: FloatArray) -> float:
    """Return the share of scores below zero."""
    return float((scores < 0).mean()) if scores.size else 0.0


def _all(is_fine: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(is_fine.reshape(len(is_fine), -1).all(axis=1))

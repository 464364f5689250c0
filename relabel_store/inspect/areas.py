"""How much of a photo each class wins, and how sure the teacher is there: NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relabel_store.errors import FormatError

__all__ = ["ClassArea", "cell_confidence", "class_areas"]


@dataclass(frozen=True)
class ClassArea:
    """What one class wins of a label map.

    Attributes
    ----------
    class_index
        Class of the teacher, in ``[0, num_classes)``.
    name
        Name of the class as it was given, all synonyms included; None without class names.
    fraction
        Share of the cells in which the class is first, in ``(0, 1]``.
    confidence
        Mean softmax probability of the class over the cells that it wins.
    """

    class_index: int
    name: str | None
    fraction: float
    confidence: float


def cell_confidence(
    values: NDArray[np.floating[Any]], rest: NDArray[np.floating[Any]] | None, *, num_classes: int
) -> NDArray[np.float32]:
    """Return the softmax probability of the winning class of each cell.

    Parameters
    ----------
    values
        Logits of the kept classes, falling in each cell, ``(k, n_rows, n_cols)``, any float dtype.
    rest
        Log-sum-exp of the classes that were not kept, ``(n_rows, n_cols)``; ``-inf`` where nothing
        was left out. None: each absent class counts as logit 0.
    num_classes
        Classes of the teacher, the absent ones included.

    Returns
    -------
    ndarray
        float32, ``(n_rows, n_cols)``, in ``[0, 1]``; computed in float64.

    Raises
    ------
    FormatError
        The arrays do not fit each other, are not finite, or the first value is not the largest.
    """
    _require_values(values, num_classes)
    logits = np.asarray(values, dtype=np.float64)  # (k, n_rows, n_cols)
    absent = _absent_logit(logits.shape, rest, num_classes)
    largest = np.maximum(logits[0], absent)  # exp() of nothing above 0: no overflow at any logit
    total = np.exp(logits - largest).sum(axis=0) + np.exp(absent - largest)
    confidence: NDArray[np.float32] = (np.exp(logits[0] - largest) / total).astype(np.float32)
    return confidence


def class_areas(
    indices: NDArray[np.integer[Any]],
    values: NDArray[np.floating[Any]],
    *,
    rest: NDArray[np.floating[Any]] | None = None,
    num_classes: int,
    class_names: Sequence[str] | None = None,
) -> list[ClassArea]:
    """Return the classes that win at least one cell, the largest area first.

    Classes of equal area stand by falling confidence, then by rising class index. Fractions add up
    to 1 over the whole photo, since the grid covers all of it.

    Parameters
    ----------
    indices
        Class indices, ``(k, n_rows, n_cols)``, any integer dtype; the winner of a cell stands first.
    values, rest, num_classes
        As for `cell_confidence`; ``values`` has the shape of ``indices``.
    class_names
        One name for each of the ``num_classes`` classes, in class order.

    Raises
    ------
    FormatError
        As for `cell_confidence`, or a class index is not in ``[0, num_classes)``.
    ValueError
        There are not ``num_classes`` names.
    """
    if indices.shape != values.shape:
        raise FormatError(
            f"label map: indices have shape {indices.shape} and values {values.shape}, "
            "expected the same (k, n_rows, n_cols)"
        )
    if class_names is not None and len(class_names) != num_classes:
        raise ValueError(f"class names: found {len(class_names)}, expected one for each of {num_classes}")
    confidence = cell_confidence(values, rest, num_classes=num_classes)
    for index in (indices.min(), indices.max()):
        if not 0 <= index < num_classes:
            raise FormatError(f"label map: class index {index}, expected 0 to {num_classes - 1}")
    classes, class_of_cell = np.unique(indices[0].ravel(), return_inverse=True)
    cells = np.bincount(class_of_cell)
    means = np.bincount(class_of_cell, weights=confidence.ravel()) / cells
    order = np.lexsort((classes, -means, -cells))
    return [
        ClassArea(
            class_index=int(classes[i]),
            name=None if class_names is None else class_names[classes[i]],
            fraction=float(cells[i] / confidence.size),
            confidence=float(means[i]),
        )
        for i in order
    ]


def _require_values(values: NDArray[np.floating[Any]], num_classes: int) -> None:
    if values.ndim != 3 or 0 in values.shape:
        raise FormatError(
            f"label map: values have shape {values.shape}, expected (k, n_rows, n_cols), none of them 0"
        )
    if values.shape[0] > num_classes:
        raise FormatError(
            f"label map: {values.shape[0]} classes a cell, expected at most the {num_classes} of the teacher"
        )
    if not np.isfinite(values).all():
        raise FormatError("label map: values hold NaN or infinity, expected finite logits")
    if (values[0] < values.max(axis=0)).any():
        raise FormatError("label map: the first value of a cell is not its largest, expected falling values")


def _absent_logit(
    shape: tuple[int, ...], rest: NDArray[np.floating[Any]] | None, num_classes: int
) -> NDArray[np.float64]:
    """Return the log-sum-exp of the classes that were not kept, float64 ``(n_rows, n_cols)``."""
    if rest is None:
        absent = num_classes - shape[0]  # as many logits of 0
        return np.full(shape[1:], np.log(absent) if absent else -np.inf)
    if rest.shape != shape[1:]:
        raise FormatError(f"label map: rest has shape {rest.shape}, expected (n_rows, n_cols) = {shape[1:]}")
    if np.isnan(rest).any() or np.isposinf(rest).any():
        raise FormatError("label map: rest holds NaN or +infinity, expected a log-sum-exp")
    return np.asarray(rest, dtype=np.float64)

"""What LabelPooling is told, checked in the same words whatever library computes it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from relabel_store.labels.boxes import MAX_EDGE

Shape = Sequence[int | None]  # None: not known before it runs


def require_settings(
    num_classes: int, output_size: tuple[int, int] = (1, 1), temperature: float = 1.0
) -> tuple[int, int]:
    """Check numbers that do not depend on the maps, and return `output_size` as two integers.

    Raises
    ------
    ValueError
        One is out of range.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes: {num_classes}, expected at least 1")
    if len(output_size) != 2 or min(output_size) < 1:
        raise ValueError(f"output_size: {output_size}, expected two sizes of at least 1")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature: {temperature}, expected a positive number")
    return int(output_size[0]), int(output_size[1])


def require_selection(classes: Sequence[int], num_classes: int) -> NDArray[np.int64]:
    """Return the teacher's class index of each class of a student, int64, after checking them.

    Raises
    ------
    ValueError
        There is none, one is not the teacher's, or one is named twice.
    """
    chosen = np.array([int(index) for index in classes], np.int64)
    if not len(chosen) or chosen.min() < 0 or chosen.max() >= num_classes:
        raise ValueError(f"classes: expected at least one, each from 0 to {num_classes - 1}")
    if len(np.unique(chosen)) != len(chosen):
        raise ValueError("classes: one is named twice")
    return chosen


def require_integers(dtype: DTypeLike) -> None:
    """Check that class indices are of an integer type.

    Raises
    ------
    ValueError
        They are not: values in their place, or a file that keeps both as floats.
    """
    if not np.issubdtype(np.dtype(dtype), np.integer):
        raise ValueError(f"label maps: indices are {np.dtype(dtype).name}, expected integers")


def require_shapes(indices: Shape, values: Shape, boxes_xyxy: Shape, rest: Shape | None = None) -> None:
    """Check that the shapes of label maps and crop boxes fit together.

    Raises
    ------
    ValueError
        They do not.
    """
    if len(indices) != 4 or not _fit(values, indices):
        raise ValueError(
            f"label maps: indices {tuple(indices)} and values {tuple(values)}, "
            "expected both (n, k, n_rows, n_cols)"
        )
    expected = (indices[0], *indices[2:])
    if rest is not None and not _fit(rest, expected):
        raise ValueError(f"rest: {tuple(rest)}, expected {expected}")
    if not _fit(boxes_xyxy, (indices[0], 4)):
        raise ValueError(f"crop boxes: {tuple(boxes_xyxy)}, expected {(indices[0], 4)}")


def _fit(found: Shape, expected: Shape) -> bool:
    pairs = zip(found, expected, strict=False)
    return len(found) == len(expected) and all(a == b or a is None or b is None for a, b in pairs)


def most_points(n_cells: int, n_bins: int) -> int:
    """Return how many sample points a bin of a legal box has at most along an axis."""
    return math.ceil(2 * MAX_EDGE * n_cells / n_bins)

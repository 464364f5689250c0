"""Dense scores to top-k indices and values, in the order the format defines, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIGN = np.uint16(0x8000)
_REST_OF_BITS = np.uint16(0x7FFF)
_NEGATIVE_ZERO = np.uint16(0x8000)

_FEW_RANKS = 16  # up to which all pairs are compared faster than ranks are sorted

IndexArray = NDArray[np.integer[Any]]
FloatArray = NDArray[np.floating[Any]]


def top_k(scores: FloatArray, k: int) -> tuple[NDArray[np.int64], FloatArray]:
    """Return the k best classes of each cell and their scores.

    Parameters
    ----------
    scores
        ``(n, num_classes, n_rows, n_cols)``, without NaN.
    k
        At most ``num_classes``.

    Returns
    -------
    indices : ndarray
        int64 ``(n, k, n_rows, n_cols)``, by falling score, ties by rising class index.
    values : ndarray
        Same shape, dtype of `scores`.

    Notes
    -----
    The slow and obvious form: it sorts every class. ``generate/reduce.py`` does the same on a device.
    """
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k: {k}, expected 1 to {scores.shape[1]}, the class count")
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


def sort_ranks(indices: IndexArray, values: FloatArray) -> tuple[IndexArray, FloatArray]:
    """Return both arrays with the ranks of every cell put in stored order.

    Rounding makes ties of neighbours (at a step of 1/8 every third pair), so the order is defined on
    the stored values: falling value, rising class index where values are equal.

    Parameters
    ----------
    indices, values
        ``(n, k, n_rows, n_cols)``.
    """
    keys = _keys(indices, values)
    if keys is not None:
        if np.all(keys[:, :-1] < keys[:, 1:]):
            return indices, values
        keys.sort(axis=1)
        return _of_keys(keys, indices.dtype)
    if np.all(_is_in_order(indices, values)):
        return indices, values
    order = np.lexsort((indices, -values.astype(np.float32)), axis=1)
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(values, order, axis=1)


def _keys(indices: IndexArray, values: FloatArray) -> NDArray[Any] | None:
    """Return an integer for each rank that rises in stored order; None where dtypes or values have none.

    Sorting by it takes a tenth of the time of sorting by two keys, comparing a third: processors have no float16.
    """
    if values.dtype != np.float16 or indices.dtype not in (np.uint16, np.uint32):
        return None
    bits = values.view(np.uint16)
    if np.any(bits == _NEGATIVE_ZERO):  # which is equal to zero, while its bits are others
        return None
    is_short = indices.dtype == np.uint16
    wide: type[np.unsignedinteger[Any]] = np.uint32 if is_short else np.uint64
    # The bits of a float without its sign rise with it, or fall with it where it is negative. Falling ones are wanted.
    falling: NDArray[Any] = np.where(bits & _SIGN, bits, bits ^ _REST_OF_BITS).astype(wide)
    falling <<= wide(16 if is_short else 32)
    falling |= indices
    return falling


def _of_keys(keys: NDArray[Any], dtype: np.dtype[Any]) -> tuple[IndexArray, FloatArray]:
    """Return the indices and values that keys were made of."""
    ordered = (keys >> keys.dtype.type(8 * dtype.itemsize)).astype(np.uint16)
    values = np.where(ordered & _SIGN, ordered, ordered ^ _REST_OF_BITS).view(np.float16)
    return keys.astype(dtype), values  # the cast keeps the lower half


def _is_in_order(indices: IndexArray, values: FloatArray) -> NDArray[np.bool_]:
    before, after = values[:, :-1], values[:, 1:]
    in_order: NDArray[np.bool_] = (before > after) | ((before == after) & (indices[:, :-1] < indices[:, 1:]))
    return in_order


def is_sorted(indices: IndexArray, values: FloatArray) -> NDArray[np.bool_]:
    """Tell for each sample whether every cell is in stored order.

    Returns
    -------
    ndarray
        bool ``(n,)``.
    """
    keys = _keys(indices, values) if np.isfinite(values).all() else None
    are_in_order = _is_in_order(indices, values) if keys is None else keys[:, :-1] < keys[:, 1:]
    in_order: NDArray[np.bool_] = np.all(are_in_order, axis=(1, 2, 3))
    return in_order


def has_repeated_classes(indices: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell for each sample whether a class is twice in a cell.

    Parameters
    ----------
    indices
        ``(n, k, n_rows, n_cols)``, in any order.

    Returns
    -------
    ndarray
        bool ``(n,)``.
    """
    n, k = indices.shape[:2]
    repeated = np.zeros(n, bool)
    if k <= _FEW_RANKS:
        for rank in range(1, k):
            same = indices[:, rank : rank + 1] == indices[:, :rank]
            repeated |= same.any(axis=(1, 2, 3))
        return repeated
    ordered = np.sort(indices, axis=1)
    return np.asarray((ordered[:, 1:] == ordered[:, :-1]).any(axis=(1, 2, 3)))

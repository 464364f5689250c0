"""Dense scores to top-k indices and values, in the order the format defines, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIGN = np.uint16(0x8000)
_REST_OF_BITS = np.uint16(0x7FFF)
_NEGATIVE_ZERO = np.uint16(0x8000)

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
    if np.all(_is_in_order(indices, values)):
        return indices, values
    if values.dtype == np.float16 and indices.dtype in (np.uint16, np.uint32):
        bits = values.view(np.uint16)
        if not np.any(bits == _NEGATIVE_ZERO):  # which is equal to zero, while its bits are others
            return _sort_keys(indices, bits)
    order = np.lexsort((indices, -values.astype(np.float32)), axis=1)
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(values, order, axis=1)


def _sort_keys(indices: IndexArray, bits: NDArray[np.uint16]) -> tuple[IndexArray, FloatArray]:
    """Return ranks in stored order, sorted as one integer each: a tenth of the time of sorting by two keys."""
    is_short = indices.dtype == np.uint16
    wide: type[np.unsignedinteger[Any]] = np.uint32 if is_short else np.uint64
    shift = wide(16 if is_short else 32)
    # The bits of a float without its sign rise with it, or fall with it where it is negative. Falling ones are wanted.
    falling: NDArray[Any] = np.where(bits & _SIGN, bits, bits ^ _REST_OF_BITS).astype(wide)
    keys: NDArray[Any] = (falling << shift) | indices
    keys.sort(axis=1)
    ordered = (keys >> shift).astype(np.uint16)
    values = np.where(ordered & _SIGN, ordered, ordered ^ _REST_OF_BITS).view(np.float16)
    return (keys & ((wide(1) << shift) - wide(1))).astype(indices.dtype), values


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
    in_order: NDArray[np.bool_] = np.all(_is_in_order(indices, values), axis=(1, 2, 3))
    return in_order

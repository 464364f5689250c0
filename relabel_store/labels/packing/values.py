"""Values as whole numbers: the best one of each cell against its neighbours, the others as falls from rank to rank.

All arithmetic is modulo 2^16, so that any float16 comes back as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from relabel_store.errors import ValueRangeError

_MOST_STEPS = 2**15 - 1


def to_integers(values: NDArray[np.float16], step: float | None) -> NDArray[np.uint16]:
    """Return float16 numbers as integers of 16 bits that rise with them, modulo 2^16.

    Parameters
    ----------
    values
        Multiples of `step`, or any where there is none.
    step
        Spacing of the numbers; None takes their bits, which tell every float16 from every other.

    Raises
    ------
    ValueRangeError
        A value is too many steps from zero.
    """
    if step is None:
        bits = values.view(np.int16)
        return np.where(bits < 0, bits ^ np.int16(0x7FFF), bits).view(np.uint16)
    steps = values.astype(np.float32) / np.float32(step)
    if not np.abs(steps).max(initial=0) <= _MOST_STEPS:
        raise ValueRangeError(
            f"values: up to {np.abs(values).max():g}, expected at most {_MOST_STEPS} steps of {step:g}, which is "
            "what the encoding 'packed' holds; choose a larger value step or 'exact'"
        )
    return steps.astype(np.int16).view(np.uint16)


def to_values(integers: NDArray[np.uint16], step: float | None, into: NDArray[np.float16]) -> None:
    """Write the numbers that `to_integers` was given; -0 comes back as 0 where there is a step."""
    _value_of_integer(step).take(integers, out=into, mode="clip")  # which takes no detour through a buffer


@lru_cache(maxsize=16)
def _value_of_integer(step: float | None) -> NDArray[np.float16]:
    signed = np.arange(2**16, dtype=np.uint16).view(np.int16)
    if step is None:
        return np.where(signed < 0, signed ^ np.int16(0x7FFF), signed).view(np.float16)
    with np.errstate(over="ignore"):  # of integers that no value has
        values: NDArray[np.float16] = (signed.astype(np.float32) * np.float32(step)).astype(np.float16)
    return values


def pack_plane(numbers: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return how each number of a map differs from what its neighbours above and to the left lead to expect.

    Parameters
    ----------
    numbers
        ``(n, n_rows, n_cols)``.

    Returns
    -------
    ndarray
        Same shape. With *e* = number - left - above + the one above left, taken as signed, where those outside of the
        map are 0: ``2e``, or ``-2e - 1`` where it is negative.
    """
    differences = numbers.copy()
    differences[:, :, 1:] -= numbers[:, :, :-1]
    differences[:, 1:] -= differences[:, :-1].copy()
    signed = differences.view(np.int16)
    return ((signed << 1) ^ (signed >> 15)).view(np.uint16)


def unpack_plane(packed: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return the numbers that `pack_plane` was given."""
    numbers: NDArray[np.uint16] = (packed >> 1) ^ np.negative(packed & 1)
    for row in range(1, numbers.shape[1]):
        numbers[:, row] += numbers[:, row - 1]
    for column in range(1, numbers.shape[2]):
        numbers[:, :, column] += numbers[:, :, column - 1]
    return numbers


def pack_falls(integers: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return how much lower each rank is than the one before, ``(n, k - 1, n_rows, n_cols)``.

    Parameters
    ----------
    integers
        ``(n, k, n_rows, n_cols)``.
    """
    return integers[:, :-1] - integers[:, 1:]


def unpack_falls(best: NDArray[np.uint16], falls: Sequence[NDArray[np.uint16]]) -> NDArray[np.uint16]:
    """Return the integers that `pack_falls` was given.

    Parameters
    ----------
    best
        Those of rank 0, ``(n, n_rows, n_cols)``.
    falls
        k - 1 arrays of that shape.
    """
    n, n_rows, n_cols = best.shape
    integers = np.empty((n, 1 + len(falls), n_rows, n_cols), np.uint16)
    integers[:, 0] = best
    for rank, fall in enumerate(falls):
        np.subtract(integers[:, rank], fall, out=integers[:, rank + 1])
    return integers

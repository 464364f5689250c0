"""Whether label maps are those that a teacher gives again, as closely as its arithmetic repeats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relabel_store.labels.topk import FloatArray, IndexArray

# By how much a logit may differ, of the largest one of its map, where a device, its libraries or the batch differ.
# Measured: benchmarks/recompute.py.
_OF_PRECISION = {"fp32": 2.0**-12, "fp16": 2.0**-7, "bf16": 2.0**-4}
_TF32 = 2.0**-7  # float32 convolutions of a GPU keep ten bits, as float16 does, unless told otherwise
_NEAR_TIE = 1e-3  # float32 scores that are nearer may come in either order
_FLOAT16 = 2.0**-11  # of a number that is rounded to it
_MOST_CELLS = 0.01  # of a map may differ by more: an outlier of rounding is no other label
_FAR = 8.0  # times the tolerance, which no cell may differ by


@dataclass(frozen=True)
class Tolerance:
    """By how much values of a map may differ from those that are stored.

    Parameters
    ----------
    relative
        Of the largest magnitude of the map.
    absolute
        Whatever the magnitude: half the value step.
    """

    relative: float
    absolute: float

    @classmethod
    def of(cls, precision: str, device: str, value_step: float | str) -> Tolerance:
        """Return the tolerance of an arithmetic, on a kind of device, and a value step."""
        relative = _OF_PRECISION[precision]
        if precision == "fp32" and device != "cpu":
            relative = _TF32
        step = value_step / 2 if isinstance(value_step, float) else 0.0
        return cls(relative + _FLOAT16, step + _NEAR_TIE)

    def within(self, values: FloatArray) -> float:
        """Return by how much values of a map may differ."""
        return self.relative * float(np.abs(values).max(initial=0.0)) + self.absolute


@dataclass(frozen=True)
class MapDifference:
    """How a stored map differs from the one that was made again.

    Parameters
    ----------
    cells
        Cells that differ by more than the tolerance.
    of
        Cells of a map.
    largest
        Difference of a value.
    tolerance
        That it was held against.
    """

    cells: int
    of: int
    largest: float
    tolerance: float

    @property
    def is_other(self) -> bool:
        """Whether the maps are different labels, and not the same ones made by other arithmetic."""
        return self.cells > _MOST_CELLS * self.of or self.largest > _FAR * self.tolerance


def compare_maps(
    stored: tuple[IndexArray, FloatArray, FloatArray | None],
    made: tuple[IndexArray, FloatArray, FloatArray | None],
    *,
    num_classes: int,
    tolerance: Tolerance,
) -> MapDifference:
    """Return how a stored map differs from one that was made again.

    Parameters
    ----------
    stored, made
        Indices and values ``(k, n_rows, n_cols)``, ranks falling, and rest ``(n_rows, n_cols)`` or None; the one as
        stored, the other before rounding.

    Notes
    -----
    A class that only one of them keeps has to be no better than the last one that the other keeps: then the two were
    near a tie.
    """
    k = len(stored[0])
    cells = stored[0][0].size
    kept, again = (
        (indices.reshape(k, cells).astype(np.int64), values.reshape(k, cells).astype(np.float64))
        for indices, values, _ in (stored, made)
    )
    within = tolerance.within(again[1])
    differences = np.maximum(
        _differences(kept, again, num_classes).max(axis=0), _differences(again, kept, num_classes).max(axis=0)
    )
    if stored[2] is not None and made[2] is not None:
        # The rest of other classes is another number.
        is_same_set = (np.sort(kept[0], axis=0) == np.sort(again[0], axis=0)).all(axis=0)
        with np.errstate(invalid="ignore"):  # nothing is left on both sides
            rest = np.abs(stored[2].reshape(cells).astype(np.float64) - made[2].reshape(cells))
        differences = np.maximum(differences, np.where(is_same_set & ~np.isnan(rest), rest, 0.0))
    return MapDifference(int((differences > within).sum()), cells, float(differences.max()), within)


def _differences(
    one: tuple[NDArray[np.int64], NDArray[np.float64]],
    other: tuple[NDArray[np.int64], NDArray[np.float64]],
    num_classes: int,
) -> NDArray[np.float64]:
    """Return by how much each value differs from that of its class in another map; ``(k, cells)``.

    Where the other map does not keep the class: by how much it exceeds the last value that it keeps.
    """
    cells = np.arange(one[0].shape[1])
    scores = np.full((num_classes, len(cells)), np.nan)
    scores[other[0], cells] = other[1]
    found = scores[one[0], cells]
    result: NDArray[np.float64] = np.where(
        np.isnan(found), np.maximum(one[1] - other[1].min(axis=0), 0), np.abs(one[1] - found)
    )
    return result

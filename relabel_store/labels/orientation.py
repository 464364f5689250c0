"""Which way up label maps lie over their photos, on the photos' own evidence: no teacher is asked.

Where a photo changes its colour between two neighbouring cells, the teacher tends to change its mind too. A map that
was transposed or mirrored changes its mind in the wrong places. For each photo the changes of colour and of the label
are compared by rank correlation, for the map as it is and turned each way; over some dozens of photos the difference
tells which way is right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from relabel_store.labels.topk import FloatArray, IndexArray

DECISIVE_Z = 4.0
"""Standard errors between the best way and every other one: once in ten thousand by chance, with seven others."""
MIN_PHOTOS = 8  # a standard error of fewer says little


class Symmetry(Enum):
    """A way to turn a map: whether its axes are exchanged, then whether rows, then columns run backwards."""

    AS_IS = (False, False, False)
    TRANSPOSED = (True, False, False)
    MIRRORED = (False, False, True)
    UPSIDE_DOWN = (False, True, False)
    HALF_TURN = (False, True, True)
    QUARTER_TURN_LEFT = (True, True, False)
    QUARTER_TURN_RIGHT = (True, False, True)
    TRANSPOSED_HALF_TURN = (True, True, True)

    @property
    def phrase(self) -> str:
        """What to call it in a sentence."""
        return {
            Symmetry.AS_IS: "as they are",
            Symmetry.MIRRORED: "mirrored left to right",
            Symmetry.UPSIDE_DOWN: "mirrored top to bottom",
            Symmetry.TRANSPOSED: "transposed",
            Symmetry.HALF_TURN: "turned by half",
            Symmetry.QUARTER_TURN_LEFT: "turned left by a quarter",
            Symmetry.QUARTER_TURN_RIGHT: "turned right by a quarter",
            Symmetry.TRANSPOSED_HALF_TURN: "transposed and turned by half",
        }[self]

    @property
    def inverse(self) -> Symmetry:
        """The way back."""
        turns = {Symmetry.QUARTER_TURN_LEFT: Symmetry.QUARTER_TURN_RIGHT}
        return turns.get(self, {right: left for left, right in turns.items()}.get(self, self))

    def apply(self, maps: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return arrays ``(..., n_rows, n_cols)`` turned this way."""
        is_transposed, is_upside_down, is_mirrored = self.value
        turned = maps.swapaxes(-1, -2) if is_transposed else maps
        return turned[..., :: -1 if is_upside_down else 1, :: -1 if is_mirrored else 1]


@dataclass(frozen=True)
class Edges:
    """How much neighbouring cells differ.

    Parameters
    ----------
    across
        Between a cell and the one on its right, ``(n, n_rows, n_cols - 1)``.
    down
        Between a cell and the one below, ``(n, n_rows - 1, n_cols)``.
    """

    across: FloatArray
    down: FloatArray

    def turned(self, symmetry: Symmetry) -> Edges:
        """Return the differences of the same cells, turned."""
        is_transposed = symmetry.value[0]
        across, down = (self.down, self.across) if is_transposed else (self.across, self.down)
        return Edges(symmetry.apply(across), symmetry.apply(down))  # type: ignore[arg-type]  # floats stay floats

    def flat(self) -> FloatArray:
        """Return all of them in one row a photo, ``(n, number of pairs of neighbours)``."""
        rows = [edges.reshape(len(edges), math.prod(edges.shape[1:])) for edges in (self.across, self.down)]
        return np.concatenate(rows, axis=1)


@dataclass(frozen=True)
class OrientationEvidence:
    """How well maps fit their photos, each way round.

    Attributes
    ----------
    symmetries
        The ways that were tried, `Symmetry.AS_IS` first; four where the grid is no square, since those that exchange
        the axes do not fit it.
    correlations
        Rank correlation between changes of colour and of the label, float64 ``(n, number of symmetries)``.
    """

    symmetries: tuple[Symmetry, ...]
    correlations: NDArray[np.float64]

    @property
    def photos(self) -> int:
        """Number of photos that had something to say."""
        return len(self.correlations)

    @property
    def best(self) -> Symmetry:
        """The way that fits best on average, decided or not."""
        if not self.photos:
            return Symmetry.AS_IS
        return self.symmetries[int(self.correlations.mean(axis=0).argmax())]

    @property
    def verdict(self) -> Symmetry | None:
        """The way in which the maps have to be turned to fit; None where the photos do not decide it."""
        best = self.best
        if self.photos < MIN_PHOTOS or any(self.z(best, other) < DECISIVE_Z for other in self._others(best)):
            return None
        return best

    def z(self, one: Symmetry, other: Symmetry) -> float:
        """Return by how many standard errors one way fits better than another, photo by photo."""
        differences = self._of(one) - self._of(other)
        error = differences.std(ddof=1) / np.sqrt(len(differences))
        return float(differences.mean() / error) if error > 0 else 0.0

    def wins(self, one: Symmetry, other: Symmetry) -> int:
        """Return the number of photos that one way fits better than another."""
        return int((self._of(one) > self._of(other)).sum())

    def describe(self) -> str:
        """Return what was found, in a sentence for people."""
        verdict = self.verdict
        if verdict is None:
            return f"orientation of the maps: undecided, on {self.photos} photos"
        rival = min(self._others(verdict), key=lambda other: self.z(verdict, other))
        shown = (
            Symmetry.TRANSPOSED
            if verdict is Symmetry.AS_IS and Symmetry.TRANSPOSED in self.symmetries
            else rival
        )
        if verdict is not Symmetry.AS_IS:
            shown = Symmetry.AS_IS
        what = "rows first, as they should be:" if verdict is Symmetry.AS_IS else f"wrong, {verdict.phrase}"
        text = f"orientation of the maps: {what} they fit {self._compared(verdict, shown)}"
        return text if rival is shown else f"{text}, and {self._compared(verdict, rival)}"

    def _compared(self, one: Symmetry, other: Symmetry) -> str:
        how = f"{self.wins(one, other)} of {self.photos} photos better than {other.phrase}"
        return f"{how} (z = {self.z(one, other):.1f})"

    def _of(self, symmetry: Symmetry) -> NDArray[np.float64]:
        return self.correlations[:, self.symmetries.index(symmetry)]

    def _others(self, symmetry: Symmetry) -> list[Symmetry]:
        return [other for other in self.symmetries if other is not symmetry]


def compare_orientations(indices: IndexArray, values: FloatArray, colours: FloatArray) -> OrientationEvidence:
    """Return how well maps fit their photos, as they are and turned each way.

    Parameters
    ----------
    indices, values
        ``(n, k, n_rows, n_cols)``, as in a store; any integer and float dtypes.
    colours
        Mean colour of what each cell covers, ``(n, n_rows, n_cols, channels)``, of any scale.

    Returns
    -------
    OrientationEvidence
        Of the photos whose colour and label change at all.
    """
    if colours.shape[:3] != (len(indices), *indices.shape[2:]):
        raise ValueError(
            f"colours: shape {colours.shape}, expected one colour for each cell of {indices.shape}"
        )
    is_square = indices.shape[2] == indices.shape[3]
    symmetries = tuple(way for way in Symmetry if is_square or not way.value[0])
    labels, photos = label_edges(indices, values), _ranks(colour_edges(colours).flat())
    correlations = np.stack(
        [_correlation(_ranks(labels.turned(way).flat()), photos) for way in symmetries], axis=1
    )
    return OrientationEvidence(symmetries, correlations[np.isfinite(correlations).all(axis=1)])


def label_edges(indices: IndexArray, values: FloatArray) -> Edges:
    """Return the Euclidean distance between the scores of neighbouring cells, absent classes counting as 0."""
    scores = values.astype(np.float64)

    def distance(one: tuple[slice, ...], other: tuple[slice, ...]) -> FloatArray:
        product = np.zeros(scores[one].shape[:1] + scores[one].shape[2:])
        for rank in range(scores.shape[1]):
            is_same = indices[one][:, rank : rank + 1] == indices[other]
            product += scores[one][:, rank] * np.where(is_same, scores[other], 0).sum(axis=1)
        squares = (scores[one] ** 2).sum(axis=1) + (scores[other] ** 2).sum(axis=1) - 2 * product
        result: FloatArray = np.sqrt(np.maximum(squares, 0))  # rounding may leave less than nothing
        return result

    whole, first, last = slice(None), slice(None, -1), slice(1, None)
    return Edges(
        distance((whole, whole, whole, first), (whole, whole, whole, last)),
        distance((whole, whole, first), (whole, whole, last)),
    )


def colour_edges(colours: FloatArray) -> Edges:
    """Return the Euclidean distance between the colours of neighbouring cells."""
    pixels = colours.astype(np.float64)
    return Edges(
        np.linalg.norm(np.diff(pixels, axis=2), axis=-1),
        np.linalg.norm(np.diff(pixels, axis=1), axis=-1),
    )


def rank_correlation(one: FloatArray, other: FloatArray) -> NDArray[np.float64]:
    """Return Spearman's correlation of each row with the same of another array; NaN where one of them is constant."""
    return _correlation(_ranks(one), _ranks(other))


def _ranks(rows: FloatArray) -> NDArray[np.float64]:
    """Return the rank of each number in its row; equal ones get their mean rank."""
    ranks = np.empty(rows.shape)
    for row, ranked in zip(rows, ranks, strict=True):
        _, position, counts = np.unique(row, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        ranked[:] = (ends - (counts - 1) / 2)[position]
    return ranks


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the correlation of each row with the same of another array; NaN where one of them is constant."""
    a, b = one - one.mean(axis=1, keepdims=True), other - other.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        result: NDArray[np.float64] = (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return result

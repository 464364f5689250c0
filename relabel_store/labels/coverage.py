"""Which part of its photo a label map covers, on the photo's own evidence: all of it, or the square in its middle.

The same changes of colour and label are compared as for the orientation of maps, once with the cells laid over the
whole photo and once over its middle square. Photos that are nearly square say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from relabel_store.labels.orientation import (
    DECISIVE_Z,
    MIN_PHOTOS,
    colour_edges,
    label_edges,
    rank_correlation,
)
from relabel_store.labels.topk import FloatArray, IndexArray

MIN_ELONGATION = 1.15  # longer by shorter side: below it both ways lay nearly the same cells over the photo


class Coverage(Enum):
    """Which part of a photo the cells of a map lie on."""

    WHOLE = "whole photos"
    MIDDLE = "middle squares"


@dataclass(frozen=True)
class CoverageEvidence:
    """How well maps fit their photos, whole and cropped.

    Attributes
    ----------
    whole, middle
        Rank correlation between changes of colour and of the label with the cells over the whole photo, and over its
        middle square, float64 ``(n,)``.
    """

    whole: NDArray[np.float64]
    middle: NDArray[np.float64]

    @property
    def photos(self) -> int:
        """Number of photos that had something to say."""
        return len(self.whole)

    @property
    def z(self) -> float:
        """By how many standard errors the whole photos fit better than their middle squares."""
        if self.photos < 2:
            return 0.0
        differences = self.whole - self.middle
        error = differences.std(ddof=1) / np.sqrt(self.photos)
        return float(differences.mean() / error) if error > 0 else 0.0

    @property
    def verdict(self) -> Coverage | None:
        """The part that the maps cover; None where the photos do not decide it."""
        if self.photos < MIN_PHOTOS or abs(self.z) < DECISIVE_Z:
            return None
        return Coverage.WHOLE if self.z > 0 else Coverage.MIDDLE

    def describe(self) -> str:
        """Return what was found, in a phrase for people."""
        is_whole = self.z > 0
        wins = int((self.whole > self.middle if is_whole else self.middle > self.whole).sum())
        better, worse = ("whole photos", "middle squares") if is_whole else ("middle squares", "whole photos")
        return f"the maps fit the {better} better than the {worse} for {wins} of {self.photos} (z = {abs(self.z):.1f})"


def compare_coverage(
    indices: IndexArray, values: FloatArray, whole: FloatArray, middle: FloatArray
) -> CoverageEvidence:
    """Return how well maps fit their photos, whole and cropped.

    Parameters
    ----------
    indices, values
        ``(n, k, n_rows, n_cols)``, as in a store; any integer and float dtypes.
    whole, middle
        Mean colour of each cell over the whole photo, and over its middle square, ``(n, n_rows, n_cols, channels)``.
    """
    labels = label_edges(indices, values).flat()
    found = np.stack([rank_correlation(labels, colour_edges(colours).flat()) for colours in (whole, middle)])
    found = found[:, np.isfinite(found).all(axis=0)]
    return CoverageEvidence(found[0], found[1])

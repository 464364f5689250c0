"""Whether label maps are those of their photos at all, on the photos' own evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relabel_store.labels.orientation import colour_edges, label_edges, rank_correlation
from relabel_store.labels.topk import FloatArray, IndexArray


@dataclass(frozen=True)
class OwnPhotoEvidence:
    """How well maps fit their own photos, and those of others.

    Attributes
    ----------
    own, other
        Rank correlation between changes of colour and of the label, float64 ``(n,)``.
    """

    own: NDArray[np.float64]
    other: NDArray[np.float64]

    @property
    def photos(self) -> int:
        """Number of photos that had something to say."""
        return len(self.own)

    @property
    def z(self) -> float:
        """By how many standard errors maps fit their own photos better."""
        if self.photos < 2:
            return 0.0
        differences = self.own - self.other
        error = differences.std(ddof=1) / np.sqrt(self.photos)
        return float(differences.mean() / error) if error > 0 else 0.0


def compare_with_others(indices: IndexArray, values: FloatArray, colours: FloatArray) -> OwnPhotoEvidence:
    """Return how well maps fit their own photos and that of the sample before.

    Parameters
    ----------
    indices, values
        ``(n, k, n_rows, n_cols)``, as in a store; any integer and float dtypes.
    colours
        Mean colour of what each cell covers, ``(n, n_rows, n_cols, channels)``, of any scale.
    """
    labels, photos = label_edges(indices, values).flat(), colour_edges(colours).flat()
    found = np.stack([rank_correlation(labels, photos), rank_correlation(labels, np.roll(photos, 1, axis=0))])
    found = found[:, np.isfinite(found).all(axis=0)]
    return OwnPhotoEvidence(found[0], found[1])

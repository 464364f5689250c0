"""Images joined to their labels by content, where their names say nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relabel_store.store.reader import LabelStore

__all__ = ["sample_ids_by_digest"]

_HEX = "S64"


def sample_ids_by_digest(images: Iterable[bytes | str | os.PathLike[str]], store: LabelStore) -> list[str]:
    """Return the sample id of each image, found by the SHA-256 of its file: for ``LabelDataset(sample_ids=...)``.

    Every image is read once.

    Parameters
    ----------
    images
        Path or bytes of each image file, by position in the dataset. The bytes of the file, not of pixels.

    Returns
    -------
    list of str
        Unique. Of copies of one file, each has the id of another copy in the store. Where the store has no such
        file, or fewer copies of it, the id is ``sha256:`` and the digest, which no label has: `LabelDataset` then says
        so, or leaves the image out.

    Raises
    ------
    OSError
        A path cannot be read.
    """
    digests = np.fromiter((_digest(image).encode() for image in images), _HEX)
    known, rows = _digests_of(store)
    copy = _rank_among_equals(digests)
    at = np.searchsorted(known, digests) + copy
    is_known = at < np.searchsorted(known, digests, side="right")
    found = iter(store.samples["sample_id"].take(rows[at[is_known]]).to_pylist())
    return [
        next(found) if has_row else f"sha256:{digest.decode()}" + (f"#{number + 1}" if number else "")
        for has_row, digest, number in zip(is_known, digests.tolist(), copy.tolist(), strict=True)
    ]


def _digest(image: bytes | str | os.PathLike[str]) -> str:
    return hashlib.sha256(image if isinstance(image, bytes) else Path(image).read_bytes()).hexdigest()


def _digests_of(store: LabelStore) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """Return the digests of a store, sorted, and the row of each; rows of one digest rise."""
    listed = store.samples["sha256"].to_pylist()
    rows = np.array([row for row, digest in enumerate(listed) if digest], np.int64)
    digests = np.array([digest.encode() for digest in listed if digest], _HEX)
    order = np.argsort(digests, kind="stable")
    return digests[order], rows[order]


def _rank_among_equals(digests: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Return how often each has come before."""
    order = np.argsort(digests, kind="stable")
    ordered = digests[order]
    rank = np.empty(len(digests), np.int64)
    rank[order] = np.arange(len(digests)) - np.searchsorted(ordered, ordered)
    return rank

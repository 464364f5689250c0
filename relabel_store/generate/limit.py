"""Some images of a source: a few of all for a first look, or those that are to be labelled again."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from relabel_store.images.names import OptionalTexts, Texts
from relabel_store.images.recognise import open_images
from relabel_store.images.source import ImageSource, detached
from relabel_store.store.files import StoreFiles


class ChosenImages:
    """Images of some rows of a source, which become rows of their own.

    Parameters
    ----------
    rows
        In the order in which they are wanted.
    """

    def __init__(self, source: ImageSource, rows: Sequence[int]) -> None:
        self._source = source
        self._rows = np.asarray(rows, np.int64)  # small when pickled
        self.name = source.name
        self.kind = source.kind
        self.order = source.order
        self.ids_from = source.ids_from
        self.sample_ids: Sequence[str] = Texts.of(source.sample_ids[row] for row in rows)
        self.paths: Sequence[str] = Texts.of(source.paths[row] for row in rows)
        self.class_names: Sequence[str | None] = OptionalTexts.of(source.class_names[row] for row in rows)

    def __len__(self) -> int:
        return len(self._rows)

    def detached(self) -> ImageSource:
        """Return the same images for other machines."""
        return ChosenImages(detached(self._source), self._rows.tolist())

    def read(self, row: int) -> bytes:
        """Return the bytes of an image."""
        return self._source.read(int(self._rows[row]))

    def fingerprint(self, row: int) -> tuple[int, int]:
        """Return ``(size_bytes, mtime_ns)`` of an image."""
        return self._source.fingerprint(int(self._rows[row]))


class LimitedImages(ChosenImages):
    """So many images of a source, spread evenly over all of them, in the source's own order.

    The first ones would do for speed; in class folders they would all be of a few classes.
    """

    def __init__(self, source: ImageSource, limit: int) -> None:
        n = len(source)
        super().__init__(source, [position * n // limit for position in range(limit)])


def open_limited(
    images: str | os.PathLike[str] | ImageSource, limit: int | None, files: StoreFiles
) -> ImageSource:
    """Return the source of the images of a store, or so many of it, spread evenly."""
    source = open_images(images, beside=files.path) if isinstance(images, str | os.PathLike) else images
    return source if limit is None or limit >= len(source) else LimitedImages(source, limit)

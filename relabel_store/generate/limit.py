"""Some images of a source: a few of all for a first look, or those that are to be labelled again."""

from __future__ import annotations

from collections.abc import Sequence

from relabel_store.images.source import ImageSource


class ChosenImages:
    """Images of some rows of a source, which become rows of their own.

    Parameters
    ----------
    rows
        In the order in which they are wanted.
    """

    def __init__(self, source: ImageSource, rows: Sequence[int]) -> None:
        self._source = source
        self._rows = list(rows)
        self.name = source.name
        self.kind = source.kind
        self.order = source.order
        self.ids_from = source.ids_from
        self.sample_ids: Sequence[str] = [source.sample_ids[row] for row in self._rows]
        self.paths: Sequence[str] = [source.paths[row] for row in self._rows]
        self.class_names: Sequence[str | None] = [source.class_names[row] for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, row: int) -> bytes:
        """Return the bytes of an image."""
        return self._source.read(self._rows[row])

    def fingerprint(self, row: int) -> tuple[int, int]:
        """Return ``(size_bytes, mtime_ns)`` of an image."""
        return self._source.fingerprint(self._rows[row])


class LimitedImages(ChosenImages):
    """So many images of a source, spread evenly over all of them, in the source's own order.

    The first ones would do for speed; in class folders they would all be of a few classes.
    """

    def __init__(self, source: ImageSource, limit: int) -> None:
        n = len(source)
        super().__init__(source, [position * n // limit for position in range(limit)])

"""What every place that images can lie in offers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

_NAMED = 3  # paths named in a message


class ImageSource(Protocol):
    """Images by row: what a build needs of them, wherever they lie.

    It is pickled, or forked with the processes that decode images, and has to work there; with Ray, on other machines
    (see `detached`). Rows of a part are read in rising order, by several processes in turn.
    """

    @property
    def name(self) -> str:
        """What to call the images: a folder's own name, never a path."""

    @property
    def kind(self) -> str:
        """What was recognised, e.g. ``class-folders``."""

    @property
    def order(self) -> str:
        """How the rows are ordered, e.g. ``sample-id``."""

    @property
    def ids_from(self) -> str:
        """What the sample ids are, e.g. ``paths``: whether they fit the same images read another way."""

    @property
    def sample_ids(self) -> Sequence[str]:
        """The id of each row, unique: the path below the root without the last suffix, in NFC."""

    @property
    def paths(self) -> Sequence[str]:
        """The path of each row below the root, ``/``-separated, as it is on disk."""

    @property
    def class_names(self) -> Sequence[str | None]:
        """The folder directly below the root that each row lies in; None where there is none."""

    def __len__(self) -> int:
        """Return the number of images."""

    def read(self, row: int) -> bytes:
        """Return the bytes of an image file; `OSError` where they cannot be had."""

    def fingerprint(self, row: int) -> tuple[int, int]:
        """Return size in bytes and time of change of what holds an image, without reading it.

        The image's own file where it has one. Elsewhere any two numbers that change with what holds it.
        """


@runtime_checkable
class ReadsStarts(Protocol):
    """Images of which the first bytes can be had for less than all of them."""

    def read_start(self, row: int, size: int) -> bytes:
        """Return the first bytes of an image file, all of a shorter one; `OSError` where they cannot be had."""


def read_start(source: ImageSource, row: int, size: int) -> bytes:
    """Return the first bytes of an image file, without reading the others where the source can do so.

    Raises
    ------
    OSError
        They cannot be had.
    """
    return source.read_start(row, size) if isinstance(source, ReadsStarts) else source.read(row)[:size]


@runtime_checkable
class Detachable(Protocol):
    """Images that need more files than their own, such as the index of a tar, unless they are detached from them."""

    def detached(self) -> ImageSource:
        """Return the same images, which need no files but their own."""


def detached(source: ImageSource) -> ImageSource:
    """Return a source that can be pickled for another machine: it needs no files there but the images' own."""
    return source.detached() if isinstance(source, Detachable) else source


def describe_changes(before: Iterable[str], after: Iterable[str]) -> str | None:
    """Return which paths were added and removed, the first few by name; None where none was."""
    old, new = set(before), set(after)
    parts = [
        f"{len(paths)} {verb} ({', '.join(map(repr, sorted(paths)[:_NAMED]))}{', …' if len(paths) > _NAMED else ''})"
        for verb, paths in (("added", new - old), ("removed", old - new))
        if paths
    ]
    return " and ".join(parts) or None

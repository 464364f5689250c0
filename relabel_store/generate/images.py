"""Image sources: the images to label, in row order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from relabel_store.errors import ImageSourceError
from relabel_store.sample_ids import sample_id_of

# torchvision's IMG_EXTENSIONS, in any case: what ImageFolder takes for training, and nothing else.
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_NAMED = 3  # paths named in a message


class ImageSource(Protocol):
    """Images by row: what a build needs of them, wherever they lie."""

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
        """Return ``(size_bytes, mtime_ns)`` of an image file, without reading it."""


class ClassFolders:
    """A tree of images as torchvision's ``ImageFolder`` reads it: a folder a class, or no folders at all.

    Rows are sorted by sample id. Links are followed, each directory once on the way down.

    Parameters
    ----------
    root
        The folder that holds the class folders, or the images.

    Raises
    ------
    ImageSourceError
        There is no image, two images have one sample id, a name is not UTF-8, or a folder cannot be read.
    """

    order = "sample-id"

    def __init__(self, root: Path) -> None:
        self._root = root
        paths = list(_walk(root))
        if not paths:
            raise ImageSourceError(
                f"images {str(root)!r}: no image in it or below, expected files that end in {', '.join(SUFFIXES)}"
            )
        listed = sorted((sample_id_of(path), path) for path in paths)
        _require_unique(root, listed)
        folders: dict[str, str] = {}  # one string object a class, not one an image
        self.name = root.resolve().name or "images"
        _require_utf8(self.name)
        self.sample_ids: Sequence[str] = [sample_id for sample_id, _ in listed]
        self.paths: Sequence[str] = [path for _, path in listed]
        self.class_names: Sequence[str | None] = [
            folders.setdefault(folder, folder) if below else None
            for folder, below, _ in (path.partition("/") for path in self.paths)
        ]
        self.kind = "class-folders" if folders else "folder"

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> bytes:
        """Return the bytes of an image file."""
        return (self._root / self.paths[row]).read_bytes()

    def fingerprint(self, row: int) -> tuple[int, int]:
        """Return ``(size_bytes, mtime_ns)`` of an image file."""
        found = (self._root / self.paths[row]).stat()
        return found.st_size, found.st_mtime_ns


def open_images(root: Path) -> ImageSource:
    """Return the images at a path.

    Raises
    ------
    ImageSourceError
        There is nothing that can be labelled.
    """
    if not root.exists():
        raise ImageSourceError(
            f"images {str(root)!r}: nothing there, expected a folder of class folders, or of images"
        )
    if not root.is_dir():
        raise ImageSourceError(
            f"images {str(root)!r}: a file, expected a folder of class folders, or of images"
        )
    return ClassFolders(root)


def _walk(root: Path) -> Iterator[str]:
    """Yield the images below a folder, ``/``-separated, in no particular order."""
    unread: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while unread:
        folder, above = unread.pop()
        try:
            with os.scandir(root / folder) as entries:
                here = (root / folder).stat()
                inside = above | {(here.st_dev, here.st_ino)}
                if len(inside) == len(above):
                    continue  # a link that leads back up
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir():
                        unread.append((path, inside))
                    elif entry.name.lower().endswith(SUFFIXES):
                        _require_utf8(path)
                        _require_file(entry, path)
                        yield path
        except OSError as error:
            raise ImageSourceError(
                f"images {str(root)!r}: folder {folder or '.'!r}: {error.strerror}"
            ) from error


def _require_utf8(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ImageSourceError(
            f"images {os.fsencode(path)!r}: its name is not UTF-8, which sample ids are; rename it"
        ) from None


def _require_file(entry: os.DirEntry[str], path: str) -> None:
    if not entry.is_file():
        what = "a link that leads nowhere" if entry.is_symlink() else "no regular file"
        raise ImageSourceError(f"image {path!r}: {what}; remove it")


def _require_unique(root: Path, listed: Sequence[tuple[str, str]]) -> None:
    pairs = [(before, after) for before, after in pairwise(listed) if before[0] == after[0]]
    if pairs:
        (sample_id, first), (_, second) = pairs[0]
        more = f" (and {len(pairs) - 1} more pairs)" if len(pairs) > 1 else ""
        raise ImageSourceError(
            f"images {str(root)!r}: {first!r} and {second!r} have one sample id, {sample_id!r}{more}; "
            "rename or remove one of them"
        )


def describe_changes(before: Iterable[str], after: Iterable[str]) -> str | None:
    """Return which paths were added and removed, the first few by name; None where none was."""
    old, new = set(before), set(after)
    parts = [
        f"{len(paths)} {verb} ({', '.join(map(repr, sorted(paths)[:_NAMED]))}{', …' if len(paths) > _NAMED else ''})"
        for verb, paths in (("added", new - old), ("removed", old - new))
        if paths
    ]
    return " and ".join(parts) or None

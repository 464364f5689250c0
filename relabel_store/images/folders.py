"""Images in folders of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from relabel_store.errors import ImageSourceError
from relabel_store.images.names import IMAGES, SUFFIXES, Names, Texts, Wanted, require_utf8
from relabel_store.sample_ids import sample_id_of


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
    ids_from = "paths"

    def __init__(self, root: Path) -> None:
        self._root = root
        paths = Texts.of(find_files(root))
        if not len(paths):
            raise ImageSourceError(
                f"images {str(root)!r}: no image in it or below, expected files that end in {', '.join(SUFFIXES)}"
            )
        self.name = root.resolve().name or "images"
        require_utf8(self.name)
        names = Names.of_paths(str(root), sorted_by_id(paths))
        self.sample_ids, self.paths, self.class_names = names.sample_ids, names.paths, names.class_names
        self.kind = "class-folders" if len(names.class_names.column.dictionary) else "folder"

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> bytes:
        """Return the bytes of an image file."""
        return (self._root / self.paths[row]).read_bytes()

    def read_start(self, row: int, size: int) -> bytes:
        """Return the first bytes of an image file."""
        with open(self._root / self.paths[row], "rb", buffering=0) as file:
            return file.read(size)

    def fingerprint(self, row: int) -> tuple[int, int]:
        """Return ``(size_bytes, mtime_ns)`` of an image file."""
        found = (self._root / self.paths[row]).stat()
        return found.st_size, found.st_mtime_ns


def has_images(root: Path) -> bool:
    """Tell whether there is an image in a folder or below.

    Raises
    ------
    ImageSourceError
        A folder cannot be read.
    """
    return next(find_files(root), None) is not None


def sorted_by_id(paths: Texts) -> Texts:
    """Return paths in order of their sample ids, by code point."""
    ids = Texts.of(map(sample_id_of, paths))
    return paths.take(pc.sort_indices(ids.column).to_numpy().astype(np.int64))


def find_files(root: Path, wanted: Wanted = IMAGES) -> Iterator[str]:
    """Yield the paths of images, or of other files, below a folder, ``/``-separated, in no particular order.

    Links are followed, each directory once on the way down.

    Raises
    ------
    ImageSourceError
        A folder cannot be read, a name is not UTF-8, or a file that is wanted is none.
    """
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
                    elif wanted.includes(entry.name):
                        require_utf8(path)
                        _require_file(entry, path, wanted)
                        yield path
        except OSError as error:
            raise ImageSourceError(
                f"{wanted.noun}s {str(root)!r}: folder {folder or '.'!r}: {error.strerror}"
            ) from error


def _require_file(entry: os.DirEntry[str], path: str, wanted: Wanted) -> None:
    if not entry.is_file():
        what = "a link that leads nowhere" if entry.is_symlink() else "no regular file"
        raise ImageSourceError(f"{wanted.noun} {path!r}: {what}; remove it")

"""Image sources."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from relabel_store.errors import ImageSourceError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class ImageSource(Protocol):
    """Images."""

    name: str
    kind: str
    order: str
    sample_ids: Sequence[str]
    paths: Sequence[str]
    class_names: Sequence[str | None]

    def __len__(self) -> int: ...
    def read(self, row: int) -> bytes: ...
    def fingerprint(self, row: int) -> tuple[int, int]: ...


class ClassFolders:
    """Class folders."""

    def __init__(self, root: Path) -> None:
        self.name, self.kind, self.order = root.resolve().name, "class-folders", "sample-id"
        self._root = root
        found = []
        for folder, _, files in os.walk(root, followlinks=True):
            for file in files:
                if file.lower().endswith(_SUFFIXES):
                    path = (Path(folder) / file).relative_to(root).as_posix()
                    found.append((unicodedata.normalize("NFC", path.rsplit(".", 1)[0]), path))
        found.sort()
        if not found:
            raise ImageSourceError(f"images {str(root)!r}: none found")
        self.sample_ids: Sequence[str] = [i for i, _ in found]
        self.paths: Sequence[str] = [p for _, p in found]
        self.class_names: Sequence[str | None] = [p.split("/")[0] if "/" in p else None for p in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> bytes:
        return (self._root / self.paths[row]).read_bytes()

    def fingerprint(self, row: int) -> tuple[int, int]:
        found = (self._root / self.paths[row]).stat()
        return found.st_size, found.st_mtime_ns


def open_images(root: Path) -> ImageSource:
    return ClassFolders(root)


def digest_of_ids(ids: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for sample_id in sorted(ids):
        data = sample_id.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return "sha256:" + digest.hexdigest()


def describe_changes(before: Sequence[str], after: Sequence[str]) -> str | None:
    a, b = set(before), set(after)
    return None if a == b else f"{len(b - a)} added, {len(a - b)} removed"

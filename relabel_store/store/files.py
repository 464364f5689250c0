"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relabel_store.errors import DamagedFileError, NotEnoughSpaceError

PARTIAL_SUFFIX = ".partial"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class FileEntry:
    """Size and digest of a file, as the journal and ``complete.json`` record them."""

    size_bytes: int
    sha256: str  # 64 hexadecimal digits

    @classmethod
    def of_bytes(cls, data: bytes) -> FileEntry:
        """Return the entry of a file with this content."""
        return cls(len(data), hashlib.sha256(data).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> FileEntry:
        """Return the entry of a file on disk, read in pieces."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            return cls(file.tell(), digest.hexdigest())

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON types."""
        return {"size_bytes": self.size_bytes, "sha256": self.sha256}

    @classmethod
    def from_json(cls, document: Any) -> FileEntry:
        """Return the entry of a JSON object.

        Raises
        ------
        ValueError
            It is not one.
        """
        match document:
            case {"size_bytes": int(size_bytes), "sha256": str(sha256)}:
                return cls(size_bytes, sha256)
        raise ValueError(f"file entry: {document!r}, expected size_bytes and sha256")


def entry_of(files: Mapping[str, FileEntry], name: str) -> FileEntry:
    """Return what ``complete.json`` lists of a file.

    Raises
    ------
    DamagedFileError
        It lists nothing of that name.
    """
    if name not in files:
        raise DamagedFileError(f"store file 'complete.json': does not list {name!r}; restore it from a copy")
    return files[name]


def require_entry(path: Path, name: str, entry: FileEntry) -> None:
    """Check a file against what was recorded of it.

    Raises
    ------
    DamagedFileError
        It is missing, or its size or content is another.
    """
    try:
        found = FileEntry.of_file(path)
    except FileNotFoundError:
        raise DamagedFileError(
            f"store file {name!r}: missing, expected {entry.size_bytes} bytes; restore it or build its part again"
        ) from None
    _require_same(name, found, entry)


def require_size(path: Path, name: str, entry: FileEntry) -> None:
    """Check the size of a file against what was recorded of it.

    Raises
    ------
    DamagedFileError
        It is missing, or its size is another.
    """
    found = path.stat().st_size if path.is_file() else None
    if found != entry.size_bytes:
        what = "missing" if found is None else f"{found} bytes"
        raise DamagedFileError(
            f"store file {name!r}: {what}, expected {entry.size_bytes} bytes; restore it or build its part again"
        )


def read_verified(path: Path, name: str, entry: FileEntry) -> bytes:
    """Return the content of a file after checking it against what was recorded of it.

    Raises
    ------
    DamagedFileError
        It is missing, or its size or content is another.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DamagedFileError(
            f"store file {name!r}: missing, expected {entry.size_bytes} bytes; restore it from a copy"
        ) from None
    _require_same(name, FileEntry.of_bytes(data), entry)
    return data


def _require_same(name: str, found: FileEntry, expected: FileEntry) -> None:
    if found.size_bytes != expected.size_bytes:
        raise DamagedFileError(
            f"store file {name!r}: {found.size_bytes} bytes, expected {expected.size_bytes}; "
            "it is truncated or was replaced: restore it or build its part again"
        )
    if found.sha256 != expected.sha256:
        raise DamagedFileError(
            f"store file {name!r}: SHA-256 {found.sha256[:12]}…, expected {expected.sha256[:12]}…; "
            "it is damaged or belongs to another store: restore it or build its part again"
        )


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it is there with all its bytes or not at all.

    Raises
    ------
    NotEnoughSpaceError
        The disk is full; nothing is left behind.
    """
    with _partial_file(path, data) as partial:
        partial.replace(path)


def create_file(path: Path, data: bytes) -> bool:
    """Write a file only if there is none of its name; return whether it was written.

    Raises
    ------
    NotEnoughSpaceError
        The disk is full; nothing is left behind.
    """
    with _partial_file(path, data) as partial:
        try:
            path.hardlink_to(partial)
        except FileExistsError:
            return False
        return True


@contextlib.contextmanager
def _partial_file(path: Path, data: bytes) -> Iterator[Path]:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
    try:
        _make_directory(path.parent)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield partial
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise NotEnoughSpaceError(
                f"writing {path.name!r} ({len(data)} bytes): {error.strerror}; "
                "free some space and run the same command again"
            ) from error
        raise
    finally:
        partial.unlink(missing_ok=True)
    sync_directory(path.parent)


def _make_directory(path: Path) -> None:
    """Make a directory and those above it, each durable in the one that holds it."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and removals in a directory durable."""
    sync_file(path)


def sync_file(path: Path) -> None:
    """Make what was written to a file, or to a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partials(root: Path) -> None:
    """Remove what writers that were killed left below a directory."""
    for leftover in root.rglob(f".*{PARTIAL_SUFFIX}"):
        leftover.unlink(missing_ok=True)

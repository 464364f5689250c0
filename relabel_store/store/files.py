"""The files of a store: what a place that holds them can do, and how they are checked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol

from relabel_store.errors import DamagedFileError, FormatError

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """Size and digest of a file, as the journal and ``complete.json`` record them."""

    size_bytes: int
    sha256: str  # 64 hexadecimal digits, letters small

    @classmethod
    def of_bytes(cls, data: bytes) -> FileEntry:
        """Return the entry of a file with this content."""
        return cls(len(data), hashlib.sha256(data).hexdigest())

    @classmethod
    def of_file(cls, file: BufferedReader) -> FileEntry:
        """Return the entry of a file that was just opened, read in pieces."""
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
            case {"size_bytes": int(size_bytes), "sha256": str(sha256)} if _SHA256.fullmatch(sha256):
                return cls(size_bytes, sha256)
        raise ValueError(
            f"file entry: {str(document)[:120]}, expected size_bytes and sha256 in 64 digits of 0 to 9 and a to f"
        )


@dataclass(frozen=True)
class FileStamp:
    """What a listing tells of a file.

    Parameters
    ----------
    tag
        Another one for other content of the same name.
    """

    size_bytes: int
    tag: str


class StoreFiles(Protocol):
    """The files of one store, wherever they lie.

    A name is the path below the store, ``/`` between folders. A file is there whole or not at all, also after
    a crash, and who reads it after it was written reads what was written. Files can be pickled.
    """

    @property
    def location(self) -> str:
        """Path or URL of the store, as messages name it."""

    @property
    def path(self) -> Path | None:
        """The directory where the files lie, or None where this host has none."""

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises
        ------
        FileNotFoundError
            There is none of this name.
        """

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """Yield names and contents, in the order asked; None where there is no such file."""

    def entry(self, name: str) -> FileEntry:
        """Return size and digest of a file.

        Raises
        ------
        FileNotFoundError
            There is none of this name.
        """

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, or None where there is none of this name."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file, in place of the one of its name.

        Raises
        ------
        NotEnoughSpaceError
            There is no room; nothing is left behind.
        """

    def create(self, name: str, data: bytes) -> bool:
        """Write a file only if there is none of its name; return whether it was written.

        Of several that create a file at once, in whatever process and on whatever host, at most one is told True.
        None is where an answer was lost on the way: whose file it is then its content tells.

        Raises
        ------
        NotEnoughSpaceError
            There is no room; nothing is left behind.
        """

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are no error."""

    def remove_folder(self, folder: str) -> None:
        """Remove every file below a folder, and the folder."""

    def listing(self, folder: str, *, deep: bool = False) -> dict[str, FileStamp]:
        """Return the files in a folder by name, sorted, or with `deep` also those in folders below it.

        The folder ``""`` is the store itself.
        """

    def sweep(self) -> None:
        """Remove what writers that were killed left half written."""

    def children(self) -> Iterable[str]:
        """Return the names of the files and folders at the top."""

    def require_folder(self) -> None:
        """Check that files can lie here.

        Raises
        ------
        TargetExistsError
            Something else does.
        """

    def require_creation(self) -> None:
        """Check that `create` can be relied on.

        Raises
        ------
        ObjectStoreError
            It cannot.
        """

    def describe(self) -> str:
        """Say what lies at the location, for a message that no store does."""


def require_plain_name(name: str) -> str:
    """Return the name of a file after checking that it stays below the store.

    Raises
    ------
    FormatError
        It leads out of the store, or is none.
    """
    if not name or "\0" in name or "\\" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise FormatError(
            f"store file {name!r}: no name of a file below the store; its record was made to deceive"
        )
    return name


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


def require_entry(files: StoreFiles, name: str, entry: FileEntry) -> None:
    """Check a file against what was recorded of it.

    Raises
    ------
    DamagedFileError
        It is missing, or its size or content is another.
    """
    _require_local_size(files, name, entry)
    try:
        found = files.entry(name)
    except FileNotFoundError:
        raise DamagedFileError(
            f"store file {name!r}: missing, expected {entry.size_bytes} bytes; restore it or build its part again"
        ) from None
    require_same(name, found, entry)


def require_size(found: int | None, name: str, entry: FileEntry) -> None:
    """Check the size of a file in bytes, None where there is none, against what was recorded of it.

    Raises
    ------
    DamagedFileError
        It is missing, or its size is another.
    """
    if found != entry.size_bytes:
        what = "missing" if found is None else f"{found} bytes"
        raise DamagedFileError(
            f"store file {name!r}: {what}, expected {entry.size_bytes} bytes; restore it or build its part again"
        )


def read_verified(files: StoreFiles, name: str, entry: FileEntry) -> bytes:
    """Return the content of a file after checking it against what was recorded of it.

    Raises
    ------
    DamagedFileError
        It is missing, or its size or content is another.
    """
    _require_local_size(files, name, entry)
    try:
        data = files.read(name)
    except FileNotFoundError:
        raise DamagedFileError(
            f"store file {name!r}: missing, expected {entry.size_bytes} bytes; restore it from a copy"
        ) from None
    require_same(name, FileEntry.of_bytes(data), entry)
    return data


def _require_local_size(files: StoreFiles, name: str, entry: FileEntry) -> None:
    """Check the size of a file on this host, before all that it claims to be is read.

    Over a network that would be one more request a file, and what is read there is as large as it says.
    """
    size = None if files.path is None else files.size(name)
    if size is not None and size != entry.size_bytes:
        require_same(name, FileEntry(size, ""), entry)


def require_same(name: str, found: FileEntry, expected: FileEntry) -> None:
    """Check what was found of a file against what was recorded of it.

    Raises
    ------
    DamagedFileError
        Its size or content is another.
    """
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

"""Files that images lie in, here or far away, read at random from any process."""

from __future__ import annotations

import errno
import io
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol, cast
from urllib.parse import unquote, urlsplit

from relabel_store.errors import ImageSourceError
from relabel_store.images.services import (
    Stamp,
    attempt,
    sends_whole_files,
    stamp_of,
    system_errors,
)

_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]+://")
_URL_AS_PATH = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/[^/]")  # what pathlib makes of one
# A part is read in rising order: a request of 4 MiB takes hardly longer than one of an image, and holds forty.
PIECE = 4 << 20
_NEAR = 1 << 20  # bytes between two reads that belong to one pass over a file


class Place(Protocol):
    """One file, wherever it lies; can be pickled, and forked with a process that has read it."""

    @property
    def location(self) -> str:
        """Path or URL."""

    @property
    def name(self) -> str:
        """The last part of it."""

    def stamp(self) -> Stamp:
        """Return size and version as they are now; `OSError` where there is no such file."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return so many bytes from an offset; `OSError` where the file ends before, or cannot be read."""

    def open(self, piece: int = PIECE) -> BinaryIO:
        """Return the file, open for reading at random; a remote one in pieces of so many bytes."""


class LocalFile:
    """A file of this machine.

    It is opened for each read: 10 us beside the 100 of an image, and nothing to share or to leave open.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.location = os.fspath(path)
        self.name = Path(path).name

    def stamp(self) -> Stamp:
        """Return size and time of change."""
        found = os.stat(self.location)  # noqa: PTH116 - no Path object for each of a million files
        return Stamp(found.st_size, found.st_mtime_ns)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return so many bytes from an offset."""
        with open(self.location, "rb", buffering=0) as file:
            file.seek(offset)
            return _whole(self.location, offset, size, file.read(size))

    def open(self, piece: int = PIECE) -> BinaryIO:
        """Return the file, open."""
        del piece  # the system reads ahead
        return open(self.location, "rb")


class RemoteFile:
    """An object or a file that fsspec reads."""

    def __init__(self, url: str) -> None:
        self.location = url
        self.name = PurePosixPath(unquote(urlsplit(url).path)).name or urlsplit(url).netloc
        self._ahead: tuple[int, bytes] = (0, b"")
        self._end: int | None = None  # where the last read ended
        self._size_bytes: int | None = None

    def __reduce__(self) -> tuple[type[RemoteFile], tuple[str]]:
        return RemoteFile, (self.location,)

    def stamp(self) -> Stamp:
        """Return size and version; one request."""
        return stamp_of(self.location, attempt(self.location, lambda fs, path: fs.info(path)))

    def read_at(self, offset: int, size: int) -> bytes:
        """Return so many bytes from an offset, out of what was read ahead where they are."""
        start, data = self._ahead
        if not start <= offset <= offset + size <= start + len(data):
            is_near = self._end is not None and 0 <= offset - self._end <= _NEAR
            wanted = max(size, PIECE) if is_near else size
            start, data = offset, self._fetch(offset, wanted)
            self._ahead = start, data
        self._end = offset + size
        return _whole(self.location, offset, size, data[offset - start : offset - start + size])

    def _fetch(self, offset: int, size: int) -> bytes:
        if self._size_bytes is None:
            self._size_bytes = self.stamp().size_bytes
        end = min(offset + size, self._size_bytes)
        data: bytes = attempt(self.location, lambda fs, path: fs.cat_file(path, start=offset, end=end))
        if len(data) != max(end - offset, 0):
            raise sends_whole_files()  # or the beginning of the file would pass for what lies at the offset
        return data

    def open(self, piece: int = PIECE) -> BinaryIO:
        """Return the file, open."""
        opened = attempt(
            self.location, lambda fs, path: fs.open(path, "rb", block_size=piece, cache_type="readahead")
        )
        return cast(BinaryIO, _Opened(self.location, opened))


class _Opened(io.RawIOBase):
    """A remote file that is open, of which whatever its client raises is an error of the system."""

    def __init__(self, url: str, opened: Any) -> None:
        super().__init__()
        self._url = url
        self._opened = opened

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        with system_errors(self._url):
            data: bytes = self._opened.read(size)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self._opened.seek(offset, whence))

    def tell(self) -> int:
        return int(self._opened.tell())

    def close(self) -> None:
        self._opened.close()
        super().close()


def _whole(location: str, offset: int, size: int, data: bytes) -> bytes:
    if len(data) != size:
        raise OSError(
            errno.EIO,
            f"{location!r}: {len(data)} bytes at {offset}, expected {size}; it was cut off after it was listed",
        )
    return data


def is_url(location: str | os.PathLike[str]) -> bool:
    """Tell whether a location is a URL rather than a path; ``file://`` is a path."""
    text = os.fspath(location)
    return _URL.match(text) is not None and not text.startswith("file://")


def require_location(location: str | os.PathLike[str]) -> str:
    """Return a path or a URL as text.

    Raises
    ------
    ImageSourceError
        An empty path, or a URL that holds credentials, or that was turned into a path.
    """
    text = os.fspath(location)
    if not text:
        raise ImageSourceError("images '': an empty path, expected a folder, a file or a URL")
    if is_url(text):
        parts = urlsplit(text)
        if parts.username is not None or parts.password is not None:
            raise ImageSourceError(
                f"images {parts.scheme}://…@{parts.hostname or ''}{parts.path}: a URL with credentials, expected "
                "them in the environment or in the files of the service"
            )
    elif isinstance(location, Path) and _URL_AS_PATH.match(text):
        raise ImageSourceError(
            f"images {text!r}: a URL that became a path, which has one slash; give it as text"
        )
    elif text.startswith("file://"):
        return unquote(urlsplit(text).path)
    return text


def open_place(location: str) -> Place:
    """Return the file at a path or URL, which need not be there."""
    return RemoteFile(location) if is_url(location) else LocalFile(location)

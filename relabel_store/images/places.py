"""Files that images lie in, here or far away, read at random from any process."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol, TypeVar, cast
from urllib.parse import unquote, urlsplit

from relabel_store.errors import ImageSourceError, MissingDependencyError

T = TypeVar("T")

_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]+://")
_URL_AS_PATH = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/[^/]")  # what pathlib makes of one
# A part is read in rising order: a request of 4 MiB takes hardly longer than one of an image, and holds forty.
PIECE = 4 << 20
_NEAR = 1 << 20  # bytes between two reads that belong to one pass over a file
# What a service says of the version of an object, best first.
_VERSION_KEYS = (
    "ETag",
    "etag",
    "md5Hash",
    "generation",
    "blob_id",
    "mtime",
    "LastModified",
    "last_modified",
    "created",
)
# Whose errors mean that the network or the service failed.
_CLIENT_PACKAGES = {
    "aiobotocore",
    "aiohttp",
    "botocore",
    "fsspec",
    "gcsfs",
    "google",
    "huggingface_hub",
    "httpx",
}
_CLIENT_PACKAGES |= {"requests", "s3fs", "urllib3", "httpcore", "asyncio"}


@dataclass(frozen=True)
class Stamp:
    """What changes with a file.

    Parameters
    ----------
    version
        Time of change in nanoseconds, or a number made of what a service says of the object.
    """

    size_bytes: int
    version: int


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
        if len(data) != max(
            end - offset, 0
        ):  # or the beginning of the file would pass for what lies at the offset
            raise OSError(
                errno.EOPNOTSUPP,
                f"{self.location!r}: {len(data)} bytes where {end - offset} at {offset} were asked for; the server "
                "does not send parts of files: copy the file here",
            )
        return data

    def open(self, piece: int = PIECE) -> BinaryIO:
        """Return the file, open."""
        opened = attempt(
            self.location, lambda fs, path: fs.open(path, "rb", block_size=piece, cache_type="readahead")
        )
        return cast(BinaryIO, opened)


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
        A URL that holds credentials, or that was turned into a path.
    """
    text = os.fspath(location)
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


def attempt(url: str, call: Callable[[Any, str], T]) -> T:
    """Return what a call of a file system gives, of the one that fsspec has for a URL in this process.

    Raises
    ------
    OSError
        Whatever the client of the service raises.
    MissingDependencyError
        fsspec, or its client for this service, is not installed.
    ImageSourceError
        fsspec knows no such service.
    """
    try:
        import fsspec

        fs, path = fsspec.core.url_to_fs(url)  # that of this process: fsspec makes another one after a fork
    except ImportError as error:
        raise MissingDependencyError(
            f"images {url!r}: {error}; pip install 'relabel-store[build,remote]'"
        ) from error
    except ValueError as error:
        raise ImageSourceError(f"images {url!r}: {error}; expected s3, gs, hf, http or https") from error
    try:
        return call(fs, path)
    except OSError as error:
        if error.strerror:
            raise
        # Clients give a text alone, which whoever prints the reason of the system would not see.
        kinds = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}
        number = next((number for kind, number in kinds.items() if isinstance(error, kind)), errno.EIO)
        raise OSError(number, str(error) or os.strerror(number)) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _CLIENT_PACKAGES:
            raise
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error


def stamp_of(url: str, info: Mapping[str, Any]) -> Stamp:
    """Return the stamp of what a file system says of an object.

    Raises
    ------
    OSError
        It does not say how large the object is.
    """
    size = info.get("size")
    if not isinstance(size, int):
        raise OSError(errno.EOPNOTSUPP, f"{url!r}: the server does not say its size; copy the file here")
    versions = [f"{key}={info[key]}" for key in _VERSION_KEYS if info.get(key) is not None]
    digest = hashlib.sha256("".join(versions[:1]).encode()).digest()
    return Stamp(size, int.from_bytes(digest[:7], "little"))


def list_files(url: str) -> Iterator[tuple[str, Stamp]]:
    """Yield path below a remote folder, and stamp, of each file in it or below.

    Raises
    ------
    ImageSourceError
        The service cannot list, or holds nothing there.
    OSError
        It cannot be reached.
    """
    if urlsplit(url).scheme in ("http", "https"):
        raise ImageSourceError(
            f"images {url!r}: a folder on a web server, which cannot be listed; expected a tar, a Parquet or CSV file, "
            "or several as in 'https://host/train-{0000..0146}.tar'"
        )
    found = attempt(url, lambda fs, path: (fs._strip_protocol(path), fs.find(path, detail=True)))
    root, files = str(found[0]).rstrip("/"), found[1]
    for path in sorted(files):
        if path.startswith(f"{root}/") and files[path].get("type", "file") == "file":
            yield path[len(root) + 1 :], stamp_of(path, files[path])

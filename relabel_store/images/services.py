"""Services that keep files far away, as fsspec's clients speak to them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from relabel_store.errors import ImageSourceError, MissingDependencyError

T = TypeVar("T")

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
    with system_errors(url):
        return call(fs, path)


@contextlib.contextmanager
def system_errors(url: str) -> Iterator[None]:
    """Raise what the client of a service raises in the block as errors of the system, with a reason.

    Raises
    ------
    OSError
        Whatever it raises.
    """
    try:
        yield
    except OSError as error:
        if error.strerror:
            raise
        cause = error.__cause__
        if isinstance(error, FileNotFoundError) and cause is not None and not isinstance(cause, type(error)):
            raise _of_client(cause) from error  # to fsspec, all that fails on the web is missing
        # Clients give a text alone, which whoever prints the reason of the system would not see.
        kinds = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}
        number = next((number for kind, number in kinds.items() if isinstance(error, kind)), errno.EIO)
        text = str(error)
        raise OSError(number, os.strerror(number) if text.strip("/") in url else text) from error
    except ValueError as error:
        if "range requests" not in str(error):
            raise
        raise sends_whole_files() from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _CLIENT_PACKAGES:
            raise
        raise _of_client(error) from error


def sends_whole_files() -> OSError:
    """Return the error of a web server that knows no ranges."""
    return OSError(errno.EOPNOTSUPP, "the server does not send parts of files; copy the file here")


def _of_client(error: BaseException) -> OSError:
    status = getattr(error, "status", None)
    if not isinstance(status, int):
        return OSError(errno.EIO, f"{type(error).__name__}: {error}")
    number = {401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT, 410: errno.ENOENT}.get(
        status, errno.EIO
    )
    return OSError(number, f"the server answers {status} {getattr(error, 'message', '')}".rstrip())


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

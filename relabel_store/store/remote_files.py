"""The files of a store in an object store, through fsspec; or anywhere else it reads from."""

from __future__ import annotations

import errno
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlsplit

from relabel_store import spec
from relabel_store.errors import (
    MissingDependencyError,
    ObjectStoreError,
    OptionError,
    TargetExistsError,
)
from relabel_store.store.files import FileEntry, FileStamp

T = TypeVar("T")

# Where "create only if absent" is one request that the service answers atomically (S3: If-None-Match, since
# November 2024; Google: ifGenerationMatch=0). fsspec's own memory is for tests.
WRITABLE = ("s3", "s3a", "gs", "gcs", "memory")

# 0.25 s, 0.5 s, ... 16 s, each up to half longer: an outage of half a minute passes unnoticed.
_DELAYS_S = tuple(0.25 * 2**attempt for attempt in range(7))
_REQUESTS = 16  # at once
_WINDOW = 64  # contents held at once while many files are read
# One of us tries again, or the waits would multiply: we for S3, whose client is told not to, and Google's client,
# which cannot be told, for itself (six times, a minute in all).
_PATIENT = ("gs", "gcs")
_S3_OPTIONS = {
    "config_kwargs": {"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 60}
}
# What arrived is compared with what was sent: the client of S3 sends a checksum anyway, Google's has to be told.
_GOOGLE_OPTIONS = {"consistency": "md5"}
_CLIENT_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": _S3_OPTIONS,
    "s3a": _S3_OPTIONS,
    "gs": _GOOGLE_OPTIONS,
    "gcs": _GOOGLE_OPTIONS,
}
_CLIENT_PACKAGES = {
    "aiobotocore",
    "aiohttp",
    "botocore",
    "fsspec",
    "gcsfs",
    "google",
    "requests",
    "s3fs",
    "urllib3",
}
_NEVER_BETTER = {errno.EINVAL, errno.EPERM, errno.EACCES, errno.ENAMETOOLONG, errno.ENOSYS}
_HINT = {
    "s3": "aws configure, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or FSSPEC_S3_ANON=true for a public bucket",
    "gs": "gcloud auth application-default login, GOOGLE_APPLICATION_CREDENTIALS, or FSSPEC_GS_TOKEN=anon",
}


class RemoteFiles:
    """The files of a store below a URL: see `StoreFiles`.

    Parameters
    ----------
    location
        ``s3://bucket/path`` or ``gs://bucket/path``, to read and to write; any other URL that fsspec knows, to read
        finished stores. Credentials, endpoint and region come from the environment and the usual files of each
        service, never from the URL.

    Raises
    ------
    OptionError
        The URL is none, or holds credentials.
    """

    path = None

    def __init__(self, location: str) -> None:
        self.location = require_url(location)
        self._protocol = self.location.partition(":")[0]
        self._opened: tuple[int, Any, str] | None = None
        self._delays_s = () if self._protocol in _PATIENT else _DELAYS_S
        self._can_create = False

    def __reduce__(self) -> tuple[type[RemoteFiles], tuple[str]]:
        return RemoteFiles, (self.location,)

    def __repr__(self) -> str:
        return f"RemoteFiles({self.location!r})"

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        data: bytes = self._try("reading", name, lambda fs, path: fs.cat_file(path))
        return data

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """Yield names and contents, in the order asked; None where there is no such file."""
        with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="read") as threads:
            for some in _in_groups(names):
                yield from zip(some, threads.map(self._read_or_none, some), strict=True)

    def _read_or_none(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def entry(self, name: str) -> FileEntry:
        """Return size and digest of a file, which is read for it."""
        return FileEntry.of_bytes(self.read(name))

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, or None where there is none of this name."""
        try:
            found = self._try("looking at", name, lambda fs, path: fs.info(path))
        except FileNotFoundError:
            return None
        if found["type"] != "file":
            return None
        return (
            len(self.read(name)) if found["size"] is None else int(found["size"])
        )  # some HTTP servers tell none

    def write(self, name: str, data: bytes) -> None:
        """Write a file, in place of the one of its name."""
        self._write("writing", name, lambda fs, path: fs.pipe_file(path, data))

    def create(self, name: str, data: bytes) -> bool:
        """Write a file only if there is none of its name; return whether it was written.

        False is also said of a file that was written by a request of ours whose answer was lost: its content tells.
        """
        try:
            self._write("creating", name, lambda fs, path: fs.pipe_file(path, data, mode="create"))
        except FileExistsError:
            return False
        return True

    def _write(self, doing: str, name: str, call: Callable[[Any, str], object]) -> None:
        self._require_writable()
        try:
            self._try(doing, name, call)
        except FileNotFoundError:
            raise ObjectStoreError(
                f"{doing} {name!r} in {self.location!r}: there is no such bucket; create it, or correct its name"
            ) from None

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are no error."""
        with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="remove") as threads:
            for some in _in_groups(names):
                list(threads.map(self._remove, some))

    def _remove(self, name: str) -> None:
        try:
            self._try("removing", name, lambda fs, path: fs.rm_file(path))
        except FileNotFoundError:
            return

    def remove_folder(self, folder: str) -> None:
        """Remove every file below a folder."""
        self.remove(self.listing(folder, deep=True))

    def listing(self, folder: str, *, deep: bool = False) -> dict[str, FileStamp]:
        """Return the files in a folder by name, sorted, or with `deep` also those in folders below it."""
        try:
            found: dict[str, dict[str, Any]] = self._try(
                "listing",
                folder,
                lambda fs, path: fs.find(path, maxdepth=None if deep else 1, detail=True),
            )
        except FileNotFoundError:
            return {}
        root = f"{self._open()[1]}/"
        return {
            path.removeprefix(root): FileStamp(int(info["size"]), _tag_of(info))
            for path, info in sorted(found.items())
            if path.startswith(root)
        }

    def sweep(self) -> None:
        """Do nothing: an object is there whole or not at all."""

    def children(self) -> Iterable[str]:
        """Return the names of the files and folders at the top."""
        try:
            found: list[str] = self._try("listing", "", lambda fs, path: fs.ls(path, detail=False))
        except FileNotFoundError:
            return []
        root = f"{self._open()[1]}/"
        return [name for name in (path.removeprefix(root).strip("/") for path in found) if name]

    def require_folder(self) -> None:
        """Check that a store can be written here, as far as the URL tells."""
        self._require_writable()
        try:
            found = self._try("looking at", "", lambda fs, path: fs.info(path))
        except FileNotFoundError:
            return
        if found["type"] == "file":
            raise TargetExistsError(
                f"output {self.location!r}: is an object, expected a store or a prefix that is free"
            )

    def require_creation(self) -> None:
        """Check, once, that the service creates an object only if there is none of its name.

        Raises
        ------
        ObjectStoreError
            It replaces it: then two writers of one part would not notice each other.
        """
        if self._can_create:
            return
        probe = f"{spec.RUNNING_DIR}/probe-{uuid.uuid4().hex}"
        self.create(probe, b"first")
        is_replaced = self.create(probe, b"second")
        self.remove([probe])
        if is_replaced:
            raise ObjectStoreError(
                f"output {self.location!r}: the service replaces objects that were to be created only if absent "
                "(If-None-Match), so that builds at the same time would damage each other's parts; build into a "
                "directory and copy the store there"
            )
        self._can_create = True

    def describe(self) -> str:
        """Say what lies at the URL, for a message that no store does."""
        return "no object of a label store there"

    def _require_writable(self) -> None:
        if self._protocol not in WRITABLE:
            raise OptionError(
                f"output {self.location!r}: stores are written to directories, s3:// and gs://, and only read from "
                f"{self._protocol}://; build into a directory and copy the store there"
            )

    def _open(self) -> tuple[Any, str]:
        """Return the file system of this process and the path of the store in it."""
        if self._opened is None or self._opened[0] != os.getpid():  # connections do not outlive a fork
            self._opened = (os.getpid(), *_open_file_system(self.location, self._protocol))
        return self._opened[1:]

    def _try(self, doing: str, name: str, call: Callable[[Any, str], T]) -> T:
        """Call the file system, and again where that may help."""
        fs, root = self._open()
        path = f"{root}/{name}" if name else root
        for delay_s in (*self._delays_s, None):
            try:
                return call(fs, path)
            except (FileNotFoundError, FileExistsError, IsADirectoryError):
                raise
            except Exception as error:  # of whatever client: each has a tree of its own
                if not _is_of_service(error):
                    raise
                if _is_existing(error):
                    raise FileExistsError(path) from error
                if delay_s is None or not _may_pass(error):
                    raise self._explain(error, doing, name) from error
            time.sleep(delay_s * random.uniform(1, 1.5))
        raise AssertionError

    def _explain(self, error: Exception, doing: str, name: str) -> ObjectStoreError:
        what = f"{doing} {name!r} in {self.location!r}" if name else f"{doing} {self.location!r}"
        told = _without_secrets(f"{type(error).__name__}: {error}")
        if _is_refusal(error):
            hint = _HINT.get(self._protocol.replace("s3a", "s3").replace("gcs", "gs"))
            told += f"; check its permissions and your credentials{f' ({hint})' if hint else ''}"
        elif _may_pass(error):
            told += f"; tried {len(self._delays_s) + 1} times: run the same command again when the service is back"
        return ObjectStoreError(f"{what}: {told}")


def require_url(location: str) -> str:
    """Return a URL without a slash at its end.

    Raises
    ------
    OptionError
        It is none, or one that messages and files should not show.
    """
    url = urlsplit(location)
    shown = f"{url.scheme}://…"
    if "@" in url.netloc or url.query or url.fragment or "?" in location:
        raise OptionError(
            f"location {shown!r}: holds credentials or a query, which would end in messages and logs; expected "
            "protocol://bucket/path, with credentials from the environment"
        )
    parts = location.rstrip("/").split("/")[2:]
    if not all(parts) or {".", ".."} & set(parts) or len(parts) < 2:
        raise OptionError(
            f"location {location!r}: expected protocol://bucket/path without '.', '..' and '//'"
        )
    return location.rstrip("/")


def _in_groups(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Yield names in groups, of as many as are held at once."""
    rest = iter(names)
    while some := tuple(islice(rest, _WINDOW)):
        yield some


def _open_file_system(location: str, protocol: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise _missing(location) from None
    options = _CLIENT_OPTIONS.get(protocol, {})
    try:
        fs = fsspec.filesystem(protocol, use_listings_cache=False, **options)
    except ImportError:
        raise _missing(location) from None
    except ValueError as error:
        raise OptionError(f"location {location!r}: {error}; expected s3://, gs:// or a path") from None
    return fs, str(fs._strip_protocol(location)).rstrip("/")


def _missing(location: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"location {location!r}: needs what is not installed; pip install 'relabel-store[remote]'"
    )


def _tag_of(info: dict[str, Any]) -> str:
    known = ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "created")
    return next((str(info[key]) for key in known if info.get(key) is not None), "")


def _is_of_service(error: Exception) -> bool:
    """Tell whether an error is the client's, not of a mistake of ours."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _CLIENT_PACKAGES


def _code_of(error: BaseException | None) -> str:
    """Return the service's own code of an error, such as ``NoSuchBucket`` or ``412``."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    return str(getattr(error, "code", "") or getattr(error, "status", ""))


def _is_existing(error: Exception) -> bool:
    return {_code_of(error), _code_of(error.__cause__)} & {"PreconditionFailed", "412"} != set()


def _is_refusal(error: Exception) -> bool:
    names = {base.__name__ for base in type(error).__mro__}
    return (
        isinstance(error, PermissionError)
        or any("Credential" in name or "Token" in name or "Auth" in name for name in names)
        or _code_of(error) in ("401", "403")
        or str(error).startswith("Forbidden")
    )


def _may_pass(error: Exception) -> bool:
    is_hopeless = isinstance(error, OSError) and error.errno in _NEVER_BETTER
    return not (is_hopeless or _is_refusal(error) or _code_of(error) in ("400", "405"))


def _without_secrets(text: str) -> str:
    text = re.sub(r"//[^/@\s]+@", "//…@", text)
    secrets = (
        value for name, value in os.environ.items() if re.search("SECRET|TOKEN|PASSWORD|ACCESS_KEY", name)
    )
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "…")
    return " ".join(text.split())[:500]

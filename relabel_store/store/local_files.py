"""The files of a store in a directory of this host, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from relabel_store import spec
from relabel_store.errors import DamagedFileError, FormatError, TargetExistsError
from relabel_store.store.disk import explaining
from relabel_store.store.files import FileEntry, FileStamp, require_plain_name

PARTIAL_SUFFIX = ".partial"
LARGEST_DOCUMENT_BYTES = 512 * 2**20  # complete.json of 300,000 parts has 100 MB
# What a name answers that leads to no file: folders, links in circles, sockets, names no file can have.
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG}


@dataclass(frozen=True)
class LocalFiles:
    """The files of a store in a directory: see `StoreFiles`."""

    path: Path

    @property
    def location(self) -> str:
        """The path of the store."""
        return str(self.path)

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises
        ------
        DamagedFileError
            It describes the store, and is larger than any such file: a sparse one claims a terabyte and takes a
            kilobyte.
        """
        with _open_regular(self.path / name) as file:
            size = os.fstat(file.fileno()).st_size
            if _is_description(name) and size > LARGEST_DOCUMENT_BYTES:
                raise DamagedFileError(
                    f"store file {name!r}: {size} bytes, expected at most {LARGEST_DOCUMENT_BYTES}, which is more than "
                    "any such file has; restore it from a copy"
                )
            return file.read()

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """Yield names and contents, in the order asked; None where there is no such file, nothing of one too large."""
        for name in names:
            try:
                yield name, self.read(name)
            except FileNotFoundError:
                yield name, None
            except DamagedFileError:
                yield name, b""

    def entry(self, name: str) -> FileEntry:
        """Return size and digest of a file, read in pieces."""
        with _open_regular(self.path / name) as file:
            return FileEntry.of_file(file)

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, or None where there is none of this name."""
        try:
            found = (self.path / name).stat()
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def write(self, name: str, data: bytes) -> None:
        """Write a file, in place of the one of its name."""
        write_file(self._inside(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file only if there is none of its name; return whether it was written."""
        return create_file(self._inside(name), data)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are no error."""
        paths = [self._inside(name) for name in names]
        with explaining(f"removing files below {str(self.path)!r}"):
            for path in paths:
                path.unlink(missing_ok=True)
            for folder in dict.fromkeys(path.parent for path in paths):
                if folder.is_dir():
                    sync_directory(folder)

    def _inside(self, name: str) -> Path:
        """Return where a file is written or removed: below the store also after every link on the way.

        Raises
        ------
        FormatError
            It is elsewhere: in a store from strangers, to have others' files overwritten.
        """
        path = self.path / require_plain_name(name)
        if not path.parent.resolve().is_relative_to(self.path.resolve()):
            raise FormatError(
                f"store file {name!r}: a link leads out of the store; nothing is written or removed there"
            )
        return path

    def remove_folder(self, folder: str) -> None:
        """Remove every file below a folder, and the folder."""
        shutil.rmtree(self._inside(folder), ignore_errors=True)

    def listing(self, folder: str, *, deep: bool = False) -> dict[str, FileStamp]:
        """Return the files in a folder by name, sorted, or with `deep` also those in folders below it."""
        found = {}
        for path in sorted((self.path / folder).glob("**/*" if deep else "*")):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    status = path.stat()
                    tag = f"{status.st_mtime_ns}-{status.st_ino}"
                    found[path.relative_to(self.path).as_posix()] = FileStamp(status.st_size, tag)
        return found

    def sweep(self) -> None:
        """Remove what writers that were killed left half written."""
        remove_partials(self.path)

    def children(self) -> Iterable[str]:
        """Return the names of the files and folders at the top."""
        return [entry.name for entry in self.path.iterdir()] if self.path.is_dir() else []

    def require_folder(self) -> None:
        """Check that the path is a directory, or free."""
        if os.path.lexists(self.path) and not self.path.is_dir():
            what = "a link that leads nowhere" if self.path.is_symlink() else "a file"
            raise TargetExistsError(
                f"output {str(self.path)!r}: is {what}, expected a store or a path that is free"
            )

    def require_creation(self) -> None:
        """Do nothing: hard links are created only if absent wherever there are any."""

    def describe(self) -> str:
        """Say what lies at the path, for a message that no store does."""
        if self.path.is_dir():
            return "a directory that holds no label store"
        return "not a directory" if self.path.exists() else "nothing"


def _is_description(name: str) -> bool:
    """Tell whether a file is read whole before anything is known of its size: JSON, and facts of a part."""
    return name.endswith(".json") or name.startswith(f"{spec.JOURNAL_DIR}/part-")


def _open_regular(path: Path) -> BufferedReader:
    """Open a file to read it; a pipe, a device or a folder in its place is as good as none.

    In a store from strangers there may be any of them, and who reads a pipe waits without end.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    """
    try:
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - whoever asked closes it
    except OSError as error:
        if error.errno in _NO_FILE:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileNotFoundError(errno.ENOENT, "neither a file nor a folder", str(path))
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # for somebody who writes into a pipe


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
    if path.exists():
        return False  # without writing it all first
    with _partial_file(path, data) as partial:
        try:
            path.hardlink_to(partial)
        except FileExistsError:
            return False
        return True


@contextlib.contextmanager
def _partial_file(path: Path, data: bytes) -> Iterator[Path]:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
    with explaining(f"writing {path.name!r} ({len(data)} bytes)"):
        try:
            make_directory(path.parent)
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield partial
        finally:
            with contextlib.suppress(PermissionError, OSError):  # says less than what came before
                partial.unlink(missing_ok=True)
        sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory and those above it, each durable in the one that holds it."""
    if path.is_dir():
        return
    make_directory(path.parent)
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
    with explaining(f"removing files below {str(root)!r}"):
        for leftover in root.rglob(f".*{PARTIAL_SUFFIX}"):
            leftover.unlink(missing_ok=True)

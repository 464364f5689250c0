"""The arrays of a ``.npz`` file: where they lie in it uncompressed, or unpacked once beside all processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO

from relabel_store.convert.sources.array_files import ArrayFile, open_npy, read_header, require_length
from relabel_store.errors import LabelSourceError, NotEnoughSpaceError

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # of a member, before its name and extra field
_BLOCK_BYTES = 1 << 20
_SUFFIX = ".npy"


def member_names(path: Path) -> list[str]:
    """Return the names of the arrays in a ``.npz`` file.

    Raises
    ------
    LabelSourceError
        It cannot be read, or is no such file.
    """
    with _opened(path) as archive:
        return [name.removesuffix(_SUFFIX) for name in archive.namelist() if name.endswith(_SUFFIX)]


def open_members(path: Path, names: Collection[str], unpacked: Path) -> Mapping[str, ArrayFile]:
    """Return arrays of a ``.npz`` file by name, after reading all their bytes against the checksums in it.

    Parameters
    ----------
    names
        Some of `member_names`.
    unpacked
        A folder for the arrays that are compressed there: their rows could only be read from the first one on.

    Raises
    ------
    LabelSourceError
        An array is damaged, encrypted, of Python objects, or not as long as its header says.
    NotEnoughSpaceError
        There is no room for what has to be unpacked.
    """
    with _opened(path) as archive:
        members = {name: archive.getinfo(name + _SUFFIX) for name in names}
        for name, member in members.items():
            called = _called(path, name)
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise LabelSourceError(
                    f"{called}: compressed in a way that numpy does not write; use numpy.savez"
                )
            with archive.open(member) as file:
                require_length(called, read_header(file, called), member.file_size)
        _require_room(path, members.values(), unpacked)
        return {name: _open_member(archive, path, name, member, unpacked) for name, member in members.items()}


class ScratchFolder:
    """A new folder that goes with this object; copies in other processes know its path only."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="relabel-store-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _open_member(
    archive: zipfile.ZipFile, path: Path, name: str, member: zipfile.ZipInfo, unpacked: Path
) -> ArrayFile:
    is_stored = member.compress_type == zipfile.ZIP_STORED
    called = _called(path, name)
    with archive.open(member) as file:
        if not is_stored:
            copy = unpacked / f"{name.replace('/', '_')}{_SUFFIX}"
            with copy.open("wb") as target:
                _copy(file, target, unpacked)
            found = open_npy(copy)
            return ArrayFile(called, copy, found.offset, found.header)
        header = read_header(file, called)
        while file.read(_BLOCK_BYTES):  # to the end, where zipfile compares the checksum
            pass
    return ArrayFile(called, path, _data_offset(path, member, called) + header.size_bytes, header)


def _copy(file: IO[bytes], target: IO[bytes], unpacked: Path) -> None:
    while block := file.read(_BLOCK_BYTES):
        try:
            target.write(block)
        except OSError as error:
            raise NotEnoughSpaceError(f"folder {str(unpacked)!r}: {error.strerror}; {_ADVICE}") from error


_ADVICE = "free some, point TMPDIR elsewhere, or write the file with numpy.savez, which does not compress"


def _require_room(path: Path, members: Collection[zipfile.ZipInfo], unpacked: Path) -> None:
    needed = sum(member.file_size for member in members if member.compress_type != zipfile.ZIP_STORED)
    free = shutil.disk_usage(unpacked).free
    if needed > free:
        raise NotEnoughSpaceError(
            f"folder {str(unpacked.parent)!r}: {free / 1e6:,.0f} MB free, {needed / 1e6:,.0f} MB needed to unpack "
            f"{path.name!r}; {_ADVICE}"
        )


def _data_offset(path: Path, member: zipfile.ZipInfo, called: str) -> int:
    """Return where the bytes of a stored member begin, which only its local header says."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        offset: int = file.tell() + name_bytes + extra_bytes
        size_bytes = os.fstat(file.fileno()).st_size
    if offset + member.file_size > size_bytes:
        raise LabelSourceError(
            f"{called}: ends past the end of the file; it is damaged or was not copied whole"
        )
    return offset


def _called(path: Path, name: str) -> str:
    return f"array {name!r} of {path.name!r}"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, UnicodeDecodeError) as error:
        raise LabelSourceError(
            f"labels {path.name!r}: {error}; expected a file that numpy.savez wrote, which is whole"
        ) from error
    except (NotImplementedError, RuntimeError) as error:  # a compression of others, or encrypted
        raise LabelSourceError(
            f"labels {path.name!r}: {error}; expected a file that numpy.savez wrote"
        ) from error
    except OSError as error:
        if isinstance(error, NotEnoughSpaceError):
            raise
        raise LabelSourceError(f"labels {path.name!r}: {error.strerror or error}") from error

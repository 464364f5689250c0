"""What lies where in a tar file, without unpacking it."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from relabel_store.errors import ImageSourceError
from relabel_store.images.names import IMAGES, Wanted, is_image, plain_path

BLOCK = 512
_MAX_HEADER = 1 << 20  # of one member: names, times and the like take a few hundred bytes
_TAR_ERRORS = (
    tarfile.TarError,
    ValueError,
    ArithmeticError,
    LookupError,
    EOFError,
    RecursionError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar.

    Parameters
    ----------
    path
        Plain, below the top of the tar.
    offset
        Of its bytes, from the beginning of the outermost file.
    header_crc32
        Of the 512 bytes before them, which tell whether they still lie there.
    """

    path: str
    offset: int
    size: int
    header_crc32: int

    @property
    def is_image(self) -> bool:
        """Whether its name is that of an image."""
        return is_image(self.path)

    @property
    def is_tar(self) -> bool:
        """Whether its name is that of a tar."""
        return self.path.lower().endswith(".tar")


def scan_tar(
    file: BinaryIO, where: str, start: int = 0, size: int | None = None, *, wanted: Wanted = IMAGES
) -> Iterator[Member]:
    """Yield the regular files of a tar, in its order.

    Parameters
    ----------
    where
        What to call the tar in a message.
    start, size
        Of the tar in the file, in bytes; None is all that follows.
    wanted
        What has to be a regular file; others are passed over where they are none.

    Raises
    ------
    ImageSourceError
        It is no tar, is damaged or cut off, a file that is wanted is a link, sparse or none, or a path leads out of it.
    """
    headers = _Headers(file, where, start, size)
    try:
        with tarfile.open(fileobj=headers, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            # tarfile keeps every member it has seen; a million of them take 2 GB.
            position = -1
            while (found := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]
                if tar.offset <= position:
                    raise ImageSourceError(f"{where}: header at {position} leads back; the tar is damaged")
                position = tar.offset
                member = _member(found, headers, where, wanted)
                if member is not None:
                    yield member
            headers.require_end(tar.offset)
    except _TAR_ERRORS as error:
        if isinstance(error, ImageSourceError):
            raise
        raise ImageSourceError(
            f"{where}: {str(error) or type(error).__name__}, expected a whole tar file"
        ) from error


def _member(found: tarfile.TarInfo, headers: _Headers, where: str, wanted: Wanted) -> Member | None:
    name = found.name
    if not found.isreg():
        if wanted.includes(name) and not found.isdir():
            raise ImageSourceError(
                f"{where}: {wanted.noun} {name!r} is {_what(found)}, expected a file; make the tar with "
                "--dereference --hard-dereference"
            )
        return None
    if found.issparse():
        if wanted.includes(name):
            raise ImageSourceError(
                f"{where}: {wanted.noun} {name!r} is sparse; make the tar without --sparse"
            )
        return None
    crc32 = zlib.crc32(headers.last_block)
    return Member(plain_path(name, where), headers.start + found.offset_data, found.size, crc32)


def _what(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {member.linkname!r}"
    return "a device" if member.isdev() else "of an unknown type"


class _Headers(io.RawIOBase):
    """The part of a file that is a tar, as tarfile reads it: headers, never contents."""

    def __init__(self, file: BinaryIO, where: str, start: int, size: int | None) -> None:
        super().__init__()
        self._file = file
        self._where = where
        self.start = start
        self._size = file.seek(0, io.SEEK_END) - start if size is None else size
        self._at = 0
        self.last_block = b""

    def read(self, size: int = -1, /) -> bytes:
        if size > _MAX_HEADER:
            raise ImageSourceError(
                f"{self._where}: a header of {size} bytes at {self._at}; the tar is damaged"
            )
        wanted = max(min(size if size >= 0 else _MAX_HEADER, self._size - self._at), 0)
        self._file.seek(self.start + self._at)
        data = self._file.read(wanted)
        self._at += len(data)
        if size == BLOCK:
            self.last_block = data
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        assert whence == io.SEEK_SET, "tarfile seeks from the start"
        if offset < 0:
            raise ImageSourceError(f"{self._where}: a header leads to {offset}; the tar is damaged")
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def require_end(self, offset: int) -> None:
        """Check that a tar ends where no header follows: tarfile takes a damaged one for the end."""
        self.seek(offset)
        block = self.read(BLOCK)
        if len(block) < BLOCK:
            raise ImageSourceError(
                f"{self._where}: no end mark after the last file, at {offset}; the tar was cut off or not finished"
            )
        if any(block):
            raise ImageSourceError(f"{self._where}: the header at {offset} is damaged")
        while block:
            if any(block):
                raise ImageSourceError(
                    f"{self._where}: more follows after its end, at {offset}: tars that were joined? "
                    "Give them one by one, as 'train-{0000..0146}.tar'"
                )
            offset = self._at
            block = self.read(_MAX_HEADER)

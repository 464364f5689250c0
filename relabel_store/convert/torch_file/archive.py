"""The zip file that torch writes since 1.6: its members, each checked against its own checksum."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from relabel_store.errors import FormatError

MAX_MEMBER = 256 << 20  # bytes; a label map takes ten thousand

_END = struct.Struct("<4sHHHHIIH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 1
_ELSEWHERE = 0xFFFFFFFF  # the number stands in a zip64 record


class _Member(NamedTuple):
    method: int
    crc32: int
    packed_size: int
    size: int
    header_at: int


class Archive:
    """The members of a zip file in memory.

    The zipfile module takes three times as long for a file of ten kilobytes, and there are a million of them.

    Raises
    ------
    FormatError
        It is no zip file, was cut off, or uses what torch does not: encryption, several disks, comments.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        at, count = _directory(data)
        self._members: dict[str, _Member] = {}
        self._directory_at = at
        for _ in range(count):
            at = self._add(at)
        if at > len(data) - _END.size:
            raise _damaged("its list of members is longer than the file")

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def names(self) -> list[str]:
        """Return the names of the members, in their order."""
        return list(self._members)

    def read(self, name: str) -> bytes:
        """Return the content of a member.

        Raises
        ------
        FormatError
            There is none, it is damaged, or larger than any label map.
        """
        member = self._members.get(name)
        if member is None:
            raise FormatError(f"torch file: no member {name!r} in its zip archive")
        if member.size > MAX_MEMBER:
            raise FormatError(
                f"torch file: member {name!r} of {member.size} bytes, expected {MAX_MEMBER} at most"
            )
        packed = self._packed(name, member)
        content = packed if member.method == _STORED else _inflate(packed, member.size)
        if len(content) != member.size:
            raise _damaged(f"member {name!r} does not have the {member.size} bytes it says")
        if zlib.crc32(content) != member.crc32:
            raise _damaged(f"the checksum of member {name!r} is another")
        return content

    def _add(self, at: int) -> int:
        """Take up the member listed at an offset; return that of the next."""
        if at + _CENTRAL.size > len(self._data):
            raise _damaged("its list of members is longer than the file")
        magic, _, _, flags, method, _, _, crc32, packed_size, size, *rest = _CENTRAL.unpack_from(
            self._data, at
        )
        name_length, extra_length, comment_length, _, _, _, header_at = rest
        if magic != b"PK\x01\x02":
            raise _damaged("its list of members breaks off")
        start = at + _CENTRAL.size
        try:
            name = self._data[start : start + name_length].decode()
        except UnicodeDecodeError:
            raise _damaged("the name of a member is not UTF-8") from None
        if flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
            raise FormatError(
                f"torch file: member {name!r} is encrypted or packed in a way that torch does not use"
            )
        if _ELSEWHERE in (packed_size, size, header_at):
            raise FormatError(f"torch file: member {name!r} is larger than 4 GiB, expected a label map")
        if name in self._members:
            raise _damaged(f"member {name!r} is there twice")
        self._members[name] = _Member(method, crc32, packed_size, size, header_at)
        return int(start + name_length + extra_length + comment_length)

    def _packed(self, name: str, member: _Member) -> bytes:
        at = member.header_at
        if at + _LOCAL.size > self._directory_at:
            raise _damaged(f"member {name!r} lies outside of the file")
        magic, *_, name_length, extra_length = _LOCAL.unpack_from(self._data, at)
        start = at + _LOCAL.size + name_length + extra_length
        encoded = self._data[at + _LOCAL.size : at + _LOCAL.size + name_length]
        if magic != b"PK\x03\x04" or encoded != name.encode():
            raise _damaged(f"member {name!r} is not where it should be")
        if start + member.packed_size > self._directory_at:
            raise _damaged(f"member {name!r} lies outside of the file")
        return self._data[start : start + member.packed_size]


def _directory(data: bytes) -> tuple[int, int]:
    """Return where the list of members begins, and how many it has."""
    if len(data) < _END.size:
        raise _damaged("it ends before it has begun")
    magic, disk, first_disk, here, count, size, at, comment = _END.unpack_from(data, len(data) - _END.size)
    if magic != b"PK\x05\x06" or comment:
        raise _damaged("it does not end as torch ends one")
    if disk or first_disk or here != count or at + size > len(data) - _END.size:
        raise _damaged("its end contradicts its length")
    return at, count


def _inflate(packed: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
    except zlib.error as error:
        raise _damaged(str(error)) from error


def _damaged(what: str) -> FormatError:
    return FormatError(f"torch file: {what}; the zip archive was cut off or is damaged")

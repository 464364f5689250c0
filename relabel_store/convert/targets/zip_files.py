"""Zip archives whose bytes follow from their content alone, a member at a time."""

from __future__ import annotations

import struct
from dataclasses import dataclass

STORED, DEFLATED = 0, 8

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")

_VERSION, _VERSION64 = 20, 45
_UTF8 = 0x800
_DATE = (1 << 5) | 1  # 1980-01-01, the first that a zip can say
_EXTRA64 = 1
_IN_EXTRA = 0xFFFFFFFF  # in the place of a number that stands in the 64-bit extra field
_LIMIT = 0xFFFFFFFF  # from here on numbers do


@dataclass(frozen=True)
class Member:
    """A file of an archive.

    Attributes
    ----------
    offset
        Of its local header, in bytes.
    padding
        An extra field to go into the local header, which moves the content behind it.
    """

    name: str
    crc: int
    size: int
    packed_size: int
    offset: int
    method: int = STORED
    padding: bytes = b""

    def local_header(self) -> bytes:
        """Return what comes before the content."""
        name, is_large = self.name.encode(), max(self.size, self.packed_size) >= _LIMIT
        extra = self.padding
        if is_large:
            extra = struct.pack("<2H2Q", _EXTRA64, 16, self.size, self.packed_size) + extra
        return (
            _LOCAL.pack(
                b"PK\x03\x04",
                _VERSION64 if is_large else _VERSION,
                _UTF8,
                self.method,
                0,
                _DATE,
                self.crc,
                _IN_EXTRA if is_large else self.packed_size,
                _IN_EXTRA if is_large else self.size,
                len(name),
                len(extra),
            )
            + name
            + extra
        )

    def central_header(self) -> bytes:
        """Return its entry in the directory at the archive's end."""
        name = self.name.encode()
        numbers = (self.size, self.packed_size, self.offset)
        large = [number for number in numbers if number >= _LIMIT]
        extra = struct.pack(f"<2H{len(large)}Q", _EXTRA64, 8 * len(large), *large) if large else b""
        version = _VERSION64 if large else _VERSION
        size, packed_size, offset = map(_short, numbers)
        return (
            _CENTRAL.pack(
                b"PK\x01\x02",
                version,
                version,
                _UTF8,
                self.method,
                0,
                _DATE,
                self.crc,
                packed_size,
                size,
                len(name),
                len(extra),
                0,
                0,
                0,
                0,
                offset,
            )
            + name
            + extra
        )


def directory(members: list[Member], offset: int) -> bytes:
    """Return what ends an archive.

    Parameters
    ----------
    members
        At most 65,534.
    offset
        Where it will stand: behind the content of the last member.
    """
    entries = b"".join(member.central_header() for member in members)
    count, size, large = len(members), len(entries), b""
    if max(offset, size) >= _LIMIT:
        end64 = _END64.pack(
            b"PK\x06\x06", _END64.size - 12, _VERSION64, _VERSION64, 0, 0, count, count, size, offset
        )
        large = end64 + _LOCATOR64.pack(b"PK\x06\x07", 0, offset + size, 1)
    end = _END.pack(b"PK\x05\x06", 0, 0, count, count, _short(size), _short(offset), 0)
    return entries + large + end


def _short(number: int) -> int:
    return number if number < _LIMIT else _IN_EXTRA


def combine_crc(first: int, second: int, size: int) -> int:
    """Return the CRC-32 of two pieces, one behind the other.

    Parameters
    ----------
    first, second
        Their CRC-32s.
    size
        Bytes of the second piece.
    """
    # Appending a zero byte multiplies by x**8 modulo the polynomial; by repeated squaring, size of them.
    shift, power, left = 1 << 31, 1 << 23, size  # 1 and x**8, the highest power in the lowest bit
    while left:
        if left & 1:
            shift = _multiply(shift, power)
        power = _multiply(power, power)
        left >>= 1
    return _multiply(first, shift) ^ second


def _multiply(a: int, b: int) -> int:
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (0xEDB88320 if b & 1 else 0)
    return product

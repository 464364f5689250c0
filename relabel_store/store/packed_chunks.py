"""A chunk of the encoding "packed" 1.x: streams of unsigned integers, each as planes of bytes that zstd compresses."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relabel_store import spec
from relabel_store.errors import FormatError
from relabel_store.labels.packing.classes import PackedClasses, pack_classes, unpack_classes
from relabel_store.labels.packing.values import (
    pack_falls,
    pack_plane,
    to_integers,
    to_values,
    unpack_falls,
    unpack_plane,
)
from relabel_store.manifest import Compression, LabelSpec
from relabel_store.store.arrays import Arrays, ArraySpec

# zstd's best; and its level for long runs of literals, which makes these streams smaller than levels 2 to 12 do
# (docs/explanation/size.md).
_LEVELS = {Compression.SMALL: 19, Compression.FAST: 1}

# What holds a number of so many bytes.
_DTYPES = tuple(map(np.dtype, ("<u1", "<u1", "<u2", "<u4", "<u4")))

Integers = NDArray[np.integer[Any]]


def encode_chunk(label_map: LabelSpec, compression: Compression, arrays: Arrays) -> bytes:
    """Return the chunk of some rows.

    Parameters
    ----------
    arrays
        By name; rows without a label hold fill values.
    """
    streams = StreamWriter(_LEVELS[compression])
    is_labelled = arrays[spec.INDICES][:, 0, 0, 0] != spec.indices_fill_value(label_map.num_classes)
    labelled = {name: rows[is_labelled] for name, rows in arrays.items()}
    classes = pack_classes(labelled[spec.INDICES])
    sizes = np.zeros(len(is_labelled), np.int64)
    sizes[is_labelled] = classes.sizes
    integers = to_integers(labelled[spec.VALUES], _step(label_map))
    falls = pack_falls(integers)
    streams.add(sizes)
    streams.add(classes.gaps)
    for rank in range(label_map.k):
        streams.add(classes.moves[:, rank])
    streams.add(classes.places)
    streams.add(pack_plane(integers[:, 0]))
    for rank in range(label_map.k - 1):
        streams.add(falls[:, rank])
    if spec.REST in labelled:
        streams.add(pack_plane(to_integers(labelled[spec.REST], None)))
    return bytes(streams.data)


def decode_chunk(label_map: LabelSpec, specs: Mapping[str, ArraySpec], data: bytes, into: Arrays) -> None:
    """Decode the rows of a chunk; those without a label become fill values.

    Parameters
    ----------
    specs
        Of the arrays, by name.
    into
        C-contiguous arrays of as many rows as the chunk has, by name, to be overwritten.

    Raises
    ------
    FormatError
        It is no chunk of so many rows of such maps.
    OSError
        A stream cannot be decompressed.
    """
    streams = StreamReader(data)
    n_rows, n_cols = label_map.grid
    sizes = streams.read(len(into[spec.INDICES]), 4).astype(np.int64)
    most = min(label_map.k * n_rows * n_cols, label_map.num_classes)
    if sizes.max(initial=0) > most:
        raise FormatError(f"sizes: a map of {sizes.max()} classes, expected at most {most}")
    is_labelled = sizes > 0
    shape = (int(is_labelled.sum()), n_rows, n_cols)
    classes = _read_classes(streams, sizes[is_labelled], label_map.k, shape)
    best = unpack_plane(_read_plane(streams, shape))
    integers = unpack_falls(best, [_read_plane(streams, shape) for _ in range(label_map.k - 1)])
    is_whole = bool(is_labelled.all())
    found = into if is_whole else {name: array.empty(shape[0]) for name, array in specs.items()}
    unpack_classes(classes, label_map.num_classes, found[spec.INDICES])
    to_values(integers, _step(label_map), found[spec.VALUES])
    if spec.REST in found:
        to_values(unpack_plane(_read_plane(streams, shape)), None, found[spec.REST])
    streams.require_end()
    if not is_whole:
        for name, rows in into.items():
            rows[:] = specs[name].fill_value
            rows[is_labelled] = found[name]


def _step(label_map: LabelSpec) -> float | None:
    return None if isinstance(label_map.value_step, str) else label_map.value_step


def _read_classes(
    streams: StreamReader, sizes: Integers, k: int, shape: tuple[int, int, int]
) -> PackedClasses:
    n, n_rows, n_cols = shape
    gaps = streams.read(int(sizes.sum()), 4)
    moves = np.empty((n, k, n_rows, n_cols), np.uint8)
    for rank in range(k):
        moves[:, rank] = streams.read(n * n_rows * n_cols, 1).reshape(shape)
    places = streams.read(int(np.count_nonzero(moves == 0)), 4)
    return PackedClasses(sizes, gaps, moves, places)


def _read_plane(streams: StreamReader, shape: tuple[int, int, int]) -> NDArray[np.uint16]:
    return streams.read(math.prod(shape), 2).reshape(shape).astype(np.uint16, copy=False)


class StreamWriter:
    """Writes streams of unsigned integers, each as as few planes of bytes as its numbers need."""

    def __init__(self, level: int) -> None:
        self.data = bytearray()
        self._codec = pa.Codec("zstd", compression_level=level)

    def add(self, numbers: Integers) -> None:
        """Write a stream of numbers below 2^32, of any shape, in C order."""
        width = -(-int(numbers.max(initial=0)).bit_length() // 8)
        flat = np.ascontiguousarray(numbers, _DTYPES[width]).reshape(-1)
        planes = flat.view(np.uint8).reshape(len(flat), -1)[:, :width]
        frames = [self._codec.compress(np.ascontiguousarray(plane), asbytes=True) for plane in planes.T]
        self.data += struct.pack(f"<B{width}I", width, *map(len, frames))
        self.data += b"".join(frames)


class StreamReader:
    """Reads what `StreamWriter` wrote, and allocates no more than the caller asks for."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0
        self._codec = pa.Codec("zstd")

    def read(self, count: int, most: int) -> Integers:
        """Return the next stream.

        Parameters
        ----------
        count
            How many numbers it has.
        most
            How many bytes such a number may have.

        Raises
        ------
        FormatError
            It is cut off, or of wider numbers.
        OSError
            It cannot be decompressed, or is not of so many numbers.
        """
        (width,) = struct.unpack("<B", self._take(1))
        if width > most:
            raise FormatError(f"stream: numbers of {width} bytes, expected at most {most}")
        lengths = struct.unpack(f"<{width}I", self._take(4 * width))
        frames = [self._codec.decompress(self._take(length), count) for length in lengths]
        planes = [np.frombuffer(frame, np.uint8) for frame in frames]
        if width == 1:
            return planes[0]
        numbers = np.zeros((count, _DTYPES[width].itemsize), np.uint8)
        for place, plane in enumerate(planes):
            numbers[:, place] = plane
        found: Integers = numbers.view(_DTYPES[width]).reshape(count)
        return found

    def require_end(self) -> None:
        """Check that nothing follows the last stream."""
        if self._at != len(self._data):
            raise FormatError(f"chunk: {len(self._data) - self._at} bytes after its last stream")

    def _take(self, count: int) -> memoryview:
        found = self._data[self._at : self._at + count]
        if len(found) < count:
            raise FormatError(f"chunk: ends after {len(self._data)} bytes, in the middle of a stream")
        self._at += count
        return found

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from relabel_store.errors import FormatError
from relabel_store.manifest import AbsentRule, Compression, LabelSpec, Manifest
from relabel_store.store.arrays import Arrays, array_specs
from relabel_store.store.packed_chunks import StreamReader, StreamWriter, decode_chunk, encode_chunk
from relabel_store.testing import make_label_maps, make_manifest

FAST, SMALL = Compression.FAST, Compression.SMALL


def make_arrays(manifest: Manifest, seed: int, unlabelled: tuple[int, ...] = ()) -> Arrays:
    """Label maps for every row of a store, fill values where there is no label."""
    with np.errstate(divide="ignore"):
        maps = make_label_maps(np.random.default_rng(seed), manifest)
    arrays: Arrays = {}
    for name, array in array_specs(manifest).items():
        arrays[name] = getattr(maps, name)
        arrays[name][list(unlabelled)] = array.fill_value
    return arrays


def decode(manifest: Manifest, data: bytes) -> Arrays:
    specs = array_specs(manifest)
    into = {name: array.empty(manifest.num_samples) for name, array in specs.items()}
    decode_chunk(manifest.label_map, specs, data, into)
    return into


# A decoder in plain loops, after the sentences of docs/reference/format-v1.md and nothing else


class PlainStreams:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        taken, self.data = self.data[:count], self.data[count:]
        assert len(taken) == count
        return taken

    def read(self, count: int) -> list[int]:
        width = self.take(1)[0]
        lengths = [int.from_bytes(self.take(4), "little") for _ in range(width)]
        planes = [pa.Codec("zstd").decompress(self.take(length), count, asbytes=True) for length in lengths]
        return [sum(plane[at] << 8 * place for place, plane in enumerate(planes)) for at in range(count)]


def plainly_decoded(label_map: LabelSpec, rows: int, data: bytes) -> dict[str, dict[tuple[int, ...], float]]:
    """Return the numbers of each array by (row of the chunk, rank, row, col); nothing of rows without a label."""
    streams, k, (n_rows, n_cols) = PlainStreams(data), label_map.k, label_map.grid
    cells = n_rows * n_cols
    sizes = streams.read(rows)
    labelled = [row for row in range(rows) if sizes[row]]
    gaps, reach = iter(streams.read(sum(sizes))), min(k, 127)
    own: dict[int, list[int]] = {}
    for row in labelled:
        own[row] = [next(gaps)]
        while len(own[row]) < sizes[row]:
            own[row].append(own[row][-1] + 1 + next(gaps))
    moves = [streams.read(len(labelled) * cells) for _ in range(k)]
    places = iter(streams.read(sum(rank.count(0) for rank in moves)))
    indices: dict[tuple[int, ...], float] = {}
    todo: dict[tuple[int, ...], tuple[int, ...]] = {}
    for at, row in enumerate(labelled):
        for rank in range(k):
            for cell in range(cells):
                here = (row, rank, *divmod(cell, n_cols))
                move = moves[rank][at * cells + cell]
                if move == 0:
                    indices[here] = own[row][next(places)]
                elif move <= reach:
                    todo[here] = (row, move - 1, here[2], here[3] - 1)
                else:
                    todo[here] = (row, move - 1 - reach, here[2] - 1, here[3])
    while todo:
        for here in [here for here, source in todo.items() if source in indices]:
            indices[here] = indices[todo.pop(here)]

    def read_plane() -> dict[tuple[int, ...], int]:
        packed, plane = streams.read(len(labelled) * cells), {}
        for at, row in enumerate(labelled):
            for cell in range(cells):
                y, x = divmod(cell, n_cols)
                number = packed[at * cells + cell]
                difference = number // 2 if number % 2 == 0 else -(number + 1) // 2
                left, above = plane.get((row, y, x - 1), 0), plane.get((row, y - 1, x), 0)
                plane[row, y, x] = (difference + left + above - plane.get((row, y - 1, x - 1), 0)) % 2**16
        return plane

    def value_of(number: int, step: float | str) -> float:
        signed = number - 2**16 if number >= 2**15 else number
        if step != "exact":
            return signed * float(step)
        bits = signed if signed >= 0 else (signed ^ 0x7FFF) % 2**16
        return float(np.array(bits, np.uint16).view(np.float16))

    plane, values = read_plane(), {}
    for rank in range(k):
        falls = streams.read(len(labelled) * cells) if rank else [0] * (len(labelled) * cells)
        for at, row in enumerate(labelled):
            for cell in range(cells):
                here = (row, *divmod(cell, n_cols))
                plane[here] = (plane[here] - falls[at * cells + cell]) % 2**16
                values[row, rank, *here[1:]] = value_of(plane[here], label_map.value_step)
    found = {"indices": indices, "values": values}
    if label_map.absent is AbsentRule.REST:
        found["rest"] = {here: value_of(number, "exact") for here, number in read_plane().items()}
    assert streams.data == b""
    return found


@st.composite
def chunks(draw: st.DrawFn) -> tuple[Manifest, Arrays]:
    num_classes, n = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    manifest = make_manifest(
        n=n,
        grid=(draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        k=draw(st.integers(1, num_classes)),
        num_classes=num_classes,
        value_step=draw(st.sampled_from([1.0, 0.125, 0.0625, "exact"])),
        absent=draw(st.sampled_from(AbsentRule)),
    )
    unlabelled = draw(st.sets(st.integers(0, n - 1)))
    return manifest, make_arrays(manifest, draw(st.integers(0, 2**32 - 1)), tuple(unlabelled))


@settings(max_examples=100)
@given(chunk=chunks(), compression=st.sampled_from(Compression))
def test_a_chunk_comes_back_and_is_what_the_format_says(
    chunk: tuple[Manifest, Arrays], compression: Compression
) -> None:
    manifest, arrays = chunk
    data = encode_chunk(manifest.label_map, compression, arrays)
    found = decode(manifest, data)
    plain = plainly_decoded(manifest.label_map, manifest.num_samples, data)
    is_labelled = arrays["indices"][:, 0, 0, 0] != 65_535
    for name, array in array_specs(manifest).items():
        np.testing.assert_array_equal(found[name], arrays[name], strict=True)
        expected = array.full(manifest.num_samples)
        for at, number in plain[name].items():
            expected[at] = number
        np.testing.assert_array_equal(expected, arrays[name])
        assert len(plain[name]) == is_labelled.sum() * array.row_size


@pytest.mark.parametrize("value_step", [0.125, "exact"])
def test_maps_of_many_classes_come_back(value_step: float | str) -> None:
    manifest = make_manifest(n=3, grid=(2, 3), k=4, num_classes=70_000, value_step=value_step)
    arrays = make_arrays(manifest, 0, unlabelled=(1,))
    found = decode(manifest, encode_chunk(manifest.label_map, SMALL, arrays))
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_equal_maps_are_equal_bytes() -> None:
    manifest = make_manifest()
    data = encode_chunk(manifest.label_map, SMALL, make_arrays(manifest, 0))
    assert data == encode_chunk(manifest.label_map, SMALL, make_arrays(manifest, 0))


# Streams


@pytest.mark.parametrize(
    ("numbers", "width"),
    [([], 0), ([0, 0], 0), ([255, 0], 1), ([256], 2), ([65_536, 1], 3), ([2**32 - 1], 4)],
)
def test_a_stream_has_as_many_planes_as_its_largest_number_has_bytes(numbers: list[int], width: int) -> None:
    writer = StreamWriter(3)
    writer.add(np.array(numbers, np.int64))
    assert writer.data[0] == width
    reader = StreamReader(bytes(writer.data))
    assert reader.read(len(numbers), 4).tolist() == numbers
    reader.require_end()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_streams_are_little_endian_in_any_shape(dtype: type) -> None:
    writer = StreamWriter(3)
    writer.add(np.arange(12, dtype=dtype).reshape(3, 4).T)
    assert StreamReader(bytes(writer.data)).read(12, 1).tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]


def stream(*frames: bytes, lengths: tuple[int, ...] | None = None) -> bytes:
    lengths = tuple(map(len, frames)) if lengths is None else lengths
    return struct.pack(f"<B{len(lengths)}I", len(lengths), *lengths) + b"".join(frames)


def zstd(data: bytes) -> bytes:
    compressed: bytes = pa.Codec("zstd").compress(data, asbytes=True)
    return compressed


@pytest.mark.parametrize(
    ("data", "match"),
    [
        pytest.param(b"", "ends after 0 bytes", id="empty"),
        pytest.param(b"\1\0", "ends after 2 bytes", id="cut in a length"),
        pytest.param(stream(zstd(b"abcd"), lengths=(2**32 - 1,)), "ends after", id="length past the end"),
        pytest.param(stream(zstd(b"abcd"))[:-1], "ends after", id="cut in a frame"),
        pytest.param(
            stream(*5 * [zstd(b"abcd")]), "numbers of 5 bytes, expected at most 2", id="five planes"
        ),
        pytest.param(stream(*3 * [zstd(b"abcd")]), "numbers of 3 bytes, expected at most 2", id="too wide"),
        pytest.param(b"\xff" + 2000 * b"\0", "numbers of 255 bytes", id="255 planes"),
        pytest.param(stream(zstd(b"abc")), "ZSTD", id="too few numbers"),
        pytest.param(stream(zstd(b"abcde")), "ZSTD", id="too many numbers"),
        pytest.param(stream(b"abcd"), "ZSTD", id="no frame"),
        pytest.param(stream(b""), "ZSTD", id="no bytes"),
        pytest.param(stream(zstd(b"abcd") + b"x"), "ZSTD", id="bytes after a frame"),
    ],
)
def test_a_stream_that_is_not_of_so_many_numbers_is_refused(data: bytes, match: str) -> None:
    with pytest.raises((FormatError, OSError), match=match):
        StreamReader(data).read(4, 2)


def test_a_frame_that_would_fill_the_memory_is_not_unpacked() -> None:
    bomb = stream(zstd(bytes(2**26)))
    assert len(bomb) < 2**14
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    with pytest.raises(OSError, match="ZSTD"):
        StreamReader(bomb).read(4, 2)
    assert pa.total_allocated_bytes() - before < 2**20
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


# Chunks that are none


def written(manifest: Manifest, change: Callable[[list[NDArray[Any]]], object]) -> bytes:
    """Return a chunk of changed streams: sizes, gaps, moves of two ranks, places, best, falls."""
    n, cells = manifest.num_samples, manifest.label_map.grid[0] * manifest.label_map.grid[1]
    reader = StreamReader(encode_chunk(manifest.label_map, FAST, make_arrays(manifest, 0)))
    streams = [reader.read(n, 4)]
    streams.append(reader.read(int(streams[0].astype(np.int64).sum()), 4))
    streams += [reader.read(n * cells, 1) for _ in range(2)]
    streams.append(reader.read(sum(int((moves == 0).sum()) for moves in streams[2:]), 4))
    streams += [reader.read(n * cells, 2) for _ in range(2)]
    reader.require_end()
    streams = [numbers.astype(np.int64) for numbers in streams]
    change(streams)
    writer = StreamWriter(1)
    for numbers in streams:
        writer.add(numbers)
    return bytes(writer.data)


def set_first(stream: int, number: int) -> Callable[[list[NDArray[Any]]], object]:
    return lambda streams: streams[stream].__setitem__(0, number)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        pytest.param(
            set_first(0, 6), "a map of 6 classes, expected at most 5", id="more classes than there are"
        ),
        pytest.param(set_first(0, 2**32 - 1), "a map of 4294967295 classes", id="no end of classes"),
        pytest.param(set_first(0, 0), r"ZSTD|bytes|ends", id="a label less"),
        pytest.param(set_first(1, 2**32 - 1), "expected below 5", id="a class far off"),
        pytest.param(set_first(2, 1), "ZSTD|leads out of the map", id="a move out of the map"),
        pytest.param(set_first(2, 256), "numbers of 2 bytes, expected at most 1", id="a move of two bytes"),
        pytest.param(set_first(4, 5), "places: one is past the last", id="a place past the last"),
        pytest.param(set_first(5, 2**16), "numbers of 3 bytes, expected at most 2", id="a wide value"),
        pytest.param(lambda streams: streams.append(np.zeros(1)), "1 bytes after its last", id="one more"),
        pytest.param(lambda streams: streams.pop(), "in the middle of a stream", id="one less"),
    ],
)
def test_a_chunk_of_other_numbers_is_refused(
    change: Callable[[list[NDArray[Any]]], object], match: str
) -> None:
    manifest = make_manifest()
    with pytest.raises((FormatError, OSError), match=match):
        decode(manifest, written(manifest, change))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"grid": (2, 3)}, id="fewer cells"),
        pytest.param({"grid": (3, 4)}, id="more cells"),
        pytest.param({"k": 1}, id="fewer ranks"),
        pytest.param({"k": 3}, id="more ranks"),
        pytest.param({"absent": AbsentRule.REST}, id="with a rest"),
    ],
)
def test_a_chunk_of_other_maps_is_refused(other: dict[str, Any]) -> None:
    manifest = make_manifest()
    data = encode_chunk(manifest.label_map, FAST, make_arrays(manifest, 0))
    with pytest.raises((FormatError, OSError)):
        decode(replace(manifest, label_map=replace(manifest.label_map, **other)), data)


def test_a_chunk_that_is_cut_off_anywhere_is_refused() -> None:
    manifest = make_manifest()
    data = encode_chunk(manifest.label_map, FAST, make_arrays(manifest, 0))
    for length in range(len(data)):
        with pytest.raises((FormatError, OSError)):
            decode(manifest, data[:length])


def test_a_flipped_bit_gives_an_error_or_labels_that_the_manifest_allows() -> None:
    manifest = make_manifest()
    data = encode_chunk(manifest.label_map, FAST, make_arrays(manifest, 0))
    refused = 0
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            found = decode(manifest, bytes(changed))
        except (FormatError, OSError):
            refused += 1
            continue
        indices = found["indices"]
        assert ((indices < 5) | (indices == 65_535)).all()
    assert refused > 4 * len(data)

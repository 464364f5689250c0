"""Encoding "zarr" 1.x: label maps as sharded Zarr v3 arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import zarr
from numcodecs import blosc
from zarr.abc.buffer import Buffer
from zarr.abc.codec import BytesBytesCodec
from zarr.buffer import cpu
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, TransposeCodec, ZstdCodec
from zarr.storage import LocalStore, MemoryStore

from relabel_store import spec
from relabel_store.canonical import canonical_json, read_json
from relabel_store.errors import DamagedFileError, FormatError
from relabel_store.manifest import Compression, Layout, Manifest, State
from relabel_store.store.arrays import Array, Arrays, ArraySpec, array_specs
from relabel_store.store.files import FileEntry, StoreFiles, entry_of, read_verified

# Measured on real maps at 15x15x5 (docs/explanation/size.md): the search of zstd 18 and up pays for
# itself on class indices and rounded values. Byte shuffle helps only values that are not rounded,
# and Blosc is where Zarr has it; its level 9 is zstd's highest.
_ZSTD_LEVEL = 19
_BLOSC_LEVEL = 9
# Of what is not waiting for a teacher. zstd searches short blocks in another way than long ones, which here is both
# faster and smaller: Blosc cuts them. Its level 3 is zstd's 5, and 2 is 3.
_FAST_INDICES = BloscCodec(cname="zstd", clevel=3, shuffle="noshuffle", blocksize=128 * 1024)
_FAST_SCORES = BloscCodec(cname="zstd", clevel=2, shuffle="shuffle", blocksize=512 * 1024)
_CHECKSUM_BYTES = 8  # after a frame, fewer than any other frame takes; one checksum is four
_KNOWN_CODECS = frozenset({"blosc", "bytes", "crc32c", "transpose", "zstd"})


def cell_order(array: ArraySpec) -> tuple[int, ...]:
    """Return the order of the axes inside a chunk: the ranks of a cell side by side."""
    return (0, 2, 3, 1) if len(array.shape) == 4 else (0, 1, 2)


def compressor(array: ArraySpec, compression: Compression) -> BytesBytesCodec:
    """Return the compressor of a chunk."""
    if compression is Compression.FAST:
        fast = _FAST_INDICES if array.name == spec.INDICES else _FAST_SCORES
        return replace(fast, typesize=array.dtype.itemsize)
    if array.is_rounded:
        return ZstdCodec(level=_ZSTD_LEVEL)
    return BloscCodec(typesize=array.dtype.itemsize, cname="zstd", clevel=_BLOSC_LEVEL, shuffle="shuffle")


def create_array(
    array: ArraySpec, manifest: Manifest, store: MemoryStore | LocalStore, rows: int
) -> zarr.Array[Any]:
    """Create an array of a store, or a piece of it, in a Zarr store."""
    layout = manifest.layout
    return zarr.create_array(
        store,
        name=array.name,
        shape=(rows, *array.row_shape),
        dtype=array.dtype,
        chunks=(layout.chunk_rows, *array.row_shape),
        shards=(layout.shard_rows, *array.row_shape),
        filters=[TransposeCodec(order=cell_order(array))] if len(array.shape) == 4 else [],
        serializer=BytesCodec(endian="little"),
        compressors=[compressor(array, manifest.encoding.compression), Crc32cCodec()],
        fill_value=array.fill_value,
        dimension_names=array.dimensions,
        zarr_format=3,
        # A shard that holds nothing but bad images is all fill value, and still has to be a file.
        config={"write_empty_chunks": True},
    )


def shard_path(array: ArraySpec, part: int) -> str:
    """Return the path of a shard below the store."""
    return "/".join([array.name, "c", str(part), *("0" for _ in array.row_shape)])


def array_documents(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return the ``zarr.json`` of each array, as Zarr itself writes it."""
    documents = {}
    for name, array in array_specs(manifest).items():
        memory: dict[str, Any] = {}
        create_array(array, manifest, MemoryStore(memory), manifest.num_samples)
        documents[name] = json.loads(memory[f"{name}/zarr.json"].to_bytes())
    return documents


def group_document(manifest: Manifest, *, is_consolidated: bool) -> dict[str, Any]:
    """Return the group's ``zarr.json``, which holds the manifest.

    Zarr's own ``consolidate_metadata`` is not used: it warns about every file of a store that is not
    Zarr's.
    """
    document: dict[str, Any] = {
        "attributes": {spec.MANIFEST_ATTRIBUTE: manifest.to_dict()},
        "zarr_format": 3,
        "node_type": "group",
    }
    if is_consolidated:
        document["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": array_documents(manifest),
        }
    return document


def manifest_of_group(data: bytes) -> Manifest:
    """Return the manifest in a group's ``zarr.json``.

    Raises
    ------
    FormatError
        The file is not the group of a label store.
    """
    try:
        document = read_json(data)
        found = document["attributes"][spec.MANIFEST_ATTRIBUTE]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"store file {spec.GROUP_FILE!r}: no attribute {spec.MANIFEST_ATTRIBUTE!r}; this is no label store"
        ) from error
    if not isinstance(found, Mapping):
        raise FormatError(
            f"store file {spec.GROUP_FILE!r}: the manifest is {type(found).__name__}, expected an object"
        )
    return Manifest.from_dict(found)


def encode_shard(array: ArraySpec, manifest: Manifest, rows: Array) -> bytes:
    """Return the shard of some rows as the bytes of its file.

    Parameters
    ----------
    rows
        The rows of one part, ``(at most shard_rows, ...)``; the rest of the shard is not written.
    """
    memory: dict[str, Any] = {}
    piece = create_array(array, manifest, MemoryStore(memory), len(rows))
    piece[:] = rows
    data: bytes = memory[shard_path(array, 0)].to_bytes()
    return data


def decode_shard(array: ArraySpec, manifest: Manifest, data: bytes, rows: Array) -> None:
    """Decode a shard whose file is known to be sound, encoded as `encode_shard` does it, into `rows`.

    The same as reading it through Zarr, at 1.4 times its speed: the file was compared with its digest, so the
    checksums inside it are not looked at, and Arrow's zstd is faster than numcodecs'.

    Raises
    ------
    ValueError
        The file is not laid out so.
    """
    layout = manifest.layout
    is_blosc = isinstance(compressor(array, manifest.encoding.compression), BloscCodec)
    n_chunks = layout.shard_rows // layout.chunk_rows
    # The index of a shard: offset and length of each chunk, and four bytes of checksum.
    index = np.frombuffer(data, "<u8", 2 * n_chunks, len(data) - 16 * n_chunks - 4).reshape(n_chunks, 2)
    cells_outermost = tuple(array.shape[axis] for axis in cell_order(array)[1:])
    back = np.argsort(cell_order(array))
    for chunk, start in enumerate(range(0, len(rows), layout.chunk_rows)):
        offset, length = (int(number) for number in index[chunk])
        if offset + length > len(data):
            raise ValueError(f"chunk {chunk} of its shard lies past the end of the file, or is missing")
        shape = (layout.chunk_rows, *cells_outermost)
        chunk_data = memoryview(data)[offset : offset + length - 4]
        size_bytes = math.prod(shape) * array.dtype.itemsize
        _require_declared("blosc" if is_blosc else "zstd", chunk_data, size_bytes)
        if is_blosc:
            raw = blosc.decompress(bytes(chunk_data))
        else:
            raw = pa.Codec("zstd").decompress(chunk_data, size_bytes, asbytes=True)
        stored = np.frombuffer(raw, array.dtype).reshape(shape).transpose(back)
        rows[start : start + layout.chunk_rows] = stored[: len(rows) - start]


def damaged_chunks(layout: Layout, data: bytes, rows: int) -> list[int | None]:
    """Return the chunks of a shard that do not end with the CRC32C of what is before it.

    Parameters
    ----------
    data
        The bytes of its file.
    rows
        Of the part; chunks past them do not exist.

    Returns
    -------
    list
        None alone where the index of the chunks itself is damaged, or none.
    """
    index_size = 16 * (layout.shard_rows // layout.chunk_rows) + 4
    if len(data) < index_size or not _has_checksum(data[-index_size:]):
        return [None]
    view = memoryview(data)
    index = np.frombuffer(data, "<u8", (index_size - 4) // 8, len(data) - index_size).reshape(-1, 2)
    used = index[: -(-rows // layout.chunk_rows)].tolist()
    return [
        chunk
        for chunk, (offset, size) in enumerate(used)
        if size < 4 or offset + size > len(data) or not _has_checksum(view[offset : offset + size])
    ]


def _has_checksum(data: bytes | memoryview) -> bool:
    return bool(google_crc32c.value(bytes(data[:-4])) == int.from_bytes(data[-4:], "little"))


def _require_declared(compressor: str, chunk: memoryview, size_bytes: int) -> None:
    """Refuse what would unfold into more than a chunk."""
    found = declared_size(compressor, chunk)
    if found != size_bytes:
        raise ValueError(f"a chunk says that it unfolds into {found} bytes, expected {size_bytes}")
    if compressor == "zstd" and len(chunk) - _frame_length(chunk) > _CHECKSUM_BYTES:
        raise ValueError("a chunk has more after its frame of zstd, which numcodecs would unfold as well")


def require_known_codecs(data: bytes, file: str) -> None:
    """Check that an array is encoded as the format allows: Zarr would load any codec of any installed package.

    Raises
    ------
    FormatError
        It is not.
    """
    try:
        sharding = read_json(data)["codecs"]
        (inside,) = [codec["configuration"] for codec in sharding if codec["name"] == "sharding_indexed"]
        found = [codec["name"] for codec in inside["codecs"]]
        index = [codec["name"] for codec in inside["index_codecs"]]
        is_known = len(sharding) == 1 and _KNOWN_CODECS.issuperset(found) and index == ["bytes", "crc32c"]
    except (ValueError, KeyError, TypeError):
        is_known = False
    if not is_known:
        raise FormatError(
            f"store file {file!r}: encoded in another way than shards of {', '.join(sorted(_KNOWN_CODECS))}"
        )


def declared_size(compressor: str, chunk: bytes | memoryview) -> int | None:
    """Return how many bytes a compressed chunk says it will be, None where it does not say."""
    head = bytes(chunk[:18])
    if compressor == "blosc":
        return int.from_bytes(head[4:8], "little") if len(head) >= 16 else None
    if compressor != "zstd":
        return len(chunk)
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return None
    start, width = _frame_header(head[4])
    if not width or len(head) < start + width:
        return None
    return int.from_bytes(head[start : start + width], "little") + (256 if width == 2 else 0)


def _frame_header(flags: int) -> tuple[int, int]:
    """Return where the size stands in the header of a zstd frame, and its width (RFC 8878, 3.1.1.1)."""
    is_single, width = bool(flags & 0x20), (0, 2, 4, 8)[flags >> 6]
    width = 1 if is_single and not width else width
    return 5 + (0 if is_single else 1) + (0, 1, 2, 4)[flags & 3], width


def _frame_length(frame: memoryview) -> int:
    """Return how many bytes a zstd frame takes, by the headers of its blocks (RFC 8878, 3.1.1.2)."""
    at = sum(_frame_header(frame[4]))
    is_last = False
    while not is_last:
        header = int.from_bytes(frame[at : at + 3], "little")
        is_last, is_run = bool(header & 1), header >> 1 & 3 == 1
        at += 3 + (1 if is_run else header >> 3)
        if at > len(frame):
            raise ValueError("a chunk ends in the middle of its frame of zstd")
    return at + (4 if frame[4] & 4 else 0)


class ZarrEncoding:
    """Label maps as sharded Zarr arrays beside a sample table; see `encodings.StoreEncoding`."""

    name = spec.ENCODING_ZARR
    manifest_file = spec.GROUP_FILE
    samples_file = spec.SAMPLES_FILE
    is_self_contained = False

    def manifest_document(self, manifest: Manifest) -> bytes:
        """Return the file that holds the manifest."""
        is_complete = manifest.state is State.COMPLETE
        return canonical_json(group_document(manifest, is_consolidated=is_complete))

    def parse_manifest(self, data: bytes) -> Manifest:
        """Return the manifest in the file that holds it."""
        return manifest_of_group(data)

    def fixed_files(self, manifest: Manifest) -> dict[str, bytes]:
        """Return the files that describe the arrays."""
        documents = array_documents(manifest)
        return {f"{name}/{spec.GROUP_FILE}": canonical_json(document) for name, document in documents.items()}

    def files_of_part(self, manifest: Manifest, part: int) -> dict[str, str | None]:
        """Return the shard of each array."""
        return {shard_path(array, part): name for name, array in array_specs(manifest).items()}

    def encode_part(
        self, manifest: Manifest, part: int, arrays: Arrays, samples: pa.Table
    ) -> dict[str, bytes]:
        """Return the files of a part."""
        del samples  # they are in a table of their own
        specs = array_specs(manifest)
        return {
            shard_path(specs[name], part): encode_shard(specs[name], manifest, rows)
            for name, rows in arrays.items()
        }

    def part_overhead(self, manifest: Manifest) -> int:
        """Return nothing worth counting."""
        del manifest
        return 0

    def folders(self, manifest: Manifest) -> list[str]:
        """Return the folders below which the files of parts lie."""
        return list(array_specs(manifest))

    def is_ours(self, name: str) -> bool:
        """Tell whether a file or folder of this name may lie at the top of a store."""
        return name in {spec.INDICES, spec.VALUES, spec.REST, spec.SAMPLES_FILE, spec.GROUP_FILE}

    def open_shards(
        self, files: StoreFiles, manifest: Manifest, entries: Mapping[str, FileEntry] | None
    ) -> ZarrArrays:
        """Return what decodes the files of parts."""
        return ZarrArrays(files, manifest, entries)


class ZarrArrays:
    """The arrays of a store, read a chunk or a shard at a time.

    Parameters
    ----------
    entries
        What is recorded of the files of a finished store; None of one that is being built.
    """

    def __init__(
        self, files: StoreFiles, manifest: Manifest, entries: Mapping[str, FileEntry] | None = None
    ) -> None:
        self.specs = array_specs(manifest)
        self._files = files
        self._manifest = manifest
        self._entries = entries
        self._documents: dict[str, bytes] = {}
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._plain: set[tuple[str, int]] = set()  # shards whose chunks unfold into what they should

    def read_rows(self, part: int, rows: range, fetch: Callable[[str], Path | bytes]) -> Arrays:
        """Return neighbouring rows of a part; see `encodings.Shards`."""
        found: Arrays = {}
        for name, array in self.specs.items():
            source = fetch(shard_path(array, part))
            if not isinstance(source, bytes) and (name, part) not in self._plain:
                self._document(name)
                self._require_plain_chunks(name, shard_path(array, part), source.read_bytes())
                self._plain.add((name, part))
            found[name] = (
                self.read_from(name, rows, source) if isinstance(source, bytes) else self.read(name, rows)
            )
        return found

    def read_part(self, part: int, read: Callable[[str], bytes], into: Arrays) -> None:
        """Decode every row of a part; see `encodings.Shards`."""
        for name, rows in into.items():
            self.read_shard(name, part, read(shard_path(self.specs[name], part)), rows)

    def read_samples(self, part: int, fetch: Callable[[str], Path | bytes]) -> None:
        """Return None: the sample table is a file of its own."""

    def read(self, name: str, rows: range) -> Array:
        """Return neighbouring rows of an array in a directory, as a C-contiguous copy.

        Raises
        ------
        DamagedFileError
            A chunk cannot be decoded.
        FormatError
            The array is not the one that the manifest describes.
        """
        if name not in self._arrays:
            self._document(name)
            assert self._files.path is not None
            self._arrays[name] = self._open(name, LocalStore(self._files.path, read_only=True))
        return self._read(name, self._arrays[name], rows)

    def read_from(self, name: str, rows: range, data: bytes) -> Array:
        """Return neighbouring rows of a shard whose bytes are at hand, as a C-contiguous copy.

        Raises
        ------
        DamagedFileError, FormatError
            As for `read`.
        """
        shard = shard_path(self.specs[name], rows.start // self._manifest.layout.shard_rows)
        document = self._document(name)
        self._require_plain_chunks(name, shard, data)
        memory = {shard: data, f"{name}/{spec.GROUP_FILE}": document}
        buffers: dict[str, Buffer] = {file: cpu.Buffer.from_bytes(data) for file, data in memory.items()}
        return self._read(name, self._open(name, MemoryStore(buffers, read_only=True)), rows)

    def read_shard(self, name: str, part: int, data: bytes, into: Array) -> None:
        """Decode every row of a shard.

        Parameters
        ----------
        data
            The bytes of its file, which are known to be sound.
        into
            As many rows as the part has, to be overwritten.

        Raises
        ------
        DamagedFileError, FormatError
            As for `read`.
        """
        array = self.specs[name]
        if not self._is_encoded_as_ours(name):
            into[:] = self.read_from(name, self._manifest.rows_of_part(part), data)
            return
        try:
            decode_shard(array, self._manifest, data, into)
        except (ValueError, RuntimeError, OSError) as error:
            raise DamagedFileError(
                f"store file {shard_path(array, part)!r}: cannot be decoded ({error}); "
                "restore it or build its part again"
            ) from error

    def _read(self, name: str, array: zarr.Array[Any], rows: range) -> Array:
        try:
            return np.ascontiguousarray(array[rows.start : rows.stop])
        except Exception as error:  # of any kind, for codecs that were made to fit nothing
            shard = shard_path(self.specs[name], rows.start // self._manifest.layout.shard_rows)
            raise DamagedFileError(
                f"store file {shard!r}: rows {rows.start} to {rows.stop} cannot be decoded ({error}); "
                "restore it or build its part again"
            ) from error

    def _require_plain_chunks(self, name: str, shard: str, data: bytes) -> None:
        """Check what each chunk of a shard says that it unfolds into, before Zarr believes it."""
        array, layout = self.specs[name], self._manifest.layout
        codecs = read_json(self._document(name))["codecs"][0]["configuration"]["codecs"]
        compressors = [codec["name"] for codec in codecs if codec["name"] in ("zstd", "blosc")]
        n_chunks = layout.shard_rows // layout.chunk_rows
        size_bytes = layout.chunk_rows * array.row_size * array.dtype.itemsize
        try:
            if len(compressors) > 1:
                raise ValueError("compressed more than once")
            index = np.frombuffer(data, "<u8", 2 * n_chunks, len(data) - 16 * n_chunks - 4).reshape(
                n_chunks, 2
            )
            for offset, length in index.tolist():
                # Zarr refuses others, and leaves out what is not there.
                if compressors and offset + length <= len(data):
                    _require_declared(compressors[0], memoryview(data)[offset : offset + length], size_bytes)
        except ValueError as error:
            raise DamagedFileError(
                f"store file {shard!r}: cannot be decoded ({error}); restore it or build its part again"
            ) from error

    def _is_encoded_as_ours(self, name: str) -> bool:
        """Tell whether an array has the codecs that this release writes; the format allows others."""
        document = read_json(self._document(name))
        return bool(document["codecs"] == self._own_documents[name]["codecs"])

    @cached_property
    def _own_documents(self) -> dict[str, dict[str, Any]]:
        """The ``zarr.json`` of each array as this release writes it, which takes Zarr as long as decoding a part."""
        return array_documents(self._manifest)

    def _open(self, name: str, store: LocalStore | MemoryStore) -> zarr.Array[Any]:
        try:
            array = zarr.open_array(store, path=name, mode="r", zarr_format=3)
        except Exception as error:  # of any kind, for a document that was made to be none
            raise FormatError(
                f"store file {f'{name}/{spec.GROUP_FILE}'!r}: no array that Zarr opens ({error}); restore it"
            ) from error
        self._require_expected(self.specs[name], array)
        return array

    def _document(self, name: str) -> bytes:
        """Return the ``zarr.json`` of an array, checked once."""
        if name not in self._documents:
            self._documents[name] = self._read_document(f"{name}/{spec.GROUP_FILE}", name)
        return self._documents[name]

    def _read_document(self, file: str, name: str) -> bytes:
        if self._entries is not None:
            data = read_verified(self._files, file, entry_of(self._entries, file))
            require_known_codecs(data, file)
            return data
        # Nothing is recorded of it yet, and one number in it swaps the rows and columns of every map.
        try:
            data = self._files.read(file)
            found = read_json(data)
        except (ValueError, FileNotFoundError) as error:
            raise DamagedFileError(
                f"store file {file!r}: {error}; restore it or build the store again"
            ) from error
        if found != self._own_documents[name]:
            raise DamagedFileError(
                f"store file {file!r}: not the array that the manifest describes; restore it or build the store again"
            )
        return data

    def _require_expected(self, expected: ArraySpec, found: zarr.Array[Any]) -> None:
        chunks = (self._manifest.layout.chunk_rows, *expected.row_shape)
        shards = (self._manifest.layout.shard_rows, *expected.row_shape)
        if (found.shape, found.dtype, found.chunks, found.shards) != (
            expected.shape,
            expected.dtype,
            chunks,
            shards,
        ):
            raise FormatError(
                f"array {expected.name!r}: {found.dtype} {found.shape} in chunks of {found.chunks} and shards of "
                f"{found.shards}, expected {expected.dtype} {expected.shape}, {chunks} and {shards}"
            )

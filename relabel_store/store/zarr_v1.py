"""Encoding "zarr" 1.x: label maps as sharded Zarr v3 arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numcodecs import blosc
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.abc.codec import BytesBytesCodec
from zarr.buffer import cpu
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, TransposeCodec, ZstdCodec
from zarr.storage import LocalStore, MemoryStore

from relabel_store import spec
from relabel_store.canonical import read_json
from relabel_store.errors import DamagedFileError, FormatError
from relabel_store.manifest import AbsentRule, Manifest
from relabel_store.store.files import FileEntry, StoreFiles, entry_of, read_verified

# Measured on real maps at 15x15x5 (docs/explanation/size.md): the search of zstd 18 and up pays for
# itself on class indices and rounded values. Byte shuffle helps only values that are not rounded,
# and Blosc is where Zarr has it; its level 9 is zstd's highest.
_ZSTD_LEVEL = 19
_BLOSC_LEVEL = 9

Array = NDArray[np.generic]


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store: everything that its ``zarr.json`` says."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_rows: int
    shard_rows: int
    fill_value: float
    dimensions: tuple[str, ...]
    is_rounded: bool

    @property
    def cell_order(self) -> tuple[int, ...]:
        """Order of the axes inside a chunk: the ranks of a cell side by side."""
        return (0, 2, 3, 1) if len(self.shape) == 4 else (0, 1, 2)

    @property
    def compressor(self) -> BytesBytesCodec:
        """The compressor of a chunk."""
        if self.is_rounded:
            return ZstdCodec(level=_ZSTD_LEVEL)
        return BloscCodec(typesize=self.dtype.itemsize, cname="zstd", clevel=_BLOSC_LEVEL, shuffle="shuffle")

    def create(self, store: MemoryStore | LocalStore, rows: int) -> zarr.Array[Any]:
        """Create the array, or a piece of it, in a Zarr store."""
        return zarr.create_array(
            store,
            name=self.name,
            shape=(rows, *self.shape[1:]),
            dtype=self.dtype,
            chunks=(self.chunk_rows, *self.shape[1:]),
            shards=(self.shard_rows, *self.shape[1:]),
            filters=[TransposeCodec(order=self.cell_order)] if len(self.shape) == 4 else [],
            serializer=BytesCodec(endian="little"),
            compressors=[self.compressor, Crc32cCodec()],
            fill_value=self.fill_value,
            dimension_names=self.dimensions,
            zarr_format=3,
            # A shard that holds nothing but bad images is all fill value, and still has to be a file.
            config={"write_empty_chunks": True},
        )

    def shard_path(self, part: int) -> str:
        """Return the path of a shard below the store."""
        return "/".join([self.name, "c", str(part), *("0" for _ in self.shape[1:])])


def array_specs(manifest: Manifest) -> dict[str, ArraySpec]:
    """Return the arrays of a store by name."""
    label_map, layout = manifest.label_map, manifest.layout
    n, k, grid = manifest.num_samples, label_map.k, label_map.grid
    sizes = {"chunk_rows": layout.chunk_rows, "shard_rows": layout.shard_rows}
    half = np.dtype(np.float16)
    specs = [
        ArraySpec(
            name=spec.INDICES,
            shape=(n, k, *grid),
            dtype=spec.indices_dtype(label_map.num_classes),
            fill_value=spec.indices_fill_value(label_map.num_classes),
            dimensions=spec.DIMENSIONS,
            is_rounded=True,
            **sizes,
        ),
        ArraySpec(
            name=spec.VALUES,
            shape=(n, k, *grid),
            dtype=half,
            fill_value=np.nan,
            dimensions=spec.DIMENSIONS,
            is_rounded=label_map.value_step != "exact",
            **sizes,
        ),
    ]
    if label_map.absent is AbsentRule.REST:
        specs.append(
            ArraySpec(
                name=spec.REST,
                shape=(n, *grid),
                dtype=half,
                fill_value=np.nan,
                dimensions=spec.REST_DIMENSIONS,
                is_rounded=False,
                **sizes,
            )
        )
    return {array.name: array for array in specs}


def array_documents(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return the ``zarr.json`` of each array, as Zarr itself writes it."""
    documents = {}
    for name, array in array_specs(manifest).items():
        memory: dict[str, Any] = {}
        array.create(MemoryStore(memory), manifest.num_samples)
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


def encode_shard(array: ArraySpec, rows: Array) -> bytes:
    """Return the shard of some rows as the bytes of its file.

    Parameters
    ----------
    rows
        The rows of one part, ``(at most shard_rows, ...)``; the rest of the shard is not written.
    """
    memory: dict[str, Any] = {}
    piece = array.create(MemoryStore(memory), len(rows))
    piece[:] = rows
    data: bytes = memory[array.shard_path(0)].to_bytes()
    return data


def decode_shard(array: ArraySpec, data: bytes, rows: Array) -> None:
    """Decode a shard whose file is known to be sound, encoded as `encode_shard` does it, into `rows`.

    The same as reading it through Zarr, at 1.4 times its speed: the file was compared with its digest, so the
    checksums inside it are not looked at, and Arrow's zstd is faster than numcodecs'.

    Raises
    ------
    ValueError
        The file is not laid out so.
    """
    n_chunks = array.shard_rows // array.chunk_rows
    # The index of a shard: offset and length of each chunk, and four bytes of checksum.
    index = np.frombuffer(data, "<u8", 2 * n_chunks, len(data) - 16 * n_chunks - 4).reshape(n_chunks, 2)
    cells_outermost = tuple(array.shape[axis] for axis in array.cell_order[1:])
    back = np.argsort(array.cell_order)
    for chunk, start in enumerate(range(0, len(rows), array.chunk_rows)):
        offset, length = (int(number) for number in index[chunk])
        if offset + length > len(data):
            raise ValueError(f"chunk {chunk} of its shard lies past the end of the file, or is missing")
        shape = (array.chunk_rows, *cells_outermost)
        raw = _decompress(array, memoryview(data)[offset : offset + length - 4], math.prod(shape))
        stored = np.frombuffer(raw, array.dtype).reshape(shape).transpose(back)
        rows[start : start + array.chunk_rows] = stored[: len(rows) - start]


def _decompress(array: ArraySpec, data: memoryview, n_values: int) -> bytes:
    if array.is_rounded:
        raw: bytes = pa.Codec("zstd").decompress(data, n_values * array.dtype.itemsize, asbytes=True)
    else:
        raw = blosc.decompress(bytes(data))
    return raw


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
        shard = self.specs[name].shard_path(rows.start // self.specs[name].shard_rows)
        memory = {shard: data, f"{name}/{spec.GROUP_FILE}": self._document(name)}
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
            decode_shard(array, data, into)
        except (ValueError, RuntimeError, OSError) as error:
            raise DamagedFileError(
                f"store file {array.shard_path(part)!r}: cannot be decoded ({error}); "
                "restore it or build its part again"
            ) from error

    def _read(self, name: str, array: zarr.Array[Any], rows: range) -> Array:
        try:
            return np.ascontiguousarray(array[rows.start : rows.stop])
        except (ValueError, RuntimeError, OSError) as error:
            shard = self.specs[name].shard_path(rows.start // self.specs[name].shard_rows)
            raise DamagedFileError(
                f"store file {shard!r}: rows {rows.start} to {rows.stop} cannot be decoded ({error}); "
                "restore it or build its part again"
            ) from error

    def _is_encoded_as_ours(self, name: str) -> bool:
        """Tell whether an array has the codecs that this release writes; the format allows others."""
        document = read_json(self._document(name))
        return bool(document["codecs"] == array_documents(self._manifest)[name]["codecs"])

    def _open(self, name: str, store: LocalStore | MemoryStore) -> zarr.Array[Any]:
        array = zarr.open_array(store, path=name, mode="r", zarr_format=3)
        self._require_expected(self.specs[name], array)
        return array

    def _document(self, name: str) -> bytes:
        """Return the ``zarr.json`` of an array, checked once."""
        if name not in self._documents:
            self._documents[name] = self._read_document(f"{name}/{spec.GROUP_FILE}", name)
        return self._documents[name]

    def _read_document(self, file: str, name: str) -> bytes:
        if self._entries is not None:
            return read_verified(self._files, file, entry_of(self._entries, file))
        # Nothing is recorded of it yet, and one number in it swaps the rows and columns of every map.
        try:
            data = self._files.read(file)
            found = read_json(data)
        except (ValueError, FileNotFoundError) as error:
            raise DamagedFileError(
                f"store file {file!r}: {error}; restore it or build the store again"
            ) from error
        if found != array_documents(self._manifest)[name]:
            raise DamagedFileError(
                f"store file {file!r}: not the array that the manifest describes; restore it or build the store again"
            )
        return data

    @staticmethod
    def _require_expected(expected: ArraySpec, found: zarr.Array[Any]) -> None:
        chunks = (expected.chunk_rows, *expected.shape[1:])
        shards = (expected.shard_rows, *expected.shape[1:])
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

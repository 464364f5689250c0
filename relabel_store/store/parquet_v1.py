"""Encoding "parquet" 1.x: a row a sample, sample table and label maps together, a file a part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from relabel_store import spec
from relabel_store.canonical import canonical_json
from relabel_store.errors import DamagedFileError, FormatError
from relabel_store.manifest import Compression, Manifest
from relabel_store.store.arrays import Arrays, ArraySpec, array_specs
from relabel_store.store.files import FileEntry, StoreFiles
from relabel_store.store.parquet_pages import read_bounded, unfold
from relabel_store.store.samples import SCHEMA
from relabel_store.store.self_contained import SelfContainedEncoding, name_of_part

# zstd's best, and what compresses 15,000 rows/s a core (docs/explanation/size.md).
_LEVELS = {Compression.SMALL: 19, Compression.FAST: 3}
_SUFFIX = ".parquet"
_PAGE_ROOM = 65_536  # for headers of runs, of many small pages too


def part_file(manifest: Manifest, part: int) -> str:
    """Return the name of a part's file, ``NAME-00042-of-00313.parquet``."""
    return name_of_part(manifest, part, _SUFFIX)


def part_schema(manifest: Manifest) -> pa.Schema:
    """Return the columns of a part's file."""
    columns = [
        pa.field(name, _column_type(array), nullable=False) for name, array in array_specs(manifest).items()
    ]
    return pa.schema([*SCHEMA, *columns])


def _stored_dtype(array: ArraySpec) -> np.dtype[Any]:
    # Scores are float32 that hold float16 numbers: byte-stream-split makes them smaller than float16 is, and DuckDB
    # does not read it of float16.
    return np.dtype(np.float32) if array.dtype == np.float16 else array.dtype


def _column_type(array: ArraySpec) -> pa.DataType:
    item = pa.field("element", pa.from_numpy_dtype(_stored_dtype(array)), nullable=False)
    return pa.list_(item, array.row_size)


def encode_table(manifest: Manifest, arrays: Arrays, samples: pa.Table) -> bytes:
    """Return the file of a part."""
    schema, specs = part_schema(manifest), array_specs(manifest)
    columns: list[pa.Array | pa.ChunkedArray] = [samples[name] for name in SCHEMA.names]
    for name, array in specs.items():
        numbers = np.ascontiguousarray(arrays[name], _stored_dtype(array)).reshape(-1)
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(numbers), type=schema.field(name).type))
    scores = [f"{name}.list.element" for name, array in specs.items() if array.dtype == np.float16]
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=_LEVELS[manifest.encoding.compression],
        use_dictionary=["class_name", "status"],
        use_byte_stream_split=scores,
        write_page_checksum=True,
    ) as writer:
        writer.write_table(pa.table(columns, schema=schema), row_group_size=manifest.layout.chunk_rows)
        # Not in the schema, which Arrow would write a second time, the names of all classes with it.
        writer.add_key_value_metadata({spec.MANIFEST_ATTRIBUTE: canonical_json(manifest.to_dict()).decode()})
    return bytes(sink.getvalue())


class ParquetParts:
    """The files of parts, read a row group or a file at a time.

    Parameters
    ----------
    is_strict
        Compare the checksum of each page, and refuse scores that float16 does not hold: for whoever checks a store.
        Others compare the digests of files instead.
    """

    def __init__(self, manifest: Manifest, *, is_strict: bool = False) -> None:
        self._manifest = manifest
        self._is_strict = is_strict
        self._specs = array_specs(manifest)
        self._schema = part_schema(manifest)
        self._bounded: set[int] = set()  # parts whose labels are known to unfold into what they should

    def read_rows(self, part: int, rows: range, fetch: Callable[[str], Path | bytes]) -> Arrays:
        """Return neighbouring rows of a part; see `encodings.Shards`."""
        group = (rows.start - self._manifest.rows_of_part(part).start) // self._manifest.layout.chunk_rows
        with self._open(part, fetch) as file:
            table = file.read_row_group(group, list(self._specs), use_threads=False)
            return {name: self._decode(table[name], array, len(rows)) for name, array in self._specs.items()}

    def read_part(self, part: int, read: Callable[[str], bytes], into: Arrays) -> None:
        """Decode every row of a part; see `encodings.Shards`."""
        n, chunk_rows = len(self._manifest.rows_of_part(part)), self._manifest.layout.chunk_rows
        with self._open(part, read) as file:
            for group, start in enumerate(range(0, n, chunk_rows)):
                table = file.read_row_group(group, list(into), use_threads=False)
                stop = min(start + chunk_rows, n)
                for name, rows in into.items():
                    rows[start:stop] = self._decode(table[name], self._specs[name], stop - start)

    def read_samples(self, part: int, fetch: Callable[[str], Path | bytes]) -> pa.Table:
        """Return the sample table of a part; see `encodings.Shards`."""
        source = fetch(part_file(self._manifest, part))
        with self._open(part, lambda _: source) as file:
            return read_bounded(file, source, SCHEMA.names).cast(SCHEMA)

    @contextmanager
    def _open(self, part: int, fetch: Callable[[str], Path | bytes]) -> Iterator[pq.ParquetFile]:
        name = part_file(self._manifest, part)
        source = fetch(name)
        opened = pa.BufferReader(source) if isinstance(source, bytes) else source
        try:
            # On this thread: Arrow's own have been seen to abort a process that ends right after a read.
            with pq.ParquetFile(opened, pre_buffer=False, page_checksum_verification=self._is_strict) as file:
                self._require_expected(name, part, file)
                if part not in self._bounded:
                    self._require_bounded(source)
                    self._bounded.add(part)
                yield file
        except (pa.ArrowException, KeyError, ValueError, OSError) as error:
            if isinstance(error, FormatError):
                raise
            raise DamagedFileError(
                f"store file {name!r}: cannot be decoded ({error}); restore it or build its part again"
            ) from error

    def _require_expected(self, name: str, part: int, file: pq.ParquetFile) -> None:
        n, chunk_rows = len(self._manifest.rows_of_part(part)), self._manifest.layout.chunk_rows
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        expected = [min(chunk_rows, n - start) for start in range(0, n, chunk_rows)]
        if sizes != expected or not file.schema_arrow.equals(self._schema):
            raise FormatError(
                f"store file {name!r}: {file.metadata.num_rows} rows in {len(sizes)} row groups of columns "
                f"{', '.join(file.schema_arrow.names)}, expected {n} in {len(expected)} of "
                f"{', '.join(self._schema.names)} as the manifest says"
            )

    def _require_bounded(self, source: Path | bytes) -> None:
        """Check that the labels unfold into what the manifest says: Arrow would go by each page's own header."""
        columns = {f"{name}.list.element": array for name, array in self._specs.items()}
        for number, group in enumerate(unfold(source, columns)[1]):
            for path, array in columns.items():
                found, items = group.columns.get(path), group.rows * array.row_size
                # Levels take less than the numbers do, and a page more than its numbers where they do not compress.
                most = 2 * items * _stored_dtype(array).itemsize + _PAGE_ROOM
                if found is None or found.items + found.entries > 2 * items or found.page_bytes > most:
                    what = "nothing" if found is None else f"{found.items} numbers, {found.page_bytes} bytes"
                    raise ValueError(
                        f"column {path!r} of row group {number} unfolds into {what}, expected {items} numbers in "
                        f"{most} bytes at most"
                    )

    def _decode(self, column: pa.ChunkedArray, array: ArraySpec, n: int) -> np.ndarray[Any, Any]:
        lists = column.combine_chunks()
        numbers = lists.values.slice(lists.offset * array.row_size, n * array.row_size)
        if lists.null_count or numbers.null_count or len(numbers) != n * array.row_size:
            raise ValueError(f"column {array.name!r} has nulls, or too few numbers")
        dtype = _stored_dtype(array)
        found = np.frombuffer(numbers.buffers()[1], dtype, len(numbers), numbers.offset * dtype.itemsize)
        with np.errstate(over="ignore"):  # it is said below
            kept = found.astype(array.dtype)
        if self._is_strict and dtype != array.dtype and not np.array_equal(kept, found, equal_nan=True):
            raise ValueError(f"column {array.name!r} has numbers that are none of {array.dtype}")
        return kept.reshape(n, *array.row_shape)


class ParquetEncoding(SelfContainedEncoding):
    """Label maps as Parquet files that hold their samples; see `encodings.StoreEncoding`."""

    name = spec.ENCODING_PARQUET

    def __init__(self) -> None:
        super().__init__(_SUFFIX)

    def encode_part(
        self, manifest: Manifest, part: int, arrays: Arrays, samples: pa.Table
    ) -> dict[str, bytes]:
        """Return the file of a part."""
        return {part_file(manifest, part): encode_table(manifest, arrays, samples)}

    def part_overhead(self, manifest: Manifest) -> int:
        """Return the size of a file without rows, which holds the manifest."""
        empty = {name: array.empty(0) for name, array in array_specs(manifest).items()}
        return len(encode_table(manifest, empty, SCHEMA.empty_table()))

    def manifest_in(self, data: bytes) -> bytes:
        """Return the manifest in the file of a part, as JSON."""
        try:
            with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
                return bytes((file.metadata.metadata or {})[spec.MANIFEST_ATTRIBUTE.encode()])
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise FormatError(f"part: no manifest in it ({error})") from error

    def open_shards(
        self, files: StoreFiles, manifest: Manifest, entries: Mapping[str, FileEntry] | None
    ) -> ParquetParts:
        """Return what decodes the files of parts."""
        del files, entries
        return ParquetParts(manifest)

"""The sample table: one row a sample, and the row of a sample id."""

from __future__ import annotations

import bisect
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from relabel_store.errors import DamagedFileError, FormatError, SampleNotFoundError
from relabel_store.store.parquet_pages import read_bounded


class Status(StrEnum):
    """Whether a sample has a label."""

    LABELLED = "labelled"
    BAD_IMAGE = "bad-image"
    MISSING = "missing"


SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("class_index", pa.int32()),
        pa.field("class_name", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("sha256", pa.string()),
        pa.field("status", pa.string(), nullable=False),
    ]
)

# What labelling a part finds out about its images. The size serves to notice changed files when a build
# goes on; it does not outlive it.
FACTS_SCHEMA = pa.schema(
    [
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("sha256", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
    ]
)

_FACT_COLUMNS = ("width", "height", "sha256", "status")
_ROW_GROUP_ROWS = 131_072
_ROWS_PER_BYTE = 4


def planned_samples(
    sample_ids: Sequence[str],
    paths: Sequence[str],
    class_names: Sequence[str | None],
    class_index_of: Mapping[str, int],
) -> pa.Table:
    """Return the table of samples none of which has been looked at yet."""
    names = pa.array(class_names, pa.string())
    composed = [None if name is None else unicodedata.normalize("NFC", name) for name in class_names]
    known = pa.array(class_index_of.keys(), pa.string())
    indices = pa.array(class_index_of.values(), pa.int32())
    n = len(sample_ids)
    return pa.table(
        {
            "row": np.arange(n),
            "sample_id": pa.array(sample_ids, pa.string()),
            "path": pa.array(paths, pa.string()),
            "class_index": indices.take(pc.index_in(pa.array(composed, pa.string()), known, skip_nulls=True)),
            "class_name": names,
            "width": pa.nulls(n, pa.int32()),
            "height": pa.nulls(n, pa.int32()),
            "sha256": pa.nulls(n, pa.string()),
            "status": pa.array([Status.MISSING.value]).take(pa.array(np.zeros(n, np.int8))),
        },
        schema=SCHEMA,
    )


def with_facts(samples: pa.Table, facts: Mapping[int, pa.Table | None], shard_rows: int) -> pa.Table:
    """Return the sample table with the facts of some parts put in.

    Parameters
    ----------
    facts
        Facts of each finished part; None where they already are in `samples`. The rows of a part
        that is not among them become ``missing``.
    """
    pieces = []
    for part, start in enumerate(range(0, len(samples), shard_rows)):
        piece = samples.slice(start, shard_rows)
        found = facts[part] if part in facts else _no_facts(len(piece))
        if found is not None:
            for column in _FACT_COLUMNS:
                piece = piece.set_column(
                    piece.schema.get_field_index(column), SCHEMA.field(column), found[column]
                )
        pieces.append(piece)
    return pa.concat_tables(pieces).combine_chunks()


def _no_facts(n: int) -> pa.Table:
    return pa.table(
        {
            "width": pa.nulls(n, pa.int32()),
            "height": pa.nulls(n, pa.int32()),
            "sha256": pa.nulls(n, pa.string()),
            "status": pa.array([Status.MISSING.value] * n, pa.string()),
        }
    )


def to_parquet(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    dictionaries = [name for name in ("class_name", "status") if name in table.schema.names]
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=dictionaries,
        row_group_size=_ROW_GROUP_ROWS,
    )
    return bytes(sink.getvalue())


def from_parquet(source: bytes | Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table of a Parquet file after checking its columns.

    Parameters
    ----------
    source
        The bytes of the file, or its path: then only the columns asked for are read into memory.

    Raises
    ------
    FormatError
        It is no Parquet file, or a column is missing or of another type.
    """
    try:
        opened = pa.BufferReader(source) if isinstance(source, bytes) else source
        size_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
        # On this thread: Arrow's own have been seen to abort a process that ends right after a read.
        with pq.ParquetFile(opened, pre_buffer=False) as file:
            _require_plausible(file.metadata.num_rows, size_bytes)
            table = read_bounded(file, source, columns)
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        return table.select(wanted.names).cast(wanted)
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise FormatError(f"sample table: {error}; expected columns {schema.names}") from error


def read_facts(data: bytes, name: str) -> pa.Table:
    """Return the facts of a part as they are, with the metadata that a cast to a schema would drop.

    Parameters
    ----------
    name
        Of the file that the bytes are of.

    Raises
    ------
    DamagedFileError
        They are no Parquet file, or one that unfolds into far more than it is.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
            return read_bounded(file, data)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DamagedFileError(
            f"store file {name!r}: {error}; expected facts of a part; remove its record to build it again"
        ) from error


def _require_plausible(rows: int, size_bytes: int) -> None:
    """Refuse the rows of a small file that unfold into all of memory: ids differ, and so take some bytes each."""
    if rows > _ROW_GROUP_ROWS + _ROWS_PER_BYTE * size_bytes:
        raise ValueError(
            f"{rows} rows in {size_bytes} bytes, more than a table of different samples can have"
        )


def require_rows(table: pa.Table, rows: range, name: str) -> None:
    """Check that a sample table is of some rows, in their order.

    Parameters
    ----------
    name
        Of the file that it is in.

    Raises
    ------
    FormatError
        It is of others.
    """
    found = column_values(table["row"])
    if len(found) != len(rows) or not np.array_equal(found, np.arange(rows.start, rows.stop)):
        raise FormatError(
            f"store file {name!r}: {len(found)} samples of rows {_spell_rows(found)}, expected {len(rows)} of rows "
            f"{rows.start} to {rows.stop - 1} in order; restore it from a copy"
        )


def _spell_rows(rows: NDArray[np.int64]) -> str:
    if len(rows) > 1 and np.all(np.diff(rows) == 1):
        return f"{rows[0]} to {rows[-1]}"
    return f"{', '.join(map(str, rows[:5]))}{', …' if len(rows) > 5 else ''}" or "none"


# Where pandas is installed, pyarrow.array, pyarrow.scalar, to_numpy and take with an array of NumPy's import it: 42 MB
# and 0.8 s in each process that reads a batch. Nothing on the way of a batch calls them; it calls these.


def column_values(column: pa.Array | pa.ChunkedArray, *, null: int = -1) -> NDArray[np.int64]:
    """Return the integers of a column, int64, with `null` in the place of nulls."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    filled = whole.cast(pa.int64()).fill_null(_integers(np.array([null]))[0])
    return np.from_dlpack(filled).astype(np.int64, copy=False)  # for type checkers; it is int64


def _integers(numbers: NDArray[np.int64]) -> pa.Array:
    numbers = np.ascontiguousarray(numbers, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])


def text_array(strings: Sequence[str]) -> pa.Array:
    """Return strings as a column of large strings."""
    encoded = [string.encode() for string in strings]
    ends = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(one) for one in encoded], out=ends[1:])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.large_string(), len(encoded), buffers)


class SampleIds(Sequence[str]):
    """Sample ids of some rows, as strings only while they are looked at.

    A list of them takes 105 MB for the 1.28 million of ImageNet, in each process that gets a copy; this, ten.

    Parameters
    ----------
    sample_ids
        The column of a sample table.
    rows
        int64 ``(n,)``: of which rows, in this order.
    """

    def __init__(self, sample_ids: pa.ChunkedArray, rows: NDArray[np.int64]) -> None:
        self._ids = sample_ids
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> SampleIds: ...

    def __getitem__(self, at: int | slice) -> str | SampleIds:
        if isinstance(at, slice):
            return SampleIds(self._ids, self._rows[at])
        return str(self._ids[int(self._rows[at])].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _ROW_GROUP_ROWS):
            rows = self._rows[start : start + _ROW_GROUP_ROWS]
            yield from self._ids.take(_integers(rows)).to_pylist()

    def __repr__(self) -> str:
        return f"<SampleIds {', '.join(map(repr, self[:2]))}{', …' if len(self) > 2 else ''}: {len(self):,}>"


class SampleIndex:
    """The row of each sample id.

    Binary search over the ids where they lie in Arrow's buffers: no dictionary of a million Python
    strings. Rows that are not in order of their ids get a sorted permutation of their own.
    """

    def __init__(self, sample_ids: pa.ChunkedArray) -> None:
        # Combining copies even a single chunk, which may be a mapped file.
        self._ids = sample_ids.chunk(0) if sample_ids.num_chunks == 1 else sample_ids.combine_chunks()

    @cached_property
    def _order(self) -> NDArray[np.int64] | None:
        """The rows by rising id; None where they are in this order already."""
        if pc.all(pc.less(self._ids[:-1], self._ids[1:])).as_py():
            return None
        return column_values(pc.sort_indices(self._ids))

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, position: int) -> str:
        """Return the id at a position in sorted order."""
        return str(self._ids[self._row_at(position)].as_py())

    def sample_ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids of some rows, in the order asked."""
        ids: list[str] = self._ids.take(_integers(rows)).to_pylist()
        return ids

    def _row_at(self, position: int) -> int:
        return position if self._order is None else int(self._order[position])

    def row_of(self, sample_id: str) -> int:
        """Return the row of a sample.

        Raises
        ------
        SampleNotFoundError
            There is none of this id; the message names what is near.
        """
        position = bisect.bisect_left(self, sample_id)
        if position < len(self) and self[position] == sample_id:
            return self._row_at(position)
        near = self._near(sample_id, position)
        hint = f"near it: {', '.join(map(repr, near))}" if near else "the store is empty"
        raise SampleNotFoundError(f"sample {sample_id!r}: not among the {len(self)} of the store; {hint}")

    def rows_of(self, sample_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each sample, int64 ``(n,)``; -1 where there is none of its id."""
        rows = pc.index_in(text_array(sample_ids), value_set=self._ids.cast(pa.large_string()))
        return column_values(rows)

    def _near(self, sample_id: str, position: int) -> list[str]:
        normalized = unicodedata.normalize("NFC", sample_id)
        candidates = [
            normalized,
            str(PurePosixPath(normalized).with_suffix("")) if normalized.strip("./") else "",
        ]
        for candidate in candidates:
            at = bisect.bisect_left(self, candidate)
            if at < len(self) and self[at] == candidate:
                return [candidate]
        return [self[at] for at in range(max(position - 1, 0), min(position + 2, len(self)))]

"""How much a Parquet file unfolds into, from the headers of its pages: before Arrow allocates it.

Arrow believes the footer, and the header of each page. A few bytes of zstd unfold into gigabytes, a string of a
dictionary into one copy a row, a run of levels into as many rows as it says. So what a file can unfold into is summed
up first, from the headers that Arrow will go by, and refused where the file is too small for it; and text that a page
holds once for many rows is read so few rows at a time that it can be counted.

Both kinds of header are structs in Thrift's compact protocol (parquet.thrift of the Parquet format, 2.11); Arrow does
not show the second, and ends the process for some of the first when asked for a column (seen with pyarrow 26).
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

Source = bytes | Path | BinaryIO

# What any file may unfold into, and how much more for each of its bytes: ids that rise differ by two or three bytes
# once they are compressed, and so do paths of some hundred.
FREE_BYTES = 64 * 2**20
BYTES_PER_BYTE = 256
# Of a row or item: a number, where a text begins, whether there is one, levels, a place in a dictionary.
_ITEM_BYTES = 16
_PAGE_ROOM = 256  # bytes that a page's header mostly takes
_MOST_HEADER = 2**20
_SLACK = 100  # bytes that Arrow reads on past chunks of old writers (PARQUET-816)
_MOST_DICTIONARY = 2**20  # what writers let one grow to
_MOST_FIXED = 256
_BYTE_ARRAY, _FIXED_LEN_BYTE_ARRAY = 6, 7
_PLAIN_DICTIONARY, _DELTA_BYTE_ARRAY, _RLE_DICTIONARY = 2, 7, 8
_DATA, _INDEX, _DICTIONARY, _DATA_V2 = range(4)
_DEPTH = 16
_CODECS = {0: "", 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}


@dataclass(frozen=True)
class _Chunk:
    """One column of a row group, as the footer describes it; `items` are numbers or texts."""

    column: str
    kind: int
    codec: int
    items: int
    start: int
    size_bytes: int


@dataclass(frozen=True)
class Unfolding:
    """What a column of a row group can unfold into.

    Parameters
    ----------
    items
        Numbers or texts in its pages.
    entries
        Of its dictionary.
    page_bytes, largest_page
        Of all pages, and of one, decompressed.
    most_text
        A bound of the length of a text of which a page can hold one copy for many rows; 0 where there is none.
    """

    items: int
    entries: int
    page_bytes: int
    largest_page: int
    most_text: int


@dataclass(frozen=True)
class Group:
    """A row group and what its columns can unfold into, by their paths in the schema (``"values.list.element"``)."""

    rows: int
    columns: dict[str, Unfolding]

    @property
    def plain_bytes(self) -> int:
        """What Arrow takes for it, copies of texts left aside."""
        return sum(
            column.page_bytes + _ITEM_BYTES * (max(column.items, self.rows) + column.entries)
            for column in self.columns.values()
        )

    @property
    def copied_bytes(self) -> int:
        """What copies of texts take at most."""
        return self.rows * sum(column.most_text for column in self.columns.values())

    @property
    def safe_rows(self) -> int:
        """How many rows can be read at once, however long their texts are."""
        longest = sum(column.most_text for column in self.columns.values())
        return max(1, min(self.rows, FREE_BYTES // max(longest, 1)))


def read_bounded(file: pq.ParquetFile, source: Source, columns: Sequence[str] | None = None) -> pa.Table:
    """Return columns of a Parquet file, in memory that follows its size.

    Parameters
    ----------
    source
        What `file` reads.
    columns
        Names, or paths of leaves; None is all.

    Raises
    ------
    ValueError
        It unfolds into more than that, or its headers cannot be read.
    OSError, pyarrow.ArrowException
        It cannot be read.
    """
    size_bytes, groups = unfold(source, columns)
    names = None if columns is None else list(columns)
    copied = sum(group.copied_bytes for group in groups)
    if sum(group.plain_bytes for group in groups) + copied <= _allowed(size_bytes):
        _require_narrow(file, columns)
        return file.read(columns=names, use_threads=False)
    return pa.Table.from_batches(bounded_batches(file, source, columns)).combine_chunks()


def bounded_batches(
    file: pq.ParquetFile, source: Source, columns: Sequence[str] | None, most_rows: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield columns of a Parquet file, some rows at a time; see `read_bounded`.

    Parameters
    ----------
    most_rows
        Of a batch; None is as many as are safe.
    """
    size_bytes, groups = unfold(source, columns)
    _require_narrow(file, columns)
    _require(sum(group.plain_bytes for group in groups), size_bytes)
    names = None if columns is None else list(columns)
    found = 0
    for number, group in enumerate(groups):
        at_once = min(group.safe_rows, most_rows or group.safe_rows)
        for batch in file.iter_batches(at_once, row_groups=[number], columns=names, use_threads=False):
            found += batch.nbytes
            _require(found, size_bytes)
            yield batch


def _allowed(size_bytes: int) -> int:
    return FREE_BYTES + BYTES_PER_BYTE * size_bytes


def _require(found: int, size_bytes: int) -> None:
    if found > _allowed(size_bytes):
        raise ValueError(
            f"{size_bytes} bytes unfold into {found} or more, expected at most {_allowed(size_bytes)} of a file of "
            "that size, which one made to fill the memory exceeds; write it anew with its texts uncompressed if it "
            "is yours"
        )


def _require_narrow(file: pq.ParquetFile, columns: Collection[str] | None) -> None:
    """Refuse items of a fixed size that is large: nulls take as much, and are in no page."""
    for at in range(len(file.schema)):
        column = file.schema.column(at)
        if column.length > _MOST_FIXED and _is_wanted(column.path, columns):
            raise ValueError(
                f"column {column.path!r} has items of {column.length} bytes, expected at most {_MOST_FIXED}"
            )


def rows_of_large_items(source: Source, column: str, number: int) -> int:
    """Return how many rows of a column can be read at once, a page after the other, in memory that follows its size.

    Parameters
    ----------
    column
        The path of its leaf: of images, say.
    number
        Of the row group.

    Raises
    ------
    ValueError
        A page alone unfolds into more, or the headers cannot be read.
    OSError
        It cannot be read.
    """
    size_bytes, groups = unfold(source, [column], number)
    for found in groups[number].columns.values():
        _require(max(found.largest_page, _ITEM_BYTES * found.entries), size_bytes)
    return groups[number].safe_rows


def unfold(
    source: Source, columns: Collection[str] | None = None, only: int | None = None
) -> tuple[int, list[Group]]:
    """Return the size of a Parquet file, and what its row groups can unfold into.

    Parameters
    ----------
    columns
        Names of columns, or paths of leaves; None is all.
    only
        The one row group to look at; the others are as if they had no columns.

    Raises
    ------
    ValueError
        Its headers cannot be read, or column chunks overlap, and so could be unfolded again and again.
    OSError
        It cannot be read.
    """
    with _Bytes(source) as data:
        try:
            groups = [
                (rows, [one for one in chunks if only in (None, number) and _is_wanted(one.column, columns)])
                for number, (rows, chunks) in enumerate(_row_groups(data))
            ]
            total = sum(chunk.size_bytes for _, chunks in groups for chunk in chunks)
            if total > data.size:
                raise ValueError(f"column chunks of {total} bytes in a file of {data.size}")
            return data.size, [
                Group(rows, {chunk.column: _unfolding(data, chunk) for chunk in chunks})
                for rows, chunks in groups
            ]
        except (IndexError, KeyError) as error:
            raise ValueError("headers that are not those of a Parquet file") from error


def _is_wanted(column: str, columns: Collection[str] | None) -> bool:
    return columns is None or any(column == name or column.startswith(f"{name}.") for name in columns)


class _Bytes:
    """Reads at random."""

    def __init__(self, source: Source) -> None:
        self._is_ours = isinstance(source, Path)
        if isinstance(source, bytes):
            self._file: BinaryIO = io.BytesIO(source)  # shares the bytes
        else:
            self._file = source.open("rb") if isinstance(source, Path) else source
        self.size = self._file.seek(0, io.SEEK_END)

    def __enter__(self) -> _Bytes:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            self._file.close()

    def read(self, at: int, size: int) -> bytes:
        self._file.seek(_natural(at))
        return self._file.read(size)


def _row_groups(data: _Bytes) -> Iterator[tuple[int, list[_Chunk]]]:
    """Yield the rows and the columns of each row group."""
    tail = data.read(data.size - 8, 8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > data.size - 8:
        raise ValueError("no footer of a Parquet file")
    footer = Thrift(data.read(data.size - 8 - length, length)).struct(_FILE)
    for group in footer.get(4, ()):
        yield _natural(group[3]), [_chunk(column[3]) for column in group[1]]


def _chunk(found: dict[int, Any]) -> _Chunk:
    start, dictionary = found[9], found.get(11, 0)
    start = dictionary if 0 < dictionary < start else start  # as Arrow does
    column = b".".join(found[3]).decode(errors="replace")
    return _Chunk(column, found[1], found[4], _natural(found[5]), _natural(start), _natural(found[7]))


def _natural(number: int) -> int:
    if number < 0:
        raise ValueError(f"a size of {number}")
    return number


def _unfolding(data: _Bytes, chunk: _Chunk) -> Unfolding:
    items = entries = page_bytes = largest = most_text = longest = 0
    at, end = chunk.start, min(chunk.start + chunk.size_bytes + _SLACK, data.size)
    has_texts = chunk.kind in (_BYTE_ARRAY, _FIXED_LEN_BYTE_ARRAY)
    while at < end and items < chunk.items:
        page, length = _page_header(data, at)
        unfolded, folded = _natural(page[2]), _natural(page[3])
        page_bytes, largest = page_bytes + unfolded, max(largest, unfolded)
        if page[1] == _DICTIONARY:
            entries += _natural(page[7][1])
            if has_texts:
                longest = max(longest, _longest_text(data, chunk, at + length, folded, unfolded))
        elif page[1] in (_DATA, _DATA_V2):
            header = page[5] if page[1] == _DATA else page[8]
            items += _natural(header[1])
            encoding = header[2] if page[1] == _DATA else header[4]
            if has_texts and encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY):
                most_text = max(most_text, longest)
            elif has_texts and encoding == _DELTA_BYTE_ARRAY:
                most_text = max(most_text, unfolded)
        at += length + folded
    return Unfolding(items, entries, page_bytes, largest, most_text)


def _longest_text(data: _Bytes, chunk: _Chunk, at: int, folded: int, unfolded: int) -> int:
    """Return a bound of the length of the texts in a dictionary: of all classes, say, which are short."""
    codec = _CODECS.get(chunk.codec)
    if unfolded > _MOST_DICTIONARY or chunk.kind != _BYTE_ARRAY or codec is None:
        return unfolded
    try:
        page = data.read(at, folded)
        page = page if codec == "" else pa.Codec(codec).decompress(page, unfolded, asbytes=True)
    except (pa.ArrowException, OSError, ValueError):
        return unfolded  # Arrow will say so
    longest = start = 0
    while start + 4 <= len(page):
        length = int.from_bytes(page[start : start + 4], "little")
        longest = max(longest, length)
        start += 4 + length
    return min(longest, unfolded)


def _page_header(data: _Bytes, at: int) -> tuple[dict[int, Any], int]:
    room = _PAGE_ROOM
    while True:
        thrift = Thrift(data.read(at, room))
        try:
            return thrift.struct(_PAGE), thrift.at
        except IndexError:
            if room >= _MOST_HEADER:
                raise
            room *= 8


_BYTE, _SHORT, _INT, _LONG, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = range(3, 14)
_WIDTHS = {_BYTE: 1, _DOUBLE: 8, _UUID: 16}
_INTEGERS = {_SHORT: 16, _INT: 32, _LONG: 64}

# The fields that are looked at, by their number in parquet.thrift: each a kind, a struct of such, or a list of either.
_COLUMN: dict[int, Any] = {3: {1: _INT, 3: [_BINARY], 4: _INT, 5: _LONG, 7: _LONG, 9: _LONG, 11: _LONG}}
_FILE: dict[int, Any] = {4: [{1: [_COLUMN], 3: _LONG}]}
_PAGE: dict[int, Any] = {
    1: _INT,
    2: _INT,
    3: _INT,
    5: {1: _INT, 2: _INT},
    7: {1: _INT},
    8: {1: _INT, 4: _INT},
}


class Thrift:
    """Reads structs in Thrift's compact protocol, as Arrow does.

    Each step goes on by a byte at least, so that it takes time in proportion. What Arrow would read as something else
    or pass over, as a number of another kind, is a `ValueError`; past the end is an `IndexError`.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self, fields: dict[int, Any]) -> dict[int, Any]:
        """Return some fields of a struct by number, and pass the others."""
        data, number = self._data, 0
        found: dict[int, Any] = {}
        while True:
            head = data[self.at]
            self.at += 1
            kind = head & 15
            if not kind:
                return found
            number = number + (head >> 4) if head >> 4 else self._integer(16)
            if not 0 < number < 2**15:
                raise ValueError(f"field {number} of a struct")
            wanted = fields.get(number)
            if wanted is not None:
                found[number] = self._value(kind, wanted)
            elif kind > 2:  # of those two, which are true and false, there is nothing more
                self._skip(kind, _DEPTH)

    def _value(self, kind: int, wanted: Any) -> Any:
        if isinstance(wanted, list) and kind == _LIST:
            count, kind = self._list()
            return [self._value(kind, wanted[0]) for _ in range(count)]
        if isinstance(wanted, dict) and kind == _STRUCT:
            return self.struct(wanted)
        if wanted != kind:
            raise ValueError(f"a field of kind {kind} where another is expected")
        if kind == _BINARY:
            size = self._varint(32)
            self.at += size
            if self.at > len(self._data):
                raise IndexError
            return self._data[self.at - size : self.at]
        return self._integer(_INTEGERS[kind])

    def _varint(self, bits: int) -> int:
        data = self._data
        number = shift = 0
        while True:
            byte = data[self.at]
            self.at += 1
            number |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
            if shift > bits:
                break
        if number >> bits:
            raise ValueError(f"a number of more than {bits} bits")
        return number

    def _integer(self, bits: int) -> int:
        number = self._varint(bits)
        return number >> 1 ^ -(number & 1)

    def _list(self) -> tuple[int, int]:
        head = self._data[self.at]
        self.at += 1
        return (self._varint(32) if head >> 4 == 15 else head >> 4), head & 15

    def _skip(self, kind: int, depth: int) -> None:
        """Pass a value; in a list, true and false take a byte as well."""
        if not depth:
            raise ValueError("values in values in values")
        if kind in _INTEGERS:
            while self._data[self.at] > 127:
                self.at += 1
            self.at += 1
        elif kind == _BINARY:
            size = self._varint(32)
            self.at += size
        elif kind == _STRUCT:
            self._skip_struct(depth)
        elif kind in (_LIST, _SET):
            count, of = self._list()
            for _ in range(count):
                self._skip(of, depth - 1)
        elif kind == _MAP:
            count = self._varint(32)
            kinds = self._data[self.at] if count else 0
            self.at += count > 0
            for _ in range(count):
                self._skip(kinds >> 4, depth - 1)
                self._skip(kinds & 15, depth - 1)
        elif kind in (1, 2) or kind in _WIDTHS:
            self.at += _WIDTHS.get(kind, 1)
        else:
            raise ValueError(f"a value of kind {kind}")
        if self.at > len(self._data):
            raise IndexError

    def _skip_struct(self, depth: int) -> None:
        while True:
            head = self._data[self.at]
            self.at += 1
            kind = head & 15
            if not kind:
                return
            if not head >> 4:
                self._integer(16)
            if kind > 2:
                self._skip(kind, depth - 1)

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel_store.store.parquet_pages import read_bounded, rows_of_large_items, unfold

N = 3000
TABLE = pa.table(
    {
        "text": pa.array([f"cat/photo {row:05d}" for row in range(N)]),
        "few": pa.array([None if row % 7 == 0 else f"class {row % 5}" for row in range(N)]),
        "number": pa.array(range(N), pa.int64()),
        "list": pa.array([[row] * (row % 4) for row in range(N)], pa.list_(pa.int32())),
        "image": pa.array([{"bytes": b"x" * (row % 9), "path": f"{row}.png"} for row in range(N)]),
        "none": pa.nulls(N, pa.string()),
    }
)
LEAVES = ["text", "few", "number", "list.list.element", "image.bytes", "image.path", "none"]
WRITERS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "zstd": {"compression": "zstd", "row_group_size": 700},
    "not compressed": {"compression": "none"},
    "gzip": {"compression": "gzip"},
    "brotli": {"compression": "brotli"},
    "lz4": {"compression": "lz4"},
    "second pages": {"data_page_version": "2.0", "data_page_size": 1000},
    "small pages": {"data_page_size": 500, "write_batch_size": 50, "row_group_size": 1000},
    "no dictionaries": {"use_dictionary": False, "write_statistics": False},
    "prefixes": {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    "with indexes and checksums": {"write_page_index": True, "write_page_checksum": True},
    "no rows": {},
}


def written(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


@pytest.fixture(params=WRITERS)
def data(request: pytest.FixtureRequest) -> bytes:
    table = TABLE.slice(0, 0) if request.param == "no rows" else TABLE
    return written(table, **WRITERS[request.param])


def test_sums_are_those_that_arrow_writes_into_the_footer(data: bytes) -> None:
    size_bytes, groups = unfold(data)
    metadata = pq.read_metadata(pa.BufferReader(data))
    assert size_bytes == len(data)
    assert [group.rows for group in groups] == [
        metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)
    ]
    for at, group in enumerate(groups):
        assert list(group.columns) == LEAVES
        for number, found in enumerate(group.columns.values()):
            column = metadata.row_group(at).column(number)
            assert found.items == column.num_values
            # The footer counts the headers too.
            assert found.page_bytes <= column.total_uncompressed_size
            assert found.largest_page <= found.page_bytes
            assert column.has_dictionary_page or not found.entries


def test_a_table_is_what_arrow_reads(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(data)
    for columns in (None, ["text"], ["few", "image.path"]):
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            assert read_bounded(file, data, columns).equals(file.read(columns))
        with pq.ParquetFile(tmp_path / "table.parquet") as file:
            assert read_bounded(file, tmp_path / "table.parquet", columns).equals(file.read(columns))
        with (tmp_path / "table.parquet").open("rb") as opened, pq.ParquetFile(opened) as file:
            assert read_bounded(file, opened, columns).equals(file.read(columns))


def test_texts_of_a_dictionary_are_read_few_at_a_time_where_they_are_long() -> None:
    long = pa.table({"text": ["x" * 2_000_000, *["y"] * 99]})
    data = written(long, dictionary_pagesize_limit=2**30, compression="none")
    (group,) = unfold(data)[1]
    assert group.columns["text"].most_text >= 2_000_000
    assert group.safe_rows == 33
    assert rows_of_large_items(data, "text", 0) == 33
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        assert read_bounded(file, data).equals(long)


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "brotli", "none"])
def test_texts_of_a_dictionary_are_measured(compression: str) -> None:
    data = written(TABLE, compression=compression)
    assert unfold(data, ["few"])[1][0].columns["few"].most_text == len("class 0")


def test_one_row_group_can_be_looked_at_alone() -> None:
    groups = unfold(written(TABLE, row_group_size=1000), ["text"], 1)[1]
    assert [list(group.columns) for group in groups] == [[], ["text"], []]


def test_items_of_a_large_fixed_size_are_refused() -> None:
    nulls = pa.table({"a": pa.nulls(10, pa.binary(1000))})
    data = written(nulls)
    with (
        pq.ParquetFile(pa.BufferReader(data)) as file,
        pytest.raises(ValueError, match="items of 1000 bytes"),
    ):
        read_bounded(file, data)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_footer_are_an_error(found: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unfold(found)
    length = len(found).to_bytes(4, "little")
    with contextlib.suppress(ValueError):
        unfold(b"PAR1" + found + length + b"PAR1")


def test_flipped_bits_are_an_error_or_another_size() -> None:
    rng = np.random.default_rng(0)
    sound = written(TABLE, compression="zstd", row_group_size=1500)
    for at in rng.integers(0, 8 * len(sound), 1500):
        data = bytearray(sound)
        data[at // 8] ^= 1 << at % 8
        with contextlib.suppress(ValueError):
            unfold(bytes(data))

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from relabel_store import spec
from relabel_store.canonical import canonical_json, with_digest
from relabel_store.errors import DamagedFileError, FormatError, RelabelStoreError
from relabel_store.labels.maps import LabelMaps
from relabel_store.manifest import AbsentRule, Manifest
from relabel_store.store.arrays import array_specs
from relabel_store.store.parquet_v1 import ParquetParts, part_file, part_schema
from relabel_store.store.reader import open_store
from relabel_store.store.samples import SCHEMA
from relabel_store.testing import make_manifest, make_store

KINDS = {
    "rounded": make_manifest(encoding="parquet"),
    "exact": make_manifest(value_step="exact", encoding="parquet"),
    "rest": make_manifest(absent=AbsentRule.REST, encoding="parquet"),
    "short last part": make_manifest(n=7, shard_rows=6, chunk_rows=4 // 2, encoding="parquet"),
    "uint32": make_manifest(n=2, grid=(1, 2), num_classes=70_000, encoding="parquet"),
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def encoding() -> str:
    return spec.ENCODING_PARQUET


def assert_same(found: LabelMaps, expected: LabelMaps) -> None:
    assert found.sample_ids == expected.sample_ids
    for name in ("indices", "values", "rest"):
        if getattr(expected, name) is None:
            assert getattr(found, name) is None
        else:
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)


@EVERY_KIND
def test_the_columns_are_the_samples_and_the_maps(
    tmp_path: Path, rng: np.random.Generator, kind: str
) -> None:
    manifest = KINDS[kind]
    maps = make_store(tmp_path / "s", rng, manifest)
    table = pa.concat_tables(pq.read_table(path) for path in sorted((tmp_path / "s").glob("*.parquet")))
    names = ["indices", "values", *(["rest"] if maps.rest is not None else [])]
    assert table.schema.names == [*SCHEMA.names, *names]
    for name in names:
        rows = np.array(table[name].to_pylist(), np.float64)
        np.testing.assert_array_equal(rows, getattr(maps, name).reshape(len(rows), -1).astype(np.float64))
    assert table["sample_id"].to_pylist() == maps.sample_ids
    assert table["row"].to_pylist() == list(range(manifest.num_samples))
    assert set(table["status"].to_pylist()) == {"labelled"}


@EVERY_KIND
def test_every_file_says_what_its_numbers_mean(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    make_store(tmp_path / "s", rng, KINDS[kind])
    for path in (tmp_path / "s").glob("*.parquet"):
        found = Manifest.from_dict(json.loads(pq.read_metadata(path).metadata[b"relabel_store"]))
        assert found == KINDS[kind]


def test_row_groups_are_chunks(tmp_path: Path, rng: np.random.Generator) -> None:
    make_store(tmp_path / "s", rng, KINDS["short last part"])
    sizes = [
        [group.num_rows for group in map(file.row_group, range(file.num_row_groups))]
        for file in map(pq.read_metadata, sorted((tmp_path / "s").glob("*.parquet")))
    ]
    assert sizes == [[2, 2, 2], [1]]


def test_bad_images_keep_their_row_and_their_reason(tmp_path: Path, rng: np.random.Generator) -> None:
    make_store(tmp_path / "s", rng, KINDS["rounded"], bad_images={5: "is a cake"})
    table = pq.read_table(tmp_path / "s/made-up-00001-of-00002.parquet")
    assert table["status"].to_pylist() == ["labelled", "bad-image", "labelled", "labelled"]
    assert set(table["indices"][1].as_py()) == {65_535}
    assert np.isnan(table["values"][1].as_py()).all()
    store = open_store(tmp_path / "s")
    assert store.bad_images == {5: "is a cake"}
    with pytest.raises(RelabelStoreError, match="is a cake"):
        store[5]


def test_a_part_of_other_columns_is_refused_even_where_its_digest_is_right(
    finished: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    other = make_manifest(grid=(2, 2), encoding="parquet")
    make_store(tmp_path / "other", rng, other)
    document = json.loads((tmp_path / "other/complete.json").read_bytes())
    document["manifest"] = json.loads((finished.path / "complete.json").read_bytes())["manifest"]
    (tmp_path / "other/complete.json").write_bytes(
        canonical_json(with_digest({key: value for key, value in document.items() if key != "digest"}))
    )
    with pytest.raises(FormatError, match="4 rows in 2 row groups of columns"):
        open_store(tmp_path / "other")[0]


# Other programs read it without us

PYARROW = """
import json, sys
import pyarrow.dataset
table = pyarrow.dataset.dataset(sys.argv[1], format="parquet", exclude_invalid_files=True).to_table()
print(json.dumps({name: table[name].to_pylist() for name in ("sample_id", "indices", "values")}))
"""

DUCKDB = """
import json, sys
import duckdb
rows = duckdb.sql(f"SELECT sample_id, indices, values FROM '{sys.argv[1]}/*.parquet' ORDER BY row").fetchall()
print(json.dumps(dict(zip(("sample_id", "indices", "values"), zip(*rows)))))
"""

POLARS = """
import json, sys
import polars
frame = polars.scan_parquet(f"{sys.argv[1]}/*.parquet").sort("row").collect()
print(json.dumps({name: frame[name].to_list() for name in ("sample_id", "indices", "values")}))
"""

DATASETS = """
import json, os, sys
os.environ["HF_DATASETS_OFFLINE"] = "1"
import datasets
datasets.disable_progress_bars()
loaded = datasets.load_dataset(sys.argv[1], split="train", cache_dir=sys.argv[2])
print(json.dumps({name: list(loaded[name]) for name in ("sample_id", "indices", "values")}))
"""


@pytest.mark.parametrize(
    "client", [PYARROW, DUCKDB, POLARS, DATASETS], ids=["pyarrow", "duckdb", "polars", "datasets"]
)
@pytest.mark.parametrize("kind", ["rest", "short last part"])
def test_other_programs_read_the_same_rows(
    tmp_path: Path, rng: np.random.Generator, client: str, kind: str
) -> None:
    maps = make_store(tmp_path / "labels.parquet", rng, KINDS[kind])
    command = [sys.executable, "-P", "-c", client, str(tmp_path / "labels.parquet"), str(tmp_path / "cache")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert list(found["sample_id"]) == maps.sample_ids
    for name in ("indices", "values"):
        np.testing.assert_array_equal(
            np.array(found[name]), getattr(maps, name).reshape(len(maps.sample_ids), -1)
        )


# Whoever checks a store


def rewritten(store: Path, manifest: Manifest, number: float) -> bytes:
    """The first part with another number among its values, its digests beside it."""
    path = store / part_file(manifest, 0)
    table = pq.read_table(path)
    schema = part_schema(manifest)
    values = np.array(table["values"].to_pylist(), np.float32)
    values[1, 2] = number
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=schema.field("values").type)
    table = table.set_column(schema.get_field_index("values"), schema.field("values"), column)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=manifest.layout.chunk_rows, write_page_checksum=True)
    return bytes(sink.getvalue())


def read(data: bytes, manifest: Manifest, *, is_strict: bool) -> float:
    arrays = {name: array.empty(4) for name, array in array_specs(manifest).items()}
    ParquetParts(manifest, is_strict=is_strict).read_part(0, lambda name: data, arrays)
    return float(arrays["values"][1].reshape(-1)[2])


@pytest.mark.parametrize("number", [0.1, 1e6, 1e-9, 2049.0], ids=str)
def test_numbers_that_are_none_of_float16_are_refused_where_that_is_asked_for(
    finished: Any, number: float
) -> None:
    data = rewritten(finished.path, finished.manifest, number)
    with pytest.raises(DamagedFileError, match="column 'values' has numbers that are none of float16"):
        read(data, finished.manifest, is_strict=True)


@pytest.mark.parametrize("number", [0.125, -0.0, 65504.0, 2.0**-24, float("inf")], ids=str)
def test_numbers_of_float16_are_read_as_they_are(finished: Any, number: float) -> None:
    data = rewritten(finished.path, finished.manifest, number)
    assert read(data, finished.manifest, is_strict=True) == number


def test_checksums_of_pages_are_compared_where_that_is_asked_for(finished: Any) -> None:
    path = finished.path / part_file(finished.manifest, 0)
    column = pq.read_metadata(path).row_group(0).column(len(SCHEMA))
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 1] ^= 1  # the last byte of its page
    with pytest.raises(DamagedFileError, match="CRC"):
        read(bytes(data), finished.manifest, is_strict=True)

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from relabel_store import spec
from relabel_store.canonical import canonical_json, with_digest
from relabel_store.errors import DamagedFileError, FormatError, RelabelStoreError, StoreNotFoundError
from relabel_store.labels.maps import LabelMaps
from relabel_store.manifest import AbsentRule, Compression, Encoding, Manifest, State
from relabel_store.store import commit
from relabel_store.store.arrays import array_specs
from relabel_store.store.local_files import LocalFiles
from relabel_store.store.parquet_v1 import ParquetParts, part_file, part_schema
from relabel_store.store.reader import open_store
from relabel_store.store.samples import SCHEMA
from relabel_store.store.writer import StoreWriter, is_store
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_samples, make_store

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


def test_a_finished_store_is_its_parts_and_its_completion(finished: Any) -> None:
    assert sorted(path.name for path in finished.path.iterdir()) == [
        "complete.json",
        "made-up-00000-of-00002.parquet",
        "made-up-00001-of-00002.parquet",
    ]


def test_an_unfinished_store_keeps_its_journal(unfinished: Any) -> None:
    assert is_store(unfinished.path)
    assert not open_store(unfinished.path).is_complete
    assert (unfinished.path / "journal/part-00000.json").exists()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("train", "train-00000-of-00002.parquet"),
        ("my photos/2026", "my-photos-2026-00000-of-00002.parquet"),
        ("../..", "labels-00000-of-00002.parquet"),
        ("日本", "labels-00000-of-00002.parquet"),
    ],
)
def test_files_are_named_after_the_store(name: str, file: str) -> None:
    assert part_file(replace(KINDS["rounded"], name=name), 0) == file


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


def test_the_manifest_of_the_whole_is_in_the_completion_record(finished: Any) -> None:
    document = json.loads((finished.path / "complete.json").read_bytes())
    assert Manifest.from_dict(document["manifest"]) == open_store(finished.path).manifest
    assert document["manifest"]["state"] == State.COMPLETE.value


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


def test_both_encodings_hold_the_same(originals: dict[str, Any]) -> None:
    zarr, parquet = (open_store(originals[name].path) for name in ("zarr", "parquet"))
    assert_same(parquet.read_rows(range(8)), zarr.read_rows(range(8)))
    assert parquet.samples.equals(zarr.samples)
    assert parquet.manifest.statistics == zarr.manifest.statistics


def test_a_store_is_decoded_into_memory_and_into_a_cache(finished: Any, tmp_path: Path) -> None:
    store = open_store(finished.path)
    for decoded in (store.load(), store.materialize(tmp_path / "cache")):
        assert_same(decoded.read_rows(range(8)), finished.maps)
        assert decoded.samples.equals(store.samples)


def test_a_fast_store_holds_the_same_and_says_so(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in (spec.ENCODING_ZARR, spec.ENCODING_PARQUET):
        manifest = replace(make_manifest(), encoding=Encoding.of(name, Compression.FAST))
        maps = make_store(tmp_path / name, rng, manifest)
        store = open_store(tmp_path / name)
        assert_same(store.read_rows(range(8)), maps)
        assert_same(store.load().read_rows(range(8)), maps)
        assert store.manifest.to_dict()["encoding"]["compression"] == "fast"


# Damage


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


@pytest.mark.parametrize("file", ["complete.json", "made-up-00000-of-00002.parquet"])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: flip(data, 0), id="first byte"),
        pytest.param(lambda data: flip(data, len(data) // 3), id="a third"),
        pytest.param(lambda data: flip(data, len(data) - 9), id="footer"),
        pytest.param(lambda data: data[:-2], id="truncated"),
        pytest.param(lambda data: data + b"\0", id="appended"),
        pytest.param(lambda data: b"", id="emptied"),
        pytest.param(lambda data: None, id="removed"),
    ],
)
def test_damage_is_named_and_the_rest_is_served(
    finished: Any, file: str, damage: Callable[[bytes], bytes | None]
) -> None:
    path = finished.path / file
    data = damage(path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    if file == "complete.json":
        error = StoreNotFoundError if data is None else DamagedFileError
        with pytest.raises(error, match=r"complete\.json"):
            open_store(finished.path)
        return
    store = open_store(finished.path)
    with pytest.raises(DamagedFileError, match=r"made-up-00000-of-00002\.parquet"):
        store[0]
    with pytest.raises(DamagedFileError, match=r"made-up-00000-of-00002\.parquet"):
        _ = store.samples


def test_parts_that_changed_places_are_noticed(finished: Any) -> None:
    first, second = sorted(finished.path.glob("*.parquet"))
    first.rename(finished.path / "aside")
    second.rename(first)
    (finished.path / "aside").rename(second)
    with pytest.raises(DamagedFileError, match=r"made-up-00000-of-00002\.parquet"):
        open_store(finished.path)[0]


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


def test_part_files_alone_are_no_store_and_the_message_says_what_is_missing(finished: Any) -> None:
    (finished.path / "complete.json").unlink()
    with pytest.raises(StoreNotFoundError, match=r"parts of a Parquet store without 'complete\.json'"):
        open_store(finished.path)


# Finishing removes the journal, which others may be writing to


def other_labels(manifest: Manifest, part: int) -> Any:
    return make_part(manifest, make_label_maps(np.random.default_rng(99), manifest), part)


def test_a_writer_that_comes_late_changes_nothing(
    unfinished: Any,
    original: Any,
    read_tree: Callable[[Path], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(StoreWriter, "_locked", lambda writer, name: contextlib.nullcontext())  # two hosts
    late, last = StoreWriter.resume(unfinished.path), StoreWriter.resume(unfinished.path)
    # The late one has looked before the store was finished: what it finds is what it remembers.
    looked = []
    read_part = commit.read_part

    def finish_after_looking(files: LocalFiles, manifest: Manifest, part: int) -> Any:
        found = read_part(files, manifest, part)
        if not looked:
            looked.append(part)
            last.write_part(1, make_part(original.manifest, original.maps, 1))
            last.complete()
        return found

    monkeypatch.setattr(commit, "read_part", finish_after_looking)
    late.write_part(1, other_labels(original.manifest, 1))
    assert looked == [1]
    assert read_tree(unfinished.path) == read_tree(original.path)


def test_a_finished_store_is_opened_again_for_the_parts_that_are_dropped(
    finished: Any, original: Any, read_tree: Callable[[Path], dict[str, bytes]]
) -> None:
    writer = StoreWriter.resume(finished.path)
    writer.drop_parts([1])
    assert writer.missing_parts() == [1]
    assert not open_store(finished.path).has_label(5)
    again = StoreWriter.resume(finished.path)
    again.write_part(1, make_part(original.manifest, original.maps, 1))
    again.complete()
    assert read_tree(finished.path) == read_tree(original.path)


def test_a_store_of_another_encoding_is_not_begun_beside(unfinished: Any) -> None:
    manifest = make_manifest()
    writer = StoreWriter.begin(unfinished.path, manifest, make_samples(manifest))
    assert (
        writer.manifest.encoding.name == "parquet"
    )  # what is there is gone on with; `build` compares the two


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


def test_a_copied_store_is_the_same_store(finished: Any, tmp_path: Path) -> None:
    shutil.copytree(finished.path, tmp_path / "copy.parquet")
    assert open_store(tmp_path / "copy.parquet").digest == open_store(finished.path).digest


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

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relabel_store.canonical import canonical_json
from relabel_store.errors import DamagedFileError, FormatError, RelabelStoreError
from relabel_store.manifest import AbsentRule, Manifest
from relabel_store.store.arrays import array_specs
from relabel_store.store.local_files import LocalFiles
from relabel_store.store.zarr_v1 import (
    ZarrArrays,
    array_documents,
    damaged_chunks,
    encode_shard,
    group_document,
    manifest_of_group,
)
from relabel_store.testing import make_manifest, make_store

KINDS = {
    "rounded": make_manifest(),
    "exact": make_manifest(value_step="exact"),
    "rest": make_manifest(absent=AbsentRule.REST),
    "one row a chunk": make_manifest(shard_rows=1, chunk_rows=1),
    "short last shard": make_manifest(n=7, shard_rows=6, chunk_rows=3),
    "uint32": make_manifest(n=2, grid=(1, 2), num_classes=70_000),
}
EVERY_KIND = pytest.mark.parametrize("manifest", KINDS.values(), ids=KINDS.keys())


def chunk_codecs(document: dict[str, Any]) -> list[dict[str, Any]]:
    (sharding,) = document["codecs"]
    codecs: list[dict[str, Any]] = sharding["configuration"]["codecs"]
    return codecs


@EVERY_KIND
def test_the_last_codec_of_a_chunk_is_a_checksum(manifest: Manifest) -> None:
    last = {name: chunk_codecs(document)[-1]["name"] for name, document in array_documents(manifest).items()}
    assert set(last.values()) == {"crc32c"}


@EVERY_KIND
def test_only_codecs_that_every_client_reads_are_used(manifest: Manifest) -> None:
    used = {
        codec["name"] for document in array_documents(manifest).values() for codec in chunk_codecs(document)
    }
    assert used <= {"transpose", "bytes", "zstd", "blosc", "crc32c"}


@EVERY_KIND
def test_the_index_of_a_shard_is_at_its_end(manifest: Manifest) -> None:
    for document in array_documents(manifest).values():
        (sharding,) = document["codecs"]
        assert (sharding["name"], sharding["configuration"]["index_location"]) == ("sharding_indexed", "end")


@EVERY_KIND
def test_arrays_are_cut_along_the_samples_only(manifest: Manifest) -> None:
    for document in array_documents(manifest).values():
        shape = document["shape"][1:]
        (sharding,) = document["codecs"]
        assert document["chunk_grid"]["configuration"]["chunk_shape"] == [manifest.layout.shard_rows, *shape]
        assert sharding["configuration"]["chunk_shape"] == [manifest.layout.chunk_rows, *shape]


def test_label_maps_have_named_axes() -> None:
    documents = array_documents(KINDS["rest"])
    assert {name: document["dimension_names"] for name, document in documents.items()} == {
        "indices": ["sample", "rank", "row", "col"],
        "values": ["sample", "rank", "row", "col"],
        "rest": ["sample", "row", "col"],
    }


def test_the_rest_is_there_only_where_it_is_the_rule() -> None:
    assert list(array_specs(KINDS["rounded"])) == ["indices", "values"]
    assert list(array_specs(KINDS["rest"])) == ["indices", "values", "rest"]


@pytest.mark.parametrize(
    ("num_classes", "dtype", "fill_value"),
    [(2, "uint16", 65_535), (65_535, "uint16", 65_535), (65_536, "uint32", 4_294_967_295)],
    ids=["few classes", "most of uint16", "one more"],
)
def test_the_fill_value_of_the_indices_is_no_class(num_classes: int, dtype: str, fill_value: int) -> None:
    document = array_documents(make_manifest(num_classes=num_classes))["indices"]
    assert (document["data_type"], document["fill_value"]) == (dtype, fill_value)


@EVERY_KIND
def test_the_fill_value_of_the_scores_is_no_number(manifest: Manifest) -> None:
    documents = array_documents(manifest)
    assert {documents[name]["fill_value"] for name in documents if name != "indices"} == {"NaN"}


def test_byte_shuffle_is_kept_for_values_that_are_not_rounded() -> None:
    compressors = {
        kind: [codec["name"] for codec in chunk_codecs(array_documents(KINDS[kind])["values"])][-2]
        for kind in ("rounded", "exact")
    }
    assert compressors == {"rounded": "zstd", "exact": "blosc"}


def test_a_shard_of_bad_images_only_is_a_file_all_the_same() -> None:
    for array in array_specs(KINDS["rest"]).values():
        assert len(encode_shard(array, KINDS["rest"], array.full(4))) > 0


def test_equal_rows_are_equal_bytes(rng: np.random.Generator) -> None:
    array = array_specs(KINDS["exact"])["values"]
    rows = rng.normal(size=(4, *array.shape[1:])).astype(np.float16)
    assert encode_shard(array, KINDS["exact"], rows) == encode_shard(array, KINDS["exact"], rows.copy())


def test_the_memory_order_of_the_rows_does_not_reach_the_disk(rng: np.random.Generator) -> None:
    array = array_specs(KINDS["rounded"])["values"]
    rows = rng.normal(size=(4, *array.shape[1:])).astype(np.float16)
    manifest = KINDS["rounded"]
    assert encode_shard(array, manifest, np.asfortranarray(rows)) == encode_shard(array, manifest, rows)


@EVERY_KIND
def test_rows_come_back_as_they_were_written(
    tmp_path: Path, rng: np.random.Generator, manifest: Manifest
) -> None:
    maps = make_store(tmp_path / "store", rng, manifest)
    arrays = ZarrArrays(LocalFiles(tmp_path / "store"), manifest)
    for name in arrays.specs:
        found = arrays.read(name, range(1, manifest.num_samples))
        np.testing.assert_array_equal(found, getattr(maps, name)[1:])
        assert found.flags.c_contiguous


def test_a_chunk_that_cannot_be_decoded_names_its_shard(finished: Any) -> None:
    shard = finished.path / "values/c/1/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    with pytest.raises(DamagedFileError, match=r"'values/c/1/0/0/0': rows 4 to 6 cannot be decoded"):
        ZarrArrays(LocalFiles(finished.path), finished.manifest).read("values", range(4, 6))


def change_array(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = store / "indices/zarr.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(canonical_json(document))


def transpose_cells(document: dict[str, Any]) -> None:
    chunk_codecs(document)[0]["configuration"]["order"] = [0, 3, 2, 1]


def cut_shards_in_two(document: dict[str, Any]) -> None:
    document["chunk_grid"]["configuration"]["chunk_shape"][0] = 2


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda document: document.update(shape=[8, 2, 3, 4]), id="shape"),
        pytest.param(lambda document: document.update(data_type="int16", fill_value=-1), id="dtype"),
        pytest.param(cut_shards_in_two, id="shards"),
        pytest.param(transpose_cells, id="rows and columns swapped"),
    ],
)
def test_an_array_that_is_not_the_manifests_is_refused(
    unfinished: Any, change: Callable[[dict[str, Any]], object]
) -> None:
    change_array(unfinished.path, change)
    with pytest.raises(FormatError, match="'indices"):
        ZarrArrays(LocalFiles(unfinished.path), unfinished.manifest).read("indices", range(2))


@pytest.mark.parametrize(
    "data", [None, b"", b"[]", b"{}", b"\xff"], ids=["missing", "empty", "list", "{}", "no text"]
)
def test_an_array_without_sound_metadata_is_an_error_of_ours(unfinished: Any, data: bytes | None) -> None:
    path = unfinished.path / "indices/zarr.json"
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(RelabelStoreError, match="indices"):
        ZarrArrays(LocalFiles(unfinished.path), unfinished.manifest).read("indices", range(2))


def test_the_manifest_survives_the_group() -> None:
    manifest = make_manifest()
    data = canonical_json(group_document(manifest, is_consolidated=False))
    assert manifest_of_group(data) == manifest


def test_consolidated_metadata_is_that_of_the_arrays(finished: Any) -> None:
    group = json.loads((finished.path / "zarr.json").read_bytes())
    for name, document in group["consolidated_metadata"]["metadata"].items():
        assert document == json.loads((finished.path / name / "zarr.json").read_bytes())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"attributes": {}}',
        b'{"attributes": {"relabel_store": null}}',
        b'{"attributes": {"relabel_store": []}}',
        b"[" * 100_000,
    ],
    ids=["empty", "list", "nothing", "null", "no manifest", "null manifest", "manifest as list", "deep"],
)
def test_a_group_without_a_manifest_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"store file 'zarr\.json'"):
        manifest_of_group(data)


# Other programs read a finished store without us, and without a word of complaint.

ZARR = """
import json, sys
import zarr
group = zarr.open_group(sys.argv[1], mode="r")
arrays = {name: (array.metadata.dimension_names, array[:].tolist()) for name, array in group.arrays()}
print(json.dumps(arrays))
"""

XARRAY = """
import json, sys
import xarray
dataset = xarray.open_zarr(sys.argv[1])
arrays = {name: (array.dims, array.values.tolist()) for name, array in dataset.data_vars.items()}
print(json.dumps(arrays))
"""

TENSORSTORE = """
import json, sys
import tensorstore
arrays = {}
for name in sys.argv[2:]:
    array = tensorstore.open({"driver": "zarr3", "kvstore": f"file://{sys.argv[1]}/{name}/"}).result()
    arrays[name] = (array.domain.labels, array.read().result().tolist())
print(json.dumps(arrays))
"""


@pytest.mark.parametrize("client", [ZARR, XARRAY, TENSORSTORE], ids=["zarr", "xarray", "tensorstore"])
@pytest.mark.parametrize("kind", ["rest", "short last shard"])
def test_other_programs_read_the_same_arrays(
    tmp_path: Path, rng: np.random.Generator, client: str, kind: str
) -> None:
    store = tmp_path / "labels.zarr"
    maps = make_store(store, rng, KINDS[kind])
    names = list(array_specs(KINDS[kind]))
    command = [sys.executable, "-P", "-W", "error", "-c", client, str(store), *names]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    arrays = json.loads(answer.stdout)
    assert sorted(arrays) == sorted(names)
    for name, (dimensions, rows) in arrays.items():
        assert dimensions == list(array_specs(KINDS[kind])[name].dimensions)
        np.testing.assert_array_equal(np.array(rows), getattr(maps, name))


# Checksums inside a shard


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6], ids=lambda rows: f"{rows} rows")
def test_the_checksums_of_a_shard_are_where_zarr_puts_them(rng: np.random.Generator, rows: int) -> None:
    manifest = make_manifest(shard_rows=6, chunk_rows=2)
    for array in array_specs(manifest).values():
        numbers = rng.integers(0, 5, (rows, *array.row_shape)).astype(array.dtype)
        assert damaged_chunks(manifest.layout, encode_shard(array, manifest, numbers), rows) == []


def test_a_flipped_bit_is_of_the_chunk_or_the_index_that_it_lies_in(rng: np.random.Generator) -> None:
    manifest = make_manifest(shard_rows=6, chunk_rows=2)
    array = array_specs(manifest)["values"]
    data = encode_shard(array, manifest, rng.random((6, *array.row_shape)).astype(array.dtype))
    offsets = np.frombuffer(data, "<u8", 6, len(data) - 52).reshape(3, 2)
    owner: list[int | None] = [None] * len(data)  # the index, at the end
    for chunk, (offset, size) in enumerate(offsets.tolist()):
        owner[offset : offset + size] = [chunk] * size
    assert {*owner} == {0, 1, 2, None}
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        assert damaged_chunks(manifest.layout, bytes(flipped), 6) == [owner[at]]


@pytest.mark.parametrize("size", [0, 3, 51])
def test_a_shard_that_is_shorter_than_its_index_has_a_damaged_one(size: int) -> None:
    assert damaged_chunks(make_manifest(shard_rows=6, chunk_rows=2).layout, bytes(size), 6) == [None]


def test_a_chunk_that_is_missing_or_past_the_end_is_damaged(rng: np.random.Generator) -> None:
    import google_crc32c

    manifest = make_manifest(shard_rows=6, chunk_rows=2)
    array = array_specs(manifest)["values"]
    data = encode_shard(array, manifest, rng.random((6, *array.row_shape)).astype(array.dtype))
    index = np.frombuffer(data, "<u8", 6, len(data) - 52).copy()
    index[2:4] = 2**64 - 1  # as Zarr marks a chunk that was not written
    index[4] = len(data)
    body = index.tobytes()
    damaged = data[:-52] + body + google_crc32c.value(body).to_bytes(4, "little")
    assert damaged_chunks(manifest.layout, damaged, 6) == [1, 2]

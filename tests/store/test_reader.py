from __future__ import annotations

import contextlib
import json
import pickle
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel_store.canonical import canonical_json, with_digest
from relabel_store.errors import (
    DamagedFileError,
    FormatError,
    NoLabelError,
    RelabelStoreError,
    SampleNotFoundError,
    StoreNotFoundError,
    UnknownEncodingError,
    UnsupportedVersionError,
)
from relabel_store.labels.maps import LabelMap, LabelMaps
from relabel_store.manifest import AbsentRule, Classes, Manifest
from relabel_store.store.complete import read_completion
from relabel_store.store.encodings import ENCODINGS
from relabel_store.store.journal import PartRecord
from relabel_store.store.local_files import LocalFiles
from relabel_store.store.reader import LabelStore, open_store
from relabel_store.store.samples import SCHEMA, from_parquet
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_samples, make_store
from relabel_store.testing.damage import forge_file
from relabel_store.testing.tables import SAMPLE_CHANGES, change_samples

N = 8


def assert_same(found: LabelMaps | LabelMap, expected: LabelMaps | LabelMap) -> None:
    np.testing.assert_array_equal(found.indices, expected.indices, strict=True)
    np.testing.assert_array_equal(found.values, expected.values, strict=True)
    if expected.rest is None:
        assert found.rest is None
    else:
        np.testing.assert_array_equal(found.rest, expected.rest, strict=True)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    num_classes = draw(st.integers(1, 7))
    chunk_rows = draw(st.integers(1, 4))
    return make_manifest(
        n=draw(st.integers(1, 9)),
        grid=(draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        k=draw(st.integers(1, num_classes)),
        num_classes=num_classes,
        value_step=draw(st.sampled_from([1.0, 0.125, 0.0625, "exact"])),
        absent=draw(st.sampled_from(AbsentRule)),
        chunk_rows=chunk_rows,
        shard_rows=chunk_rows * draw(st.integers(1, 3)),
        encoding=draw(st.sampled_from(sorted(ENCODINGS))),
    )


@settings(max_examples=40)
@given(manifest=manifests(), seed=st.integers(0, 2**32 - 1))
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, manifest: Manifest, seed: int
) -> None:
    path = tmp_path_factory.mktemp("store") / "labels.zarr"
    with np.errstate(divide="ignore"):  # the log of no rest at all where every class is kept
        maps = make_store(path, np.random.default_rng(seed), manifest)
    found = open_store(path).read_rows(range(manifest.num_samples))
    assert_same(found, maps)
    assert found.sample_ids == maps.sample_ids


@pytest.mark.parametrize(
    ("num_classes", "dtype"),
    [(65_535, np.uint16), (70_000, np.uint32)],
    ids=["uint16", "uint32"],
)
def test_the_last_of_many_classes_is_read(tmp_path: Path, num_classes: int, dtype: type) -> None:
    manifest = make_manifest(n=1, grid=(1, 1), k=2, num_classes=num_classes, shard_rows=1, chunk_rows=1)
    manifest = replace(manifest, classes=Classes.of(None, None, None))
    indices = np.array([num_classes - 1, 0], dtype).reshape(1, 2, 1, 1)
    maps = LabelMaps(["cat"], indices, np.array([2, 1], np.float16).reshape(1, 2, 1, 1))
    writer = StoreWriter.begin(tmp_path / "store", manifest, make_samples(manifest))
    writer.write_part(0, make_part(manifest, maps, 0))
    writer.complete()
    found = open_store(tmp_path / "store")[0].indices
    assert (found.dtype, found.ravel().tolist()) == (dtype, [num_classes - 1, 0])


def test_a_store_says_what_it_holds(finished: Any) -> None:
    store = open_store(finished.path)
    assert (len(store), store.grid, store.k, store.num_classes) == (8, (3, 3), 2, 5)
    assert repr(store) == "<LabelStore 'made-up': 8 samples x 3x3 cells x top 2, complete>"


def test_the_manifest_is_the_one_written_and_completed(finished: Any) -> None:
    manifest = open_store(finished.path).manifest
    assert replace(manifest, state=finished.manifest.state, statistics=None) == finished.manifest


def test_a_path_may_be_text(finished: Any) -> None:
    assert len(open_store(str(finished.path))) == N


@pytest.mark.parametrize("row", range(-N, N))
def test_one_row_is_the_map_of_its_sample(finished: Any, row: int) -> None:
    label_map = open_store(finished.path)[row]
    assert label_map.sample_id == finished.maps.sample_ids[row]
    assert_same(label_map, finished.maps[row])


@settings(max_examples=50)
@given(encoding=st.sampled_from(sorted(ENCODINGS)), rows=st.lists(st.integers(-N, N - 1), max_size=20))
def test_many_rows_are_the_same_as_one_at_a_time(
    originals: dict[str, Any], encoding: str, rows: list[int]
) -> None:
    store = open_store(originals[encoding].path)
    many = store.read_rows(rows)
    ones = [store[row] for row in rows]
    assert many.sample_ids == [one.sample_id for one in ones]
    assert many.indices.shape == (len(rows), 2, 3, 3)
    for position, one in enumerate(ones):
        assert_same(many[position], one)


@pytest.mark.parametrize(
    "rows",
    [
        [3, -1],
        (3, -1),
        np.array([3, -1]),
        np.array([3, 255], np.uint8) % 248,
        iter([3, -1]),
        [np.int32(3), -1],
    ],
    ids=["list", "tuple", "array", "uint8", "iterator", "numpy integers"],
)
def test_rows_may_come_in_any_container(finished: Any, rows: Iterable[int]) -> None:
    assert_same(open_store(finished.path).read_rows(rows), open_store(finished.path).read_rows([3, 7]))


def test_no_rows_are_maps_of_nothing(finished: Any) -> None:
    maps = open_store(finished.path).read_rows([])
    assert (len(maps), maps.indices.shape, maps.indices.dtype) == (0, (0, 2, 3, 3), np.uint16)


@pytest.mark.parametrize(
    "row", [N, -N - 1, 2**40, 2**70, np.uint64(2**64 - 1)], ids=["past", "before", "far", "farther", "uint64"]
)
def test_a_row_that_is_not_there_is_an_index_error(finished: Any, row: int) -> None:
    with pytest.raises(IndexError, match=f"row {row}: out of range, expected -8 to 7"):
        open_store(finished.path)[row]


@pytest.mark.parametrize(
    "row", [1.0, True, "1", None, slice(2), [1]], ids=["float", "bool", "text", "None", "slice", "list"]
)
def test_a_row_that_is_no_integer_is_a_type_error(finished: Any, row: Any) -> None:
    with pytest.raises(TypeError):
        open_store(finished.path)[row]


@pytest.mark.parametrize(
    "rows", [3, None, [[0, 1]], np.array(3)], ids=["integer", "None", "nested", "0-d array"]
)
def test_rows_that_are_no_list_of_integers_are_a_type_error(finished: Any, rows: Any) -> None:
    with pytest.raises(TypeError):
        open_store(finished.path).read_rows(rows)


def test_what_was_read_may_be_changed_without_harm(finished: Any) -> None:
    store = open_store(finished.path)
    store[0].indices[:] = 4
    store.read_rows([0]).values[:] = 0
    assert_same(store[0], finished.maps[0])


def test_rows_read_from_many_chunks_are_right_after_the_first_were_forgotten(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    manifest = make_manifest(n=30, shard_rows=30, chunk_rows=1)
    maps = make_store(tmp_path / "store", rng, manifest)
    store = open_store(tmp_path / "store")
    for row in [*range(30), *range(30)]:
        assert_same(store[row], maps[row])


def test_iterating_gives_every_label_in_row_order(finished: Any) -> None:
    found = list(open_store(finished.path))
    assert [label_map.sample_id for label_map in found] == finished.maps.sample_ids
    assert_same(found[-1], finished.maps[-1])


def test_a_pickled_store_reads_the_same(finished: Any) -> None:
    store = open_store(finished.path)
    assert_same(store[5], finished.maps[5])  # whatever reading opened must not hinder
    again = pickle.loads(pickle.dumps(store))
    assert isinstance(again, LabelStore)
    assert_same(again[5], finished.maps[5])


def test_a_pickled_store_is_found_from_another_folder(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.path.parent)
    pickled = pickle.dumps(open_store(finished.path.name))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert_same(pickle.loads(pickled)[0], finished.maps[0])


# The sample table


def test_the_sample_table_has_the_columns_of_the_design(finished: Any) -> None:
    columns = "row, sample_id, path, class_index, class_name, width, height, sha256, status"
    samples = open_store(finished.path).samples
    assert samples.schema.names == columns.split(", ")
    assert samples.schema.equals(SCHEMA)


def test_the_sample_table_says_what_is_known_of_a_sample(finished: Any) -> None:
    assert open_store(finished.path).samples.slice(7).to_pylist() == [
        {
            "row": 7,
            "sample_id": "dog/photo 0006",
            "path": "dog/photo 0006.jpg",
            "class_index": 1,
            "class_name": "dog",
            "width": 500,
            "height": 375,
            "sha256": f"{7:064x}",
            "status": "labelled",
        }
    ]


def test_the_row_of_each_sample_is_the_one_in_the_table(finished: Any) -> None:
    store = open_store(finished.path)
    assert [store.row_of(sample_id) for sample_id in finished.maps.sample_ids] == list(range(N))


def test_samples_that_are_not_in_order_of_their_ids_are_found(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    manifest = make_manifest()
    sample_ids = ["h", "b", "d", "a", "c", "g", "e", "f"]
    maps = make_label_maps(rng, manifest)
    writer = StoreWriter.begin(tmp_path / "store", manifest, make_samples(manifest, sample_ids))
    for part in range(2):
        writer.write_part(part, make_part(manifest, maps, part))
    writer.complete()
    store = open_store(tmp_path / "store")
    assert [store.row_of(sample_id) for sample_id in sample_ids] == list(range(N))
    assert store[store.row_of("a")].sample_id == "a"


def test_a_sample_that_is_not_there_names_what_is_near(finished: Any) -> None:
    with pytest.raises(SampleNotFoundError, match=r"near it: 'dog/photo 0006'$"):
        open_store(finished.path).row_of("dog/photo 0006.jpg")


# Rows without a label

BAD = {2: "cut off after 3 of 9 kB", 5: "no image at all"}


@pytest.fixture
def with_bad_images(tmp_path: Path) -> tuple[LabelStore, LabelMaps]:
    maps = make_store(tmp_path / "bad.zarr", np.random.default_rng(0), bad_images=BAD)
    return open_store(tmp_path / "bad.zarr"), maps


@pytest.mark.parametrize("row", BAD)
def test_a_bad_image_has_no_label_and_says_why(
    with_bad_images: tuple[LabelStore, LabelMaps], row: int
) -> None:
    store, maps = with_bad_images
    expected = f"row {row}, sample '{maps.sample_ids[row]}': has no label, its image could not be decoded: {BAD[row]}"
    with pytest.raises(NoLabelError) as caught:
        store[row]
    assert str(caught.value) == expected


def test_one_bad_image_among_many_rows_gives_none_of_them(
    with_bad_images: tuple[LabelStore, LabelMaps],
) -> None:
    with pytest.raises(NoLabelError, match=r"row 5, .*\(and 1 more of the rows asked for\)"):
        with_bad_images[0].read_rows([0, 5, 1, 2])


def test_the_neighbours_of_a_bad_image_have_their_own_labels(
    with_bad_images: tuple[LabelStore, LabelMaps],
) -> None:
    store, maps = with_bad_images
    good = [row for row in range(N) if row not in BAD]
    assert_same(store.read_rows(good), LabelMaps([], maps.indices[good], maps.values[good]))


def test_a_store_tells_which_rows_have_a_label(with_bad_images: tuple[LabelStore, LabelMaps]) -> None:
    assert [row for row in range(N) if not with_bad_images[0].has_label(row)] == [2, 5]


def test_bad_images_are_listed_with_their_reason(with_bad_images: tuple[LabelStore, LabelMaps]) -> None:
    assert with_bad_images[0].bad_images == BAD


def test_bad_images_are_counted_and_marked(with_bad_images: tuple[LabelStore, LabelMaps]) -> None:
    store, _ = with_bad_images
    assert store.manifest.statistics is not None
    assert (store.manifest.statistics.labelled, store.manifest.statistics.bad_images) == (6, 2)
    marked = [row for row, status in enumerate(store.samples["status"].to_pylist()) if status == "bad-image"]
    assert marked == [2, 5]


def test_iterating_leaves_out_bad_images(with_bad_images: tuple[LabelStore, LabelMaps]) -> None:
    store, maps = with_bad_images
    expected = [sample_id for row, sample_id in enumerate(maps.sample_ids) if row not in BAD]
    assert [label_map.sample_id for label_map in store] == expected


def test_a_store_of_bad_images_only_can_be_opened(tmp_path: Path, rng: np.random.Generator) -> None:
    make_store(tmp_path / "store", rng, bad_images=dict.fromkeys(range(N), "empty"))
    store = open_store(tmp_path / "store")
    assert not any(store.has_label(row) for row in range(N))


# A store that is being built


def test_a_finished_part_of_an_unfinished_store_is_read(unfinished: Any) -> None:
    found = open_store(unfinished.path).read_rows(range(4))
    assert_same(found, LabelMaps([], unfinished.maps.indices[:4], unfinished.maps.values[:4]))


@pytest.mark.parametrize("row", range(4, 8))
def test_an_unfinished_part_raises(unfinished: Any, row: int) -> None:
    with pytest.raises(NoLabelError, match=rf"row {row}, sample '.*': has no label, its part is not built"):
        open_store(unfinished.path)[row]


def test_an_unfinished_part_raises_even_where_its_shards_are_there(unfinished: Any, original: Any) -> None:
    for name in ("indices", "values"):
        shutil.copytree(original.path / name / "c" / "1", unfinished.path / name / "c" / "1")
    with pytest.raises(NoLabelError, match="its part is not built"):
        open_store(unfinished.path)[4]


def test_an_unfinished_store_says_so(unfinished: Any) -> None:
    store = open_store(unfinished.path)
    assert (store.is_complete, store.digest) == (False, None)
    assert repr(store).endswith("building>")


def test_samples_of_an_unfinished_part_are_missing(unfinished: Any) -> None:
    samples = open_store(unfinished.path).samples
    assert samples["status"].to_pylist() == ["labelled"] * 4 + ["missing"] * 4
    assert samples["width"].to_pylist() == [500] * 4 + [None] * 4


def test_a_store_that_was_only_begun_has_no_labels(tmp_path: Path, rng: np.random.Generator) -> None:
    make_store(tmp_path / "store", rng, parts=[])
    assert list(open_store(tmp_path / "store")) == []


def test_a_part_with_a_broken_record_does_not_exist(unfinished: Any) -> None:
    (unfinished.path / "journal/part-00000.json").write_bytes(b"{}")
    with pytest.raises(NoLabelError, match="its part is not built"):
        open_store(unfinished.path)[0]


# What is no store


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        pytest.param(lambda path: None, StoreNotFoundError, "nothing, expected a store", id="missing path"),
        pytest.param(
            lambda path: path.mkdir(),
            StoreNotFoundError,
            "a directory that holds no label store",
            id="empty folder",
        ),
        pytest.param(lambda path: path.write_text("x"), StoreNotFoundError, "not a directory", id="file"),
        pytest.param(zarr.open_group, FormatError, "this is no label store", id="plain Zarr group"),
        pytest.param(
            lambda path: zarr.create_array(path, shape=(2,), dtype="u1"),
            FormatError,
            "no label store",
            id="Zarr array",
        ),
    ],
)
def test_what_is_no_store_is_told_apart(
    tmp_path: Path, make: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    path = tmp_path / "there"
    make(path)
    with pytest.raises(error, match=message):
        open_store(path)


def test_a_path_without_a_store_is_a_file_that_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_store(tmp_path / "there")


# Versions


@pytest.fixture(params=["finished", "unfinished"])
def any_store(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_another_major_version_is_unsupported(any_store: Any, change_json: Callable[..., None]) -> None:
    change_json(any_store.path, "zarr.json", lambda group: manifest_in(group).update(format_version="2.0"))
    with pytest.raises(UnsupportedVersionError, match=r"version 2\.0, this release reads 1\.x; upgrade"):
        open_store(any_store.path)


def test_another_major_version_of_the_encoding_is_unsupported(
    any_store: Any, change_json: Callable[..., None]
) -> None:
    encoding = {"name": "zarr", "version": "2.0"}
    change_json(any_store.path, "zarr.json", lambda group: manifest_in(group).update(encoding=encoding))
    with pytest.raises(
        UnsupportedVersionError, match=r"encoding 'zarr': version 2\.0, this release reads 1\.x"
    ):
        open_store(any_store.path)


def test_an_encoding_of_another_name_is_unknown(any_store: Any, change_json: Callable[..., None]) -> None:
    encoding = {"name": "lance", "version": "1.0"}
    change_json(any_store.path, "zarr.json", lambda group: manifest_in(group).update(encoding=encoding))
    with pytest.raises(UnknownEncodingError, match="encoding 'lance'"):
        open_store(any_store.path)


def test_a_later_minor_version_with_unknown_fields_opens(
    any_store: Any, change_json: Callable[..., None]
) -> None:
    def from_the_future(group: dict[str, Any]) -> None:
        manifest = manifest_in(group)
        manifest.update(format_version="1.7", mood="good")
        manifest["encoding"].update(version="1.3", flavour="vanilla")
        manifest["label_map"]["colour"] = [1, 2]

    change_json(any_store.path, "zarr.json", from_the_future)
    assert_same(open_store(any_store.path)[0], any_store.maps[0])


def test_the_digest_of_a_store_is_the_one_in_its_file(finished: Any) -> None:
    document = json.loads((finished.path / "complete.json").read_bytes())
    assert open_store(finished.path).digest == document["digest"]


def manifest_in(group: dict[str, Any]) -> dict[str, Any]:
    manifest: dict[str, Any] = group["attributes"]["relabel_store"]
    return manifest


# Damage

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "first byte": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "middle byte": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 64]) + data[len(data) // 2 + 1 :]
    ),
    "last byte": lambda data: data[:-1] + bytes([data[-1] ^ 16]),
    "truncated": lambda data: data[:-2],
    "halved": lambda data: data[: len(data) // 2],
    "headless": lambda data: data[1:],
    "appended": lambda data: data + b"\0",
    "emptied": lambda data: b"",
    "zeroed": lambda data: bytes(len(data)),
    "removed": lambda data: None,
}
EVERY_DAMAGE = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
SHARDS = [f"{array}/c/{part}/0/0/0" for array in ("indices", "values") for part in range(2)]


def do_damage(path: Path, damage: Callable[[bytes], bytes | None]) -> None:
    data = damage(path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)


def assert_no_other_labels(path: Path, maps: LabelMaps) -> None:
    """Check that every row is either right or an error of ours."""
    with contextlib.suppress(RelabelStoreError):
        store = open_store(path)
        for row in range(N):
            with contextlib.suppress(RelabelStoreError):
                label_map = store[row]
                assert label_map.sample_id == maps.sample_ids[row]
                assert_same(label_map, maps[row])


@EVERY_DAMAGE
@pytest.mark.parametrize("name", SHARDS)
def test_a_damaged_shard_is_named(finished: Any, name: str, damage: Callable[[bytes], bytes | None]) -> None:
    do_damage(finished.path / name, damage)
    row = 4 * int(name.split("/")[2])
    with pytest.raises(DamagedFileError, match=f"'{name}'"):
        open_store(finished.path)[row]


@pytest.mark.parametrize("damage", ["middle byte", "emptied", "removed"])
@pytest.mark.parametrize("name", SHARDS)
def test_rows_of_other_shards_are_served_beside_a_damaged_one(finished: Any, name: str, damage: str) -> None:
    do_damage(finished.path / name, DAMAGES[damage])
    others = [4, 5, 6, 7] if "/c/0/" in name else [0, 1, 2, 3]
    store = open_store(finished.path)
    with contextlib.suppress(DamagedFileError):
        store.read_rows(range(N))
    assert_same(
        store.read_rows(others), LabelMaps([], finished.maps.indices[others], finished.maps.values[others])
    )


@EVERY_DAMAGE
@pytest.mark.parametrize("name", SHARDS)
def test_a_damaged_shard_of_an_unfinished_store_is_named(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes | None]
) -> None:
    manifest = make_manifest(n=12)
    make_store(tmp_path / "store", np.random.default_rng(0), manifest, parts=[0, 1])
    do_damage(tmp_path / "store" / name, damage)
    with pytest.raises(DamagedFileError, match=f"'{name}'"):
        open_store(tmp_path / "store")[4 * int(name.split("/")[2])]


@EVERY_DAMAGE
@pytest.mark.parametrize("name", ["zarr.json", "samples.parquet", "indices/zarr.json", "values/zarr.json"])
def test_a_damaged_file_about_the_whole_store_is_named(
    finished: Any, name: str, damage: Callable[[bytes], bytes | None]
) -> None:
    do_damage(finished.path / name, damage)
    with pytest.raises(DamagedFileError, match=f"'{name}'"):
        open_store(finished.path)[0]


@pytest.mark.parametrize(
    "damage", [damage for name, damage in DAMAGES.items() if name != "removed"], ids=list(DAMAGES)[:-1]
)
def test_a_damaged_completion_is_named(finished: Any, damage: Callable[[bytes], bytes | None]) -> None:
    do_damage(finished.path / "complete.json", damage)
    with pytest.raises(DamagedFileError, match=r"'complete\.json'"):
        open_store(finished.path)


def test_a_store_that_lost_its_completion_is_unfinished(finished: Any) -> None:
    (finished.path / "complete.json").unlink()
    assert not open_store(finished.path).is_complete
    assert_no_other_labels(finished.path, finished.maps)


@EVERY_DAMAGE
@pytest.mark.parametrize("name", ["journal/part-00000.json", "journal/part-00001.json"])
def test_a_finished_store_is_read_without_its_journal(
    finished: Any, name: str, damage: Callable[[bytes], bytes | None]
) -> None:
    do_damage(finished.path / name, damage)  # complete.json repeats it
    assert_same(open_store(finished.path).read_rows(range(N)), finished.maps)


@EVERY_DAMAGE
@pytest.mark.parametrize(
    "name",
    [
        "zarr.json",
        "samples.parquet",
        "indices/zarr.json",
        "journal/part-00000.json",
        "journal/part-00000.parquet",
    ],
)
def test_damage_to_an_unfinished_store_never_gives_other_labels(
    unfinished: Any, name: str, damage: Callable[[bytes], bytes | None]
) -> None:
    do_damage(unfinished.path / name, damage)
    assert_no_other_labels(unfinished.path, unfinished.maps)


def test_every_flipped_byte_of_a_shard_is_noticed(finished: Any) -> None:
    shard = finished.path / "indices/c/0/0/0/0"
    data = shard.read_bytes()
    for offset in range(len(data)):
        shard.write_bytes(data[:offset] + bytes([data[offset] ^ 4]) + data[offset + 1 :])
        with pytest.raises(DamagedFileError):
            open_store(finished.path)[0]


@pytest.mark.parametrize("array", ["indices", "values"])
def test_shards_of_two_parts_that_changed_places_are_noticed(finished: Any, array: str) -> None:
    first, second = (finished.path / array / "c" / str(part) / "0/0/0" for part in range(2))
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    store = open_store(finished.path)
    for row in (0, 4):
        with pytest.raises(DamagedFileError, match=f"'{array}/c/{row // 4}/0/0/0'"):
            store[row]


def test_a_shard_of_another_store_is_noticed(finished: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    make_store(tmp_path / "other", rng)
    shutil.copy(tmp_path / "other/values/c/0/0/0/0", finished.path / "values/c/0/0/0/0")
    with pytest.raises(DamagedFileError, match="'values/c/0/0/0/0'"):
        open_store(finished.path)[0]


def test_the_shards_and_the_journal_of_another_store_are_noticed(
    finished: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    make_store(tmp_path / "other", rng)
    for name in ("indices", "values", "journal"):
        shutil.rmtree(finished.path / name)
        shutil.copytree(tmp_path / "other" / name, finished.path / name)
    with pytest.raises(DamagedFileError):
        open_store(finished.path)[0]


def test_the_sample_table_of_another_store_is_noticed(
    finished: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    make_store(tmp_path / "other", rng, make_manifest(n=7))
    shutil.copy(tmp_path / "other/samples.parquet", finished.path / "samples.parquet")
    with pytest.raises(DamagedFileError, match=r"'samples\.parquet'"):
        open_store(finished.path).row_of("cat/photo 0001")


def test_a_shard_damaged_after_it_was_read_is_not_read_again_wrongly(finished: Any) -> None:
    store = open_store(finished.path)
    store[0]
    shard = finished.path / "values/c/0/0/0/0"
    shard.write_bytes(b"")
    with pytest.raises(DamagedFileError):
        store[2]  # of the same shard, in a chunk that was not decoded yet


# Hostile completion records: their digest fits, what they say does not


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["files"].pop(name)


def in_first_part(**fields: Any) -> Callable[[dict[str, Any]], object]:
    def change(document: dict[str, Any]) -> None:
        document["parts"][0] = with_digest({**document["parts"][0], **fields})

    return change


HUGE = 10**30


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(without("zarr.json"), id="without the group"),
        pytest.param(without("samples.parquet"), id="without the samples"),
        pytest.param(without("indices/zarr.json"), id="without an array"),
        pytest.param(lambda document: document.update(files={}), id="without files"),
        pytest.param(lambda document: document.update(files=[]), id="files as list"),
        pytest.param(lambda document: document.update(parts={}), id="parts as object"),
        pytest.param(lambda document: document.update(parts=[]), id="without parts"),
        pytest.param(lambda document: document.update(parts=document["parts"][::-1]), id="parts backwards"),
        pytest.param(lambda document: document.update(parts=[None, 1]), id="parts of no kind"),
        pytest.param(in_first_part(part=HUGE), id="huge part"),
        pytest.param(in_first_part(part=-1), id="negative part"),
        pytest.param(in_first_part(part=1), id="two records of one part"),
        pytest.param(in_first_part(rows=[0, HUGE]), id="huge rows"),
        pytest.param(in_first_part(rows=[4, 0]), id="rows backwards"),
        pytest.param(in_first_part(files={}), id="part without files"),
        pytest.param(
            in_first_part(files={"../../secret": {"size_bytes": 1, "sha256": "0"}}), id="path with .."
        ),
        pytest.param(in_first_part(bad_images=[{"row": HUGE, "reason": ""}]), id="huge bad row"),
        pytest.param(in_first_part(bad_images=[{"row": "x", "reason": ""}]), id="bad row as text"),
        pytest.param(in_first_part(bad_images=[[[[]]]]), id="bad images as lists"),
        pytest.param(lambda document: document["files"]["zarr.json"].update(size_bytes=HUGE), id="huge size"),
        pytest.param(lambda document: document["files"]["zarr.json"].update(sha256=None), id="no digest"),
    ],
)
def test_a_hostile_completion_gives_errors_of_ours_and_no_other_labels(
    finished: Any, change_json: Callable[..., None], change: Callable[[dict[str, Any]], object]
) -> None:
    change_json(finished.path, "complete.json", change)
    assert_no_other_labels(finished.path, finished.maps)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param([], id="list"),
        pytest.param(None, id="null"),
        pytest.param({"digest": []}, id="digest as list"),
        pytest.param(with_digest({}), id="nothing but a digest"),
    ],
)
def test_a_completion_of_another_shape_is_damage(finished: Any, document: Any) -> None:
    (finished.path / "complete.json").write_bytes(canonical_json(document))
    with pytest.raises(DamagedFileError, match=r"'complete\.json'"):
        open_store(finished.path)


@pytest.mark.parametrize("name", ["complete.json", "zarr.json"])
def test_json_that_is_nested_without_end_is_an_error_of_ours(unfinished: Any, name: str) -> None:
    (unfinished.path / name).write_bytes(b'{"a":' * 100_000)
    with pytest.raises(FormatError, match=name):
        open_store(unfinished.path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_manifest_with_a_number_that_json_cannot_say_is_refused(unfinished: Any, number: str) -> None:
    path = unfinished.path / "zarr.json"
    path.write_text(path.read_text().replace('"mean":[0.5', f'"mean":[{number}'))
    with pytest.raises(FormatError):
        open_store(unfinished.path)


@pytest.mark.parametrize("rows", [range(8), range(4, 8), range(3)], ids=["too many", "another's", "too few"])
def test_a_record_of_other_rows_is_no_part_of_the_store(
    tmp_path: Path, rng: np.random.Generator, rows: range
):
    make_store(tmp_path / "s", rng, parts=[0])
    path = tmp_path / "s" / "journal" / "part-00000.json"
    record = PartRecord.from_json(json.loads(path.read_bytes()))
    path.write_bytes(replace(record, rows=rows).to_bytes())
    assert dict(open_store(tmp_path / "s").parts) == {}
    assert StoreWriter.resume(tmp_path / "s").missing_parts() == [0, 1]


def test_a_completion_with_the_records_of_another_store_is_refused(tmp_path: Path, rng: np.random.Generator):
    make_store(tmp_path / "s", rng)
    completion = read_completion(LocalFiles(tmp_path / "s"))
    parts = {part: replace(record, rows=range(4)) for part, record in completion.parts.items()}
    (tmp_path / "s" / "complete.json").write_bytes(replace(completion, parts=parts).to_bytes())
    with pytest.raises(FormatError, match="records of 2 parts, 1 of them of this store, expected 2"):
        open_store(tmp_path / "s")


# What a finished store says of itself, its digests all right, and contradicts


@pytest.mark.parametrize("read", [lambda store: store[1], lambda store: store.load()], ids=["a row", "all"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_reader_returns_a_class_that_the_teacher_does_not_have(
    finished: Any, encoding: str, change_json: Callable[..., None], read: Callable[[Any], Any]
) -> None:
    name = "zarr.json" if encoding == "zarr" else "complete.json"

    def take_away_a_class(document: dict[str, Any]) -> None:
        manifest = document["attributes"]["relabel_store"] if encoding == "zarr" else document["manifest"]
        manifest["label_map"]["num_classes"] = 2
        manifest["classes"].update(Classes.of(None, ["cat", "dog"], "test").__dict__)
        cells = manifest["statistics"]["labelled"] * 9
        manifest["statistics"]["winning_cells"] = [cells, 0]

    change_json(finished.path, name, take_away_a_class)
    with pytest.raises(
        FormatError,
        match=r"class index [234] in row [0-9], expected below 2|a map of 5 classes, expected at most 2",
    ):
        read(open_store(finished.path))


def test_a_row_that_only_its_record_calls_labelled_is_not_returned(
    tmp_path: Path, rng: np.random.Generator, change_json: Callable[..., None]
) -> None:
    make_store(tmp_path / "store", rng, bad_images={2: "cut off"})
    change_json(
        tmp_path / "store", "complete.json", lambda document: document["parts"][0].update(bad_images=[])
    )
    with pytest.raises(FormatError, match="class index 65535 in row 2, expected below 5"):
        open_store(tmp_path / "store")[2]


def test_arrays_that_the_manifest_does_not_know_are_not_ignored(
    tmp_path: Path, rng: np.random.Generator, change_json: Callable[..., None]
) -> None:
    make_store(tmp_path / "store", rng, make_manifest(absent=AbsentRule.REST))
    change_json(
        tmp_path / "store",
        "zarr.json",
        lambda document: document["attributes"]["relabel_store"]["label_map"].update(absent="zero"),
    )
    with pytest.raises(DamagedFileError, match=r"record of part 0: lists .*'rest/c/0/0/0'"):
        open_store(tmp_path / "store")[0]


@pytest.mark.parametrize("what", SAMPLE_CHANGES)
def test_a_sample_table_of_other_rows_is_refused(finished: Any, what: str) -> None:
    digest = open_store(finished.path).digest
    data = change_samples(finished.path / "samples.parquet", SAMPLE_CHANGES[what])
    assert data is not None
    forge_file("samples.parquet", data, finished.path)
    rows = from_parquet(data, SCHEMA)["row"].to_pylist()
    if rows != list(range(N)):
        with pytest.raises(
            FormatError, match=r"'samples.parquet': \d samples of rows .*, expected 8 of rows 0"
        ):
            open_store(finished.path)[0]
    else:  # another store, and its digest says so
        assert open_store(finished.path).digest != digest


@pytest.mark.parametrize("encoding", ["parquet"])
def test_a_damaged_part_does_not_keep_the_samples_of_others_from_being_read(
    finished: Any, encoding: str
) -> None:
    (finished.path / "made-up-00001-of-00002.parquet").write_bytes(b"")
    store = open_store(finished.path)
    assert list(store.read_rows(range(4)).sample_ids) == finished.maps.sample_ids[:4]
    with pytest.raises(DamagedFileError, match=r"'made-up-00001-of-00002\.parquet'"):
        store.samples  # noqa: B018 - reads it

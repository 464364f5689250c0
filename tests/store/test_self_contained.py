"""What holds for every encoding whose files of parts hold their samples."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relabel_store import spec
from relabel_store.canonical import canonical_json, with_digest
from relabel_store.errors import DamagedFileError, FormatError, RelabelStoreError, StoreNotFoundError
from relabel_store.labels.maps import LabelMaps
from relabel_store.manifest import Compression, Encoding, Manifest, State
from relabel_store.store import commit
from relabel_store.store.encodings import ENCODINGS, encoding_named_by
from relabel_store.store.local_files import LocalFiles
from relabel_store.store.occupied import is_store
from relabel_store.store.reader import open_store
from relabel_store.store.self_contained import name_of_part
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_samples, make_store

SUFFIXES = {spec.ENCODING_PARQUET: ".parquet", spec.ENCODING_PACKED: ".zip"}


@pytest.fixture(params=SUFFIXES)
def encoding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def parts(encoding: str) -> list[str]:
    """The names of the files of parts."""
    return [f"made-up-0000{part}-of-00002{SUFFIXES[encoding]}" for part in range(2)]


def assert_same(found: LabelMaps, expected: LabelMaps) -> None:
    assert found.sample_ids == expected.sample_ids
    for name in ("indices", "values", "rest"):
        if getattr(expected, name) is None:
            assert getattr(found, name) is None
        else:
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)


def test_these_are_all_encodings_of_the_kind() -> None:
    assert {name for name, encoding in ENCODINGS.items() if encoding.is_self_contained} == set(SUFFIXES)


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("a/labels.packed", "packed"),
        ("s3://bucket/labels.packed/", "packed"),
        ("labels.parquet", "parquet"),
        ("labels.zarr", "zarr"),
        ("labels.packed.zarr", "zarr"),
        ("packed", "zarr"),
        ("labels", "zarr"),
    ],
)
def test_the_end_of_a_name_asks_for_an_encoding(location: str, name: str) -> None:
    assert encoding_named_by(location) == name


def test_a_finished_store_is_its_parts_and_its_completion(finished: Any, parts: list[str]) -> None:
    assert sorted(path.name for path in finished.path.iterdir()) == ["complete.json", *parts]


def test_an_unfinished_store_keeps_its_journal(unfinished: Any) -> None:
    assert is_store(unfinished.path)
    assert not open_store(unfinished.path).is_complete
    assert (unfinished.path / "journal/part-00000.json").exists()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("train", "train-00000-of-00002.zip"),
        ("my photos/2026", "my-photos-2026-00000-of-00002.zip"),
        ("../..", "labels-00000-of-00002.zip"),
        ("日本", "labels-00000-of-00002.zip"),
    ],
)
def test_files_are_named_after_the_store(name: str, file: str) -> None:
    assert name_of_part(replace(make_manifest(), name=name), 0, ".zip") == file


def test_the_manifest_of_the_whole_is_in_the_completion_record(finished: Any) -> None:
    document = json.loads((finished.path / "complete.json").read_bytes())
    assert Manifest.from_dict(document["manifest"]) == open_store(finished.path).manifest
    assert document["manifest"]["state"] == State.COMPLETE.value


def test_a_store_holds_what_a_zarr_store_does(originals: dict[str, Any], encoding: str) -> None:
    zarr, other = (open_store(originals[name].path) for name in (spec.ENCODING_ZARR, encoding))
    assert_same(other.read_rows(range(8)), zarr.read_rows(range(8)))
    assert other.samples.equals(zarr.samples)
    assert other.manifest.statistics == zarr.manifest.statistics


def test_a_store_is_decoded_into_memory_and_into_a_cache(finished: Any, tmp_path: Path) -> None:
    store = open_store(finished.path)
    for decoded in (store.load(), store.materialize(tmp_path / "cache")):
        assert_same(decoded.read_rows(range(8)), finished.maps)
        assert decoded.samples.equals(store.samples)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("value_step", [0.125, "exact"])
def test_a_fast_store_holds_the_same_and_says_so(
    tmp_path: Path, rng: np.random.Generator, encoding: str, value_step: float | str
) -> None:
    manifest = replace(make_manifest(value_step=value_step), encoding=Encoding.of(encoding, Compression.FAST))
    maps = make_store(tmp_path / "store", rng, manifest)
    store = open_store(tmp_path / "store")
    assert_same(store.read_rows(range(8)), maps)
    assert_same(store.load().read_rows(range(8)), maps)
    assert store.manifest.to_dict()["encoding"]["compression"] == "fast"


def test_a_row_without_a_label_keeps_its_place_and_its_reason(
    tmp_path: Path, rng: np.random.Generator, encoding: str
) -> None:
    manifest = make_manifest(encoding=encoding)
    maps = make_store(tmp_path / "s", rng, manifest, bad_images={5: "is a cake"})
    store = open_store(tmp_path / "s")
    assert store.bad_images == {5: "is a cake"}
    with pytest.raises(RelabelStoreError, match="is a cake"):
        store[5]
    good = [0, 1, 2, 3, 4, 6, 7]
    for opened in (store, store.load()):
        np.testing.assert_array_equal(opened.read_rows(good).indices, maps.indices[good])
    assert store.samples["status"].to_pylist() == [*5 * ["labelled"], "bad-image", *2 * ["labelled"]]


def test_a_part_of_bad_images_only_is_a_file_all_the_same(
    tmp_path: Path, rng: np.random.Generator, encoding: str
) -> None:
    manifest = make_manifest(encoding=encoding)
    maps = make_store(tmp_path / "s", rng, manifest, bad_images=dict.fromkeys(range(4), "is a cake"))
    np.testing.assert_array_equal(open_store(tmp_path / "s").load()[7].values, maps.values[7])


# Damage


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


@pytest.mark.parametrize("file", ["complete.json", "part"])
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
    finished: Any, parts: list[str], file: str, damage: Callable[[bytes], bytes | None]
) -> None:
    path = finished.path / (parts[0] if file == "part" else file)
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
    for damaged in (lambda: store[0], lambda: store.samples, store.load):
        with pytest.raises(DamagedFileError, match=parts[0]):
            damaged()


def test_parts_that_changed_places_are_noticed(finished: Any, parts: list[str]) -> None:
    first, second = (finished.path / part for part in parts)
    first.rename(finished.path / "aside")
    second.rename(first)
    (finished.path / "aside").rename(second)
    with pytest.raises(DamagedFileError, match=parts[0]):
        open_store(finished.path)[0]


@pytest.mark.parametrize(
    "other", [{"grid": (2, 2)}, {"chunk_rows": 4}, {"k": 1}], ids=["cells", "chunks", "ranks"]
)
def test_a_part_of_another_store_is_refused_even_where_its_digest_is_right(
    finished: Any, tmp_path: Path, rng: np.random.Generator, encoding: str, other: dict[str, Any]
) -> None:
    make_store(tmp_path / "other", rng, make_manifest(**other, encoding=encoding))
    document = json.loads((tmp_path / "other/complete.json").read_bytes())
    document["manifest"] = json.loads((finished.path / "complete.json").read_bytes())["manifest"]
    (tmp_path / "other/complete.json").write_bytes(canonical_json(with_digest(document)))
    store = open_store(tmp_path / "other")
    for read in (lambda: store[0], store.load):
        with pytest.raises(FormatError, match="made-up-0000"):
            read()


def test_part_files_alone_are_no_store_and_the_message_says_what_is_missing(finished: Any) -> None:
    (finished.path / "complete.json").unlink()
    with pytest.raises(
        StoreNotFoundError, match=r"parts of a (Parquet|packed) store without 'complete\.json'"
    ):
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


def test_a_store_of_another_encoding_is_not_begun_beside(unfinished: Any, encoding: str) -> None:
    manifest = make_manifest()
    writer = StoreWriter.begin(unfinished.path, manifest, make_samples(manifest))
    # What is there is gone on with; `build` compares the two.
    assert writer.manifest.encoding.name == encoding


def test_a_copied_store_is_the_same_store(finished: Any, tmp_path: Path) -> None:
    shutil.copytree(finished.path, tmp_path / "copy")
    assert open_store(tmp_path / "copy").digest == open_store(finished.path).digest

from __future__ import annotations

import gc
import json
import logging
import multiprocessing
import operator
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relabel_store.canonical import canonical_json, with_digest
from relabel_store.errors import (
    CacheError,
    DamagedFileError,
    NoLabelError,
    NotEnoughSpaceError,
    OptionError,
    SampleNotFoundError,
    UnfinishedStoreError,
)
from relabel_store.labels.maps import LabelMaps
from relabel_store.manifest import AbsentRule
from relabel_store.store import cache
from relabel_store.store.cache import (
    MaterializedStore,
    default_cache_dir,
    find_entries,
    list_entries,
    materialize_store,
    remove_entry,
)
from relabel_store.store.encoded import EncodedStore
from relabel_store.store.reader import LabelStore, open_store
from relabel_store.store.writer import StoreWriter
from relabel_store.store.zarr_v1 import ZarrArrays
from relabel_store.testing import make_manifest, make_part, make_sample_ids, make_samples, make_store

N = 11
BAD = {3: "truncated"}


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator) -> EncodedStore:
    make_store(tmp_path / "s.zarr", rng, make_manifest(N, absent=AbsentRule.REST), bad_images=BAD)
    return open_store(tmp_path / "s.zarr")


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def assert_same_maps(found: LabelStore, expected: LabelStore) -> None:
    rows = [row for row in range(len(expected)) if expected.has_label(row)]
    one, other = found.read_rows(rows), expected.read_rows(rows)
    assert one.sample_ids == other.sample_ids
    for name in ("indices", "values", "rest"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)


@pytest.mark.parametrize("form", ["materialize", "load", "materialize and load"])
def test_a_decoded_store_is_the_same_store(form: str, store: EncodedStore, cache_dir: Path) -> None:
    decoded: LabelStore = store
    if "materialize" in form:
        decoded = decoded.materialize(cache_dir)
    if "load" in form:
        decoded = decoded.load()
    assert_same_maps(decoded, store)
    assert decoded.manifest == store.manifest
    assert (decoded.digest, len(decoded), decoded.grid, decoded.k) == (store.digest, N, store.grid, store.k)
    assert decoded.samples.equals(store.samples)
    assert decoded.bad_images == BAD
    assert decoded.is_complete
    assert decoded.row_of(store[5].sample_id) == 5
    assert [found.sample_id for found in decoded] == [found.sample_id for found in store]
    assert decoded.materialize() is decoded
    assert repr(decoded) == repr(store).replace("EncodedStore", "LabelStore")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(rows=st.lists(st.sampled_from([row for row in range(-N, N) if row % N != 3])))
def test_rows_come_in_the_order_asked(rows: list[int], store: EncodedStore, tmp_path: Path) -> None:
    decoded = store.materialize(tmp_path / "cache")
    found, expected = decoded.read_rows(rows), store.read_rows(rows)
    assert found.sample_ids == expected.sample_ids
    np.testing.assert_array_equal(found.indices, expected.indices, strict=True)
    np.testing.assert_array_equal(found.values, expected.values, strict=True)


@pytest.mark.parametrize("form", ["materialize", "load"])
def test_errors_are_those_of_the_store(form: str, store: EncodedStore, cache_dir: Path) -> None:
    decoded = store.materialize(cache_dir) if form == "materialize" else store.load()
    with pytest.raises(NoLabelError, match="truncated"):
        decoded[3]
    with pytest.raises(IndexError, match="row 11"):
        decoded.read_rows([0, 11])
    with pytest.raises(SampleNotFoundError):
        decoded.row_of("nobody")
    with pytest.raises(TypeError, match="float"):
        decoded.read_rows([0.5])


def test_what_is_read_can_be_written_to_and_changes_nothing(store: EncodedStore, cache_dir: Path) -> None:
    decoded = store.materialize(cache_dir)
    decoded.read_rows([0]).values[:] = 0
    assert_same_maps(decoded, store)


@pytest.mark.parametrize("value_step", [0.125, "exact"])
def test_every_encoding_of_values_is_decoded(
    value_step: float | str, tmp_path: Path, cache_dir: Path, rng: np.random.Generator
) -> None:
    manifest = make_manifest(9, value_step=value_step, num_classes=70_000, shard_rows=4, chunk_rows=2)
    shape = (9, manifest.label_map.k, *manifest.label_map.grid)
    values = np.sort(rng.integers(0, 80, shape) / 8, axis=1)[:, ::-1].astype(np.float16)
    indices = np.arange(np.prod(shape)).reshape(shape).astype(np.uint32) * 400
    maps = LabelMaps(make_sample_ids(9), indices, values)
    writer = StoreWriter.begin(tmp_path / "w.zarr", manifest, make_samples(manifest))
    for part in range(manifest.num_parts):
        writer.write_part(part, make_part(manifest, maps, part))
    writer.complete()
    decoded = open_store(tmp_path / "w.zarr").materialize(cache_dir)
    np.testing.assert_array_equal(decoded.read_rows(range(9)).indices, indices, strict=True)
    np.testing.assert_array_equal(decoded.read_rows(range(9)).values, values, strict=True)


def test_other_codecs_are_read_through_zarr(
    store: EncodedStore, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ZarrArrays, "_is_encoded_as_ours", lambda *_: False)
    assert_same_maps(store.materialize(cache_dir), store)


def test_a_store_is_decoded_once(
    store: EncodedStore, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = materialize_store(store, cache_dir)
    monkeypatch.setattr(cache, "for_each_part", lambda *_: pytest.fail("decoded again"))
    assert materialize_store(open_store(store.files.path), cache_dir).path == first.path
    assert [path.name for path in cache_dir.iterdir()] == [first.path.name]


def test_it_says_beforehand_what_it_takes(
    store: EncodedStore, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "relabel_store"):
        store.materialize(cache_dir)
    assert f"decoding {N} label maps of 'made-up' into {cache_dir}" in caplog.text
    assert "GB free" in caplog.text


def test_too_little_space_is_said_before_anything_is_written(
    store: EncodedStore, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(NotEnoughSpaceError, match=r"GB free, .* GB needed .*RELABEL_STORE_CACHE.*load\(\)"):
        store.materialize(cache_dir)
    assert not [path for path in cache_dir.iterdir() if path.is_dir()]


def test_a_disk_that_fills_up_leaves_nothing(
    store: EncodedStore, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "pwrite", full)
        with pytest.raises(NotEnoughSpaceError, match="another cache_dir"):
            store.materialize(cache_dir)
    assert not [path for path in cache_dir.iterdir() if path.is_dir()]
    assert_same_maps(store.materialize(cache_dir), store)


def test_a_directory_that_cannot_be_written_to_is_named(store: EncodedStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match=r"cache .*file.*another cache_dir"):
        store.materialize(tmp_path / "file" / "cache")


def test_a_read_only_cache_with_the_entry_is_read(
    store: EncodedStore, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.materialize(cache_dir)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "hold_lock", refuse)
    monkeypatch.setattr(cache.os, "utime", refuse)
    assert_same_maps(store.materialize(cache_dir), store)


def damage_version(entry: Path) -> None:
    document = json.loads((entry / "cache.json").read_text())
    (entry / "cache.json").write_text(json.dumps({**document, "version": 99}))


def truncate(entry: Path) -> None:
    data = (entry / "values.npy").read_bytes()
    (entry / "values.npy").write_bytes(data[:-10])


def change_header(entry: Path) -> None:
    data = (entry / "values.npy").read_bytes()
    (entry / "values.npy").write_bytes(data.replace(b"'<f2'", b"'<i2'"))


def remove_array(entry: Path) -> None:
    (entry / "indices.npy").unlink()


def empty_record(entry: Path) -> None:
    (entry / "cache.json").write_text("")


def other_store(entry: Path) -> None:
    document = json.loads((entry / "cache.json").read_text())
    document["store_digest"] = "sha256:" + "0" * 64
    (entry / "cache.json").write_bytes(canonical_json(with_digest(document)))


def edit_record(entry: Path) -> None:
    text = (entry / "cache.json").read_text()
    (entry / "cache.json").write_text(text.replace('"made-up"', '"made-uq"'))


def put_a_file(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.write_text("in its place")


def garble_samples(entry: Path) -> None:
    path = entry / "samples.arrow"
    path.write_bytes(b"x" * path.stat().st_size)


@pytest.mark.parametrize(
    "damage",
    [
        damage_version,
        truncate,
        change_header,
        remove_array,
        empty_record,
        other_store,
        edit_record,
        put_a_file,
        garble_samples,
    ],
    ids=lambda damage: damage.__name__,
)
def test_an_entry_that_cannot_be_used_is_made_again(
    damage: Any, store: EncodedStore, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = materialize_store(store, cache_dir).path
    damage(entry)
    assert_same_maps(store.materialize(cache_dir), store)
    assert caplog.text.count("cannot be used and is made again") == 1


def test_verify_finds_ids_that_changed_places(
    store: EncodedStore, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = materialize_store(store, cache_dir).path / "samples.arrow"
    ids = store.samples["sample_id"].to_pylist()
    first, second = ids[0].encode(), ids[1].encode()
    data = path.read_bytes()
    assert len(first) == len(second)
    path.write_bytes(
        data.replace(first, b"\1" * len(first)).replace(second, first).replace(b"\1" * len(first), second)
    )
    assert store.materialize(cache_dir).row_of(ids[0]) == 1
    assert store.materialize(cache_dir, verify=True).row_of(ids[0]) == 0
    assert "samples.arrow is not what was written" in caplog.text


def test_entries_of_two_releases_lie_side_by_side(
    store: EncodedStore, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = materialize_store(store, cache_dir)
    monkeypatch.setattr(cache, "_VERSION", 99)
    theirs = materialize_store(store, cache_dir)
    assert theirs.path != ours.path
    assert sorted(entry.name for entry in list_entries(cache_dir)) == ["", "made-up"]
    monkeypatch.undo()
    assert pickle.loads(pickle.dumps(ours)).digest == store.digest
    assert sorted(entry.name for entry in list_entries(cache_dir)) == ["", "made-up"]


def test_a_relative_directory_is_found_from_another(
    store: EncodedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(Path(store.files.path).absolute())
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    data = pickle.dumps(store.materialize("cache"))
    monkeypatch.chdir(tmp_path)
    assert_same_maps(pickle.loads(data), store)


def test_an_entry_that_was_cleared_is_named(store: EncodedStore, cache_dir: Path) -> None:
    decoded = materialize_store(store, cache_dir)
    data = pickle.dumps(decoded)
    shutil.rmtree(decoded.path)
    with pytest.raises(CacheError, match="it is gone; materialize the store again"):
        pickle.loads(data)


def test_a_store_that_may_not_be_read_is_not_the_cache_s_fault(
    store: EncodedStore, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = str(store.files.path / "values" / "c" / "0")

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", shard)

    monkeypatch.setattr(EncodedStore, "decode_part", refuse)
    with pytest.raises(PermissionError) as caught:
        store.materialize(cache_dir)
    assert caught.value.filename == shard
    assert not isinstance(caught.value, CacheError)


def test_verify_finds_a_flipped_bit(
    store: EncodedStore, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = materialize_store(store, cache_dir).path
    data = bytearray((entry / "values.npy").read_bytes())
    data[-3] ^= 4
    (entry / "values.npy").write_bytes(data)
    store.materialize(cache_dir)
    assert "made again" not in caplog.text
    assert_same_maps(store.materialize(cache_dir, verify=True), store)
    assert "of values.npy are not what was written" in caplog.text
    caplog.clear()
    store.materialize(cache_dir, verify=True)
    assert not caplog.text


def test_a_damaged_store_makes_no_entry(store: EncodedStore, cache_dir: Path) -> None:
    shard = next(path for path in (store.files.path / "values" / "c").rglob("*") if path.is_file())
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedFileError, match="SHA-256"):
        open_store(store.files.path).materialize(cache_dir)
    assert not [path for path in cache_dir.iterdir() if path.is_dir()]


def test_an_unfinished_store_can_be_loaded_but_not_materialized(
    tmp_path: Path, cache_dir: Path, rng: np.random.Generator
) -> None:
    make_store(tmp_path / "half.zarr", rng, parts=[1])
    store = open_store(tmp_path / "half.zarr")
    with pytest.raises(UnfinishedStoreError, match="1 of 2 parts are built"):
        store.materialize(cache_dir)
    loaded = store.load()
    assert_same_maps(loaded, store)
    assert not loaded.is_complete
    with pytest.raises(NoLabelError, match="part is not built"):
        loaded[0]


def test_a_materialized_store_is_pickled_by_its_place(store: EncodedStore, cache_dir: Path) -> None:
    pickled = pickle.dumps(store.materialize(cache_dir))
    assert len(pickled) < 500
    assert_same_maps(pickle.loads(pickled), store)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_other_processes_read_it(start: str, store: EncodedStore, cache_dir: Path) -> None:
    decoded = store.materialize(cache_dir)
    read = operator.methodcaller(
        "read_rows", [0, 7]
    )  # a function of this file is unknown to a spawned process
    with multiprocessing.get_context(start).Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(read, (decoded,)).values, read(store).values)


MATERIALIZE = r"""
import os, sys, time
from relabel_store.store import cache
from relabel_store.store.reader import open_store
if "slow" in sys.argv:
    write = cache._ArrayWriter.put
    def put(self, rows, found):
        write(self, rows, found)
        os.write(1, b"writing\n")
        time.sleep(1.5 if "finish" in sys.argv else 60)
    cache._ArrayWriter.put = put
print(cache.materialize_store(open_store(sys.argv[1]), sys.argv[2]).path)
"""


def start(store: EncodedStore, cache_dir: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-c", MATERIALIZE, str(store.files.path), str(cache_dir), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_an_entry_whose_maker_is_killed_is_made_by_the_next(store: EncodedStore, cache_dir: Path) -> None:
    maker = start(store, cache_dir, "slow")
    assert maker.stdout is not None
    assert maker.stdout.readline() == "writing\n"
    os.kill(maker.pid, signal.SIGKILL)
    maker.wait()
    maker.stdout.close()
    assert list(cache_dir.glob(".*.partial"))
    assert_same_maps(store.materialize(cache_dir), store)
    assert not list(cache_dir.glob(".*.partial"))


def test_what_a_killed_maker_left_is_listed_and_removed(store: EncodedStore, cache_dir: Path) -> None:
    maker = start(store, cache_dir, "slow")
    assert maker.stdout is not None
    assert maker.stdout.readline() == "writing\n"
    os.kill(maker.pid, signal.SIGKILL)
    maker.wait()
    maker.stdout.close()
    (entry,) = list_entries(cache_dir)
    assert (entry.name, entry.digest) == ("", "")
    assert entry.size_bytes > 0
    remove_entry(entry)
    assert list(cache_dir.iterdir()) == []


def test_two_processes_make_one_entry(store: EncodedStore, cache_dir: Path) -> None:
    maker = start(store, cache_dir, "slow", "finish")
    assert maker.stdout is not None
    assert maker.stdout.readline() == "writing\n"
    started = time.monotonic()
    decoded = materialize_store(store, cache_dir)  # waits
    assert time.monotonic() - started > 0.5
    rest, _ = maker.communicate()
    assert rest.splitlines()[-1] == str(decoded.path)
    assert rest.count("writing") == 8  # three arrays in three parts, the first line read above
    assert_same_maps(decoded, store)


def test_the_cache_lies_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELABEL_STORE_CACHE", str(tmp_path / "there"))
    assert default_cache_dir() == tmp_path / "there"
    monkeypatch.delenv("RELABEL_STORE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir().name == "relabel-store"


def test_entries_are_listed_found_and_removed(
    store: EncodedStore, tmp_path: Path, cache_dir: Path, rng: np.random.Generator
) -> None:
    make_store(tmp_path / "other.zarr", rng, make_manifest(5))
    first = materialize_store(store, cache_dir)
    second = materialize_store(open_store(tmp_path / "other.zarr"), cache_dir)
    os.utime(first.path, (1, 1))
    (cache_dir / "not ours").mkdir()
    (cache_dir / "not ours" / "cache.json").write_text("{}")
    assert [(entry.path, entry.num_samples) for entry in list_entries(cache_dir)] == [
        (second.path, 5),
        (first.path, N),
    ]
    (found,) = find_entries([str(store.files.path)], cache_dir)
    assert find_entries([first.path.name[:10]], cache_dir) == [found]
    with pytest.raises(OptionError, match="fits 0 entries"):
        find_entries(["zzz"], cache_dir)
    make_store(tmp_path / "third.zarr", rng, make_manifest(7))
    assert find_entries([str(tmp_path / "third.zarr")], cache_dir) == []  # a store that is not materialized
    assert_same_maps(first, store)
    remove_entry(found)
    assert [entry.path for entry in list_entries(cache_dir)] == [second.path]
    assert (cache_dir / "not ours").exists()
    assert_same_maps(first, store)  # who has it open keeps it


def test_no_directory_is_an_empty_cache(tmp_path: Path) -> None:
    assert list_entries(tmp_path / "nothing") == []


def test_a_damaged_entry_can_be_removed(store: EncodedStore, cache_dir: Path) -> None:
    empty_record(materialize_store(store, cache_dir).path)
    (entry,) = list_entries(cache_dir)
    assert entry.name == ""
    remove_entry(entry)
    assert list_entries(cache_dir) == []


def test_a_store_that_moved_still_finds_its_entry(
    store: EncodedStore, cache_dir: Path, tmp_path: Path
) -> None:
    first = materialize_store(store, cache_dir)
    shutil.move(store.files.path, tmp_path / "moved.zarr")
    assert materialize_store(open_store(tmp_path / "moved.zarr"), cache_dir).path == first.path


def test_the_sample_table_is_mapped_not_loaded(
    tmp_path: Path, cache_dir: Path, rng: np.random.Generator
) -> None:
    make_store(tmp_path / "s.zarr", rng, make_manifest(5000, shard_rows=5000, chunk_rows=500))
    entry = materialize_store(open_store(tmp_path / "s.zarr"), cache_dir).path
    gc.collect()
    before = pa.total_allocated_bytes()
    decoded = MaterializedStore(entry)
    decoded.read_rows(range(10))
    assert pa.total_allocated_bytes() - before < decoded.samples.nbytes / 20

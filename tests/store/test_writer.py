from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel_store.errors import (
    DamagedFileError,
    FormatError,
    NoLabelError,
    NotEnoughSpaceError,
    RelabelStoreError,
    StoreNotFoundError,
    TargetExistsError,
)
from relabel_store.labels.maps import LabelMaps
from relabel_store.manifest import AbsentRule, Classes, Manifest, State
from relabel_store.store import writer as writer_module
from relabel_store.store.complete import read_completion
from relabel_store.store.encodings import ENCODINGS
from relabel_store.store.files import FileEntry
from relabel_store.store.journal import BadImage, facts_path, read_journal
from relabel_store.store.local_files import LocalFiles
from relabel_store.store.occupied import is_store, require_free_target
from relabel_store.store.part_labels import PartLabels
from relabel_store.store.reader import open_store
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_samples, make_store

N = 8
ReadTree = Callable[[Path], dict[str, bytes]]
DyingAt = Callable[[int], contextlib.AbstractContextManager[list[str]]]


def begin(path: Path, manifest: Manifest | None = None) -> StoreWriter:
    manifest = make_manifest() if manifest is None else manifest
    return StoreWriter.begin(path, manifest, make_samples(manifest))


def write_all(writer: StoreWriter, maps: LabelMaps) -> None:
    for part in writer.missing_parts():
        writer.write_part(part, make_part(writer.manifest, maps, part))
    writer.complete()


def other_maps(manifest: Manifest) -> LabelMaps:
    return make_label_maps(np.random.default_rng(1), manifest)


# Beginning


def test_a_store_that_was_begun_is_a_store(tmp_path: Path) -> None:
    begin(tmp_path / "store")
    assert is_store(tmp_path / "store")
    assert StoreWriter.resume(tmp_path / "store").missing_parts() == [0, 1]


def test_an_empty_folder_becomes_a_store(tmp_path: Path) -> None:
    begin(tmp_path)
    assert is_store(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(
            lambda path: path.write_bytes(b"x"),
            "is a file, expected a store or a path that is free",
            id="file",
        ),
        pytest.param(
            lambda path: path.symlink_to("nowhere"), "expected a store or a path", id="dangling link"
        ),
        pytest.param(
            lambda path: (path / "photos").mkdir(parents=True),
            "holds 1 things that are no part of a store, 'photos' first",
            id="folder of others",
        ),
    ],
)
def test_a_target_that_is_taken_is_refused(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "store")
    with pytest.raises(TargetExistsError, match=message):
        begin(tmp_path / "store")


def test_a_refused_target_is_left_as_it_was(tmp_path: Path, read_tree: ReadTree) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(TargetExistsError):
        begin(tmp_path)
    assert read_tree(tmp_path) == {"photo.jpg": b"x"}


def test_leftovers_of_a_killed_begin_do_not_block_the_target(tmp_path: Path) -> None:
    (tmp_path / ".samples.parquet.0123.partial").write_bytes(b"half")
    (tmp_path / "samples.parquet").write_bytes(b"x")
    require_free_target(tmp_path)


@pytest.mark.parametrize("parts", [None, [0]], ids=["finished", "unfinished"])
def test_beginning_where_a_store_is_does_not_change_it(
    tmp_path: Path, rng: np.random.Generator, read_tree: ReadTree, parts: list[int] | None
) -> None:
    make_store(tmp_path / "store", rng, parts=parts)
    before = read_tree(tmp_path / "store")
    with contextlib.suppress(TargetExistsError):
        begin(tmp_path / "store", make_manifest(n=6))
    assert read_tree(tmp_path / "store") == before


def test_a_journal_without_a_manifest_is_not_taken_over_by_another_store(finished: Any) -> None:
    (finished.path / "zarr.json").unlink()
    with pytest.raises(RelabelStoreError):
        begin(finished.path, make_manifest(num_classes=7))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda path: None, "there is no store here", id="missing path"),
        pytest.param(lambda path: path.mkdir(), "there is no store here", id="empty folder"),
        pytest.param(lambda path: path.write_bytes(b"x"), "there is no store here", id="file"),
    ],
)
def test_resuming_where_no_store_is_is_refused(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "store")
    with pytest.raises(StoreNotFoundError, match=message):
        StoreWriter.resume(tmp_path / "store")


def test_resuming_a_sample_table_of_another_length_is_refused(unfinished: Any, tmp_path: Path) -> None:
    begin(tmp_path / "other", make_manifest(n=7))
    shutil.copy(tmp_path / "other/samples.parquet", unfinished.path / "samples.parquet")
    with pytest.raises(DamagedFileError, match=r"'samples.parquet': is not what the build began with"):
        StoreWriter.resume(unfinished.path)
    (unfinished.path / "journal/running/begun.json").unlink()
    with pytest.raises(FormatError, match="7 samples of rows 0 to 6, expected 8"):
        StoreWriter.resume(unfinished.path)


# Parts


def test_a_part_is_missing_until_it_is_written(tmp_path: Path, rng: np.random.Generator) -> None:
    writer = begin(tmp_path / "store")
    writer.write_part(1, make_part(writer.manifest, make_label_maps(rng, writer.manifest), 1))
    assert writer.missing_parts() == [0]


def test_the_record_of_a_part_is_the_one_in_the_journal(tmp_path: Path, rng: np.random.Generator) -> None:
    writer = begin(tmp_path / "store")
    labels = make_part(writer.manifest, make_label_maps(rng, writer.manifest), 1, {6: "no image"})
    record = writer.write_part(1, replace(labels, exif_oriented=3))
    assert writer.records() == {1: record}
    assert (record.rows, record.bad_images, record.exif_oriented) == (
        range(4, 8),
        (BadImage(6, "no image"),),
        3,
    )


def test_the_second_writer_of_a_part_is_dropped(
    tmp_path: Path, rng: np.random.Generator, read_tree: ReadTree
) -> None:
    writer = begin(tmp_path / "store")
    record = writer.write_part(0, make_part(writer.manifest, make_label_maps(rng, writer.manifest), 0))
    before = read_tree(tmp_path / "store")
    second = StoreWriter.resume(tmp_path / "store")
    assert second.write_part(0, make_part(writer.manifest, other_maps(writer.manifest), 0)) == record
    assert read_tree(tmp_path / "store") == before


def test_a_part_written_again_into_a_finished_store_changes_nothing(
    finished: Any, read_tree: ReadTree
) -> None:
    before = read_tree(finished.path)
    writer = StoreWriter.resume(finished.path)
    writer.write_part(0, make_part(writer.manifest, other_maps(writer.manifest), 0))
    assert read_tree(finished.path) == before


def test_a_part_with_a_broken_record_is_written_again(unfinished: Any) -> None:
    (unfinished.path / "journal/part-00000.json").write_bytes(b"{")
    writer = StoreWriter.resume(unfinished.path)
    assert writer.missing_parts() == [0, 1]
    writer.write_part(0, make_part(writer.manifest, unfinished.maps, 0))
    assert writer.missing_parts() == [1]


def test_rows_without_a_label_hold_only_fill_values(tmp_path: Path, rng: np.random.Generator) -> None:
    make_store(tmp_path / "store", rng, make_manifest(absent=AbsentRule.REST), bad_images={3: "no image"})
    group = zarr.open_group(tmp_path / "store", mode="r")
    assert np.all(np.asarray(group["indices"])[3] == 65_535)
    assert np.isnan(np.asarray(group["values"])[3]).all()
    assert np.isnan(np.asarray(group["rest"])[3]).all()


def test_what_a_bad_row_held_before_does_not_reach_the_disk(
    tmp_path: Path, rng: np.random.Generator, read_tree: ReadTree
) -> None:
    manifest = make_manifest()
    maps = make_label_maps(rng, manifest)
    for name in ("one", "two"):
        writer = begin(tmp_path / name)
        maps.indices[3], maps.values[3] = len(name), len(name)
        writer.write_part(0, make_part(manifest, maps, 0, {3: "no image"}))
        maps.values[3] = np.nan
    assert read_tree(tmp_path / "one") == read_tree(tmp_path / "two")


# What is wrong with a part is said before anything is written: a silent mistake here trains a student for years.

WRONG_LABELS: dict[str, Callable[[PartLabels], PartLabels]] = {
    "too few samples": lambda labels: replace(labels, indices=labels.indices[:3], values=labels.values[:3]),
    "too many samples": lambda labels: replace(
        labels, indices=labels.indices.repeat(2, axis=0), values=labels.values.repeat(2, axis=0)
    ),
    "too few facts": lambda labels: replace(labels, facts=labels.facts.slice(0, 3)),
    "one rank for all": lambda labels: replace(
        labels, indices=labels.indices[:, :1], values=labels.values[:, :1]
    ),
    "one cell for all": lambda labels: replace(
        labels, indices=labels.indices[..., :1, :1], values=labels.values[..., :1, :1]
    ),
    "class past the last": lambda labels: replace(labels, indices=labels.indices + np.uint16(4)),
    "class past the dtype": lambda labels: replace(labels, indices=labels.indices.astype(np.int64) + 65_536),
    "negative class": lambda labels: replace(labels, indices=labels.indices.astype(np.int64) - 5),
    "fractional class": lambda labels: replace(labels, indices=labels.indices + 0.5),
    "ranks backwards": lambda labels: replace(
        labels, indices=labels.indices[:, ::-1], values=labels.values[:, ::-1]
    ),
    "same class twice": lambda labels: replace(labels, indices=labels.indices[:, :1].repeat(2, axis=1)),
    "value that is no number": lambda labels: replace(labels, values=labels.values * np.float16("nan")),
    "value off the step": lambda labels: replace(labels, values=labels.values + np.float16(0.0625)),
    "float32 values": lambda labels: replace(labels, values=labels.values.astype(np.float32) * 1.0001),
    "bad image without a reason": lambda labels: replace(
        labels, facts=with_status(labels.facts, 1, "bad-image")
    ),
    "reason for a good image": lambda labels: replace(labels, bad_images=(BadImage(1, "no image"),)),
    "reason for another part": lambda labels: replace(labels, bad_images=(BadImage(7, "no image"),)),
    "status of no kind": lambda labels: replace(labels, facts=with_status(labels.facts, 1, "fine")),
}


def with_status(facts: pa.Table, row: int, status: str) -> pa.Table:
    statuses = facts["status"].to_pylist()
    statuses[row] = status
    at = facts.schema.get_field_index("status")
    return facts.set_column(at, facts.schema.field("status"), pa.array(statuses, pa.string()))


@pytest.mark.parametrize("spoil", WRONG_LABELS.values(), ids=WRONG_LABELS.keys())
def test_labels_that_do_not_fit_the_store_are_refused(
    tmp_path: Path, rng: np.random.Generator, spoil: Callable[[PartLabels], PartLabels]
) -> None:
    writer = begin(tmp_path / "store")
    labels = spoil(make_part(writer.manifest, make_label_maps(rng, writer.manifest), 0))
    with pytest.raises((ValueError, IndexError, TypeError, pa.ArrowException)):
        writer.write_part(0, labels)
    assert writer.missing_parts() == [0, 1]


@pytest.mark.parametrize("status", ["bad-image", "missing"])
def test_a_sample_without_a_label_is_never_read_as_if_it_had_one(
    tmp_path: Path, rng: np.random.Generator, status: str
) -> None:
    writer = begin(tmp_path / "store")
    labels = make_part(writer.manifest, make_label_maps(rng, writer.manifest), 0)
    with contextlib.suppress(ValueError):
        writer.write_part(0, replace(labels, facts=with_status(labels.facts, 1, status)))
    with pytest.raises(NoLabelError):
        open_store(tmp_path / "store")[1]


@pytest.mark.parametrize("part", [-1, 2], ids=["negative", "past the last"])
def test_a_part_that_the_store_does_not_have_is_refused(
    tmp_path: Path, rng: np.random.Generator, part: int
) -> None:
    writer = begin(tmp_path / "store")
    labels = make_part(writer.manifest, make_label_maps(rng, writer.manifest), 0)
    with pytest.raises((ValueError, IndexError)):
        writer.write_part(part, labels)


@pytest.mark.parametrize("absent", AbsentRule, ids=str)
def test_a_rest_that_does_not_fit_the_rule_is_refused(
    tmp_path: Path, rng: np.random.Generator, absent: AbsentRule
) -> None:
    writer = begin(tmp_path / "store", make_manifest(absent=absent))
    labels = make_part(writer.manifest, make_label_maps(rng, writer.manifest), 0)
    wrong = None if absent is AbsentRule.REST else labels.values[:, 0]
    with pytest.raises(ValueError, match="rest"):
        writer.write_part(0, replace(labels, rest=wrong))


# Finishing


def test_a_store_with_a_missing_part_cannot_be_finished(unfinished: Any) -> None:
    with pytest.raises(FormatError, match="1 of 2 parts are not built"):
        StoreWriter.resume(unfinished.path).complete()
    assert not open_store(unfinished.path).is_complete


def test_a_finished_store_holds_what_its_completion_lists_and_nothing_else(
    finished: Any, read_tree: ReadTree
) -> None:
    completion = read_completion(LocalFiles(finished.path))
    assert completion is not None
    tree = read_tree(finished.path)
    tree.pop("complete.json")
    assert {name: FileEntry.of_bytes(data) for name, data in tree.items()} == completion.files


def test_no_file_of_a_finished_store_is_empty(finished: Any, read_tree: ReadTree) -> None:
    assert [name for name, data in read_tree(finished.path).items() if not data] == []


def test_a_finished_store_tells_nothing_of_where_and_when_it_was_made(
    tmp_path: Path, rng: np.random.Generator, read_tree: ReadTree
) -> None:
    make_store(tmp_path / "made-here.zarr", rng)
    told = b"\n".join(read_tree(tmp_path / "made-here.zarr").values())
    secrets = [
        str(tmp_path),
        tmp_path.name,
        "made-here",
        socket.gethostname(),
        str(Path.home()),
    ]
    assert [secret for secret in secrets if secret.encode() in told] == []


def test_equal_labels_are_equal_bytes_wherever_they_are_written(tmp_path: Path, read_tree: ReadTree) -> None:
    for name in ("one", "another/folder"):
        make_store(tmp_path / name, np.random.default_rng(0))
    assert read_tree(tmp_path / "one") == read_tree(tmp_path / "another/folder")


@settings(max_examples=10)
@given(order=st.permutations(range(4)))
def test_the_order_in_which_parts_are_written_does_not_reach_the_disk(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    manifest = make_manifest(shard_rows=2)
    maps = other_maps(manifest)
    trees = []
    for parts in (order, range(4)):
        path = tmp_path_factory.mktemp("store")
        writer = begin(path, manifest)
        for part in parts:
            StoreWriter.resume(path).write_part(part, make_part(manifest, maps, part))
        trees.append(writer.complete().to_bytes())
    assert trees[0] == trees[1]


def test_finishing_fills_the_manifest_and_the_sample_table(finished: Any) -> None:
    writer = StoreWriter.resume(finished.path)
    assert writer.manifest.state is State.COMPLETE
    assert writer.manifest.statistics is not None
    assert writer.manifest.statistics.labelled == N
    assert writer.samples["status"].to_pylist() == ["labelled"] * N


def test_statistics_are_summed_over_the_parts(tmp_path: Path, rng: np.random.Generator) -> None:
    maps = make_store(tmp_path / "store", rng, bad_images={3: "no image"})
    statistics = open_store(tmp_path / "store").manifest.statistics
    good = [row for row in range(N) if row != 3]
    winners = maps.indices[good, 0]
    assert statistics is not None
    assert (statistics.labelled, statistics.bad_images) == (7, 1)
    assert statistics.value_min == maps.values[good].min()
    assert statistics.value_max == maps.values[good].max()
    assert statistics.winning_cells == tuple(np.bincount(winners.ravel(), minlength=5))


def test_finishing_a_finished_store_changes_nothing(finished: Any, read_tree: ReadTree) -> None:
    before = read_tree(finished.path)
    StoreWriter.resume(finished.path).complete()
    assert read_tree(finished.path) == before


def test_the_writer_that_finished_knows_the_finished_manifest(unfinished: Any) -> None:
    writer = StoreWriter.resume(unfinished.path)
    write_all(writer, unfinished.maps)
    assert writer.manifest == open_store(unfinished.path).manifest


def test_a_writer_that_came_second_knows_the_finished_manifest(unfinished: Any) -> None:
    second = StoreWriter.resume(unfinished.path)
    write_all(StoreWriter.resume(unfinished.path), unfinished.maps)
    second.complete()
    assert second.manifest == open_store(unfinished.path).manifest


def test_damage_to_the_facts_of_a_part_is_noticed_when_finishing(unfinished: Any) -> None:
    writer = StoreWriter.resume(unfinished.path)
    writer.write_part(1, make_part(writer.manifest, unfinished.maps, 1))
    facts = unfinished.path / facts_path(0)
    facts.write_bytes(facts.read_bytes()[:-1] + b"\0")
    with pytest.raises(DamagedFileError, match=r"'journal/part-00000\.parquet'"):
        writer.complete()


def test_a_store_that_lost_the_facts_of_a_part_is_not_finished_without_them(
    unfinished: Any, original: Any, read_tree: ReadTree
) -> None:
    (unfinished.path / facts_path(0)).unlink()
    with contextlib.suppress(RelabelStoreError):
        write_all(StoreWriter.resume(unfinished.path), unfinished.maps)
    if is_finished(unfinished.path):
        assert read_tree(unfinished.path) == read_tree(original.path)


def is_finished(path: Path) -> bool:
    return (path / "complete.json").exists()


@pytest.mark.parametrize("name", ["indices/c/0/0/0/0", "values/c/1/0/0/0"])
def test_a_store_that_lost_a_shard_is_not_finished_as_if_it_were_whole(unfinished: Any, name: str) -> None:
    writer = StoreWriter.resume(unfinished.path)
    writer.write_part(1, make_part(writer.manifest, unfinished.maps, 1))
    (unfinished.path / name).unlink()
    with contextlib.suppress(RelabelStoreError):
        writer.complete()
    with pytest.raises(DamagedFileError):
        open_store(unfinished.path).read_rows(range(N))


# Building parts again


@pytest.mark.parametrize("parts", [[0], [1], [0, 1]], ids=str)
def test_a_store_with_parts_built_again_is_the_same_to_the_byte(
    finished: Any, original: Any, read_tree: ReadTree, parts: list[int]
) -> None:
    writer = StoreWriter.resume(finished.path)
    writer.drop_parts(parts)
    write_all(StoreWriter.resume(finished.path), finished.maps)
    assert read_tree(finished.path) == read_tree(original.path)


@pytest.mark.parametrize("parts", [[0], [0, 1]], ids=str)
def test_the_writer_that_dropped_parts_can_build_them_itself(
    finished: Any, original: Any, read_tree: ReadTree, parts: list[int]
) -> None:
    writer = StoreWriter.resume(finished.path)
    writer.drop_parts(parts)
    write_all(writer, finished.maps)
    assert read_tree(finished.path) == read_tree(original.path)


def test_a_store_of_every_kind_is_the_same_with_a_part_built_again(
    tmp_path: Path, rng: np.random.Generator, read_tree: ReadTree
) -> None:
    manifest = replace(
        make_manifest(n=7, absent=AbsentRule.REST, value_step="exact"), classes=Classes.of(None, None, None)
    )
    bad = {1: "no image", 5: "cut off"}
    maps = make_store(tmp_path / "store", rng, manifest, bad_images=bad)
    before = read_tree(tmp_path / "store")
    writer = StoreWriter.resume(tmp_path / "store")
    writer.drop_parts([1])
    writer.write_part(1, make_part(manifest, maps, 1, bad))
    writer.complete()
    assert read_tree(tmp_path / "store") == before


def test_a_dropped_part_is_missing_and_the_store_unfinished(finished: Any) -> None:
    StoreWriter.resume(finished.path).drop_parts([1])
    store = open_store(finished.path)
    assert not store.is_complete
    assert [row for row in range(N) if store.has_label(row)] == [0, 1, 2, 3]
    assert store.samples["status"].to_pylist() == ["labelled"] * 4 + ["missing"] * 4


def test_an_image_that_was_mended_gets_its_label(tmp_path: Path, rng: np.random.Generator) -> None:
    maps = make_store(tmp_path / "store", rng, bad_images={1: "cut off", 6: "no image"})
    writer = StoreWriter.resume(tmp_path / "store")
    writer.drop_parts([0])
    writer.write_part(0, make_part(writer.manifest, maps, 0))
    writer.complete()
    store = open_store(tmp_path / "store")
    assert store.bad_images == {6: "no image"}
    assert store.manifest.statistics is not None
    assert (store.manifest.statistics.labelled, store.manifest.statistics.bad_images) == (7, 1)
    np.testing.assert_array_equal(store[1].indices, maps.indices[1])


def test_parts_of_a_store_that_was_only_begun_can_be_dropped(tmp_path: Path) -> None:
    writer = begin(tmp_path / "store")
    writer.drop_parts([0])
    assert writer.missing_parts() == [0, 1]


# Crashes: the process dies before each of its file operations in turn, and what it did is done again

EVERY_ENCODING = pytest.mark.parametrize("encoding", ENCODINGS)
BEGIN_CALLS, PART_CALLS, COMPLETE_CALLS, DROP_CALLS = 36, 48, 54, 36


def before_call(calls: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("call", range(calls), ids=lambda call: f"before call {call}")


@EVERY_ENCODING
@before_call(BEGIN_CALLS)
def test_a_crash_while_beginning_does_no_harm(
    tmp_path: Path, original: Any, read_tree: ReadTree, dying_at: DyingAt, call: int
) -> None:
    path = tmp_path / "store"
    with dying_at(call):
        begin(path, original.manifest)
    write_all(StoreWriter.resume(path) if is_store(path) else begin(path, original.manifest), original.maps)
    assert read_tree(path) == read_tree(original.path)


@EVERY_ENCODING
@before_call(PART_CALLS)
def test_a_crash_while_writing_a_part_does_no_harm(
    tmp_path: Path, original: Any, read_tree: ReadTree, dying_at: DyingAt, call: int
) -> None:
    writer = begin(tmp_path / "store", original.manifest)
    with dying_at(call):
        writer.write_part(0, make_part(original.manifest, original.maps, 0))
    write_all(StoreWriter.resume(tmp_path / "store"), original.maps)
    assert read_tree(tmp_path / "store") == read_tree(original.path)


@EVERY_ENCODING
@before_call(COMPLETE_CALLS)
def test_a_crash_while_finishing_does_no_harm(
    tmp_path: Path, original: Any, read_tree: ReadTree, dying_at: DyingAt, call: int
) -> None:
    path = tmp_path / "store"
    make_store(path, np.random.default_rng(0), original.manifest, parts=[0, 1])
    with dying_at(call):
        StoreWriter.resume(path).complete()
    StoreWriter.resume(path).complete()
    assert read_tree(path) == read_tree(original.path)


@EVERY_ENCODING
@before_call(COMPLETE_CALLS)
def test_a_writer_opened_before_the_crash_of_another_finishes_its_work(
    tmp_path: Path, original: Any, read_tree: ReadTree, dying_at: DyingAt, call: int
) -> None:
    path = tmp_path / "store"
    make_store(path, np.random.default_rng(0), original.manifest, parts=[0, 1])
    ours = StoreWriter.resume(path)
    with dying_at(call):
        StoreWriter.resume(path).complete()
    ours.complete()
    assert read_tree(path) == read_tree(original.path)


@EVERY_ENCODING
@before_call(COMPLETE_CALLS)
def test_nothing_but_the_right_labels_and_samples_is_read_after_a_crash_while_finishing(
    tmp_path: Path, original: Any, dying_at: DyingAt, call: int
) -> None:
    path = tmp_path / "store"
    make_store(path, np.random.default_rng(0), original.manifest, parts=[0, 1])
    with dying_at(call):
        StoreWriter.resume(path).complete()
    store = open_store(path)
    np.testing.assert_array_equal(store.read_rows(range(N)).indices, original.maps.indices)
    assert store.samples.equals(open_store(original.path).samples)


@EVERY_ENCODING
@before_call(DROP_CALLS)
def test_a_crash_while_dropping_parts_does_no_harm(
    finished: Any, original: Any, read_tree: ReadTree, dying_at: DyingAt, call: int
) -> None:
    with dying_at(call):
        StoreWriter.resume(finished.path).drop_parts([0])
    write_all(StoreWriter.resume(finished.path), finished.maps)
    assert read_tree(finished.path) == read_tree(original.path)


@EVERY_ENCODING
@before_call(DROP_CALLS)
def test_a_part_whose_dropping_crashed_can_be_dropped_again(
    finished: Any, original: Any, read_tree: ReadTree, dying_at: DyingAt, call: int
) -> None:
    with dying_at(call):
        StoreWriter.resume(finished.path).drop_parts([0, 1])
    StoreWriter.resume(finished.path).drop_parts([0, 1])
    write_all(StoreWriter.resume(finished.path), finished.maps)
    assert read_tree(finished.path) == read_tree(original.path)


@EVERY_ENCODING
@pytest.mark.parametrize(
    ("calls", "parts", "work"),
    [
        pytest.param(BEGIN_CALLS, [], lambda path, made: begin(path / "new", made.manifest), id="begin"),
        pytest.param(
            PART_CALLS,
            [],
            lambda path, made: StoreWriter.resume(path).write_part(0, make_part(made.manifest, made.maps, 0)),
            id="write_part",
        ),
        pytest.param(
            COMPLETE_CALLS, [0, 1], lambda path, made: StoreWriter.resume(path).complete(), id="complete"
        ),
        pytest.param(
            DROP_CALLS, None, lambda path, made: StoreWriter.resume(path).drop_parts([0, 1]), id="drop_parts"
        ),
    ],
)
def test_the_crashes_above_meet_every_file_operation(
    tmp_path: Path,
    original: Any,
    dying_at: DyingAt,
    calls: int,
    parts: list[int] | None,
    work: Callable[[Path, Any], object],
) -> None:
    make_store(tmp_path / "store", np.random.default_rng(0), original.manifest, parts=parts)
    with dying_at(10_000) as done:
        work(tmp_path / "store", original)
    assert 0 < len(done) < calls


def test_a_full_disk_leaves_the_part_unwritten_and_the_store_as_it_was(
    unfinished: Any, original: Any, read_tree: ReadTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_is_full(files: LocalFiles, name: str, data: bytes) -> None:
        raise NotEnoughSpaceError(f"writing {name!r}")

    writer = StoreWriter.resume(unfinished.path)
    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "write", disk_is_full)
        with pytest.raises(NotEnoughSpaceError):
            writer.write_part(1, make_part(writer.manifest, unfinished.maps, 1))
    assert writer.missing_parts() == [1]
    write_all(writer, unfinished.maps)
    assert read_tree(unfinished.path) == read_tree(original.path)


# Two hosts: no lock reaches from one to the other


def path_of(writer: StoreWriter) -> Path:
    assert writer.files.path is not None
    return writer.files.path


@pytest.fixture
def two_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[StoreWriter, StoreWriter]:
    monkeypatch.setattr(writer_module, "hold_lock", lambda *args, **options: contextlib.nullcontext())
    begin(tmp_path / "store")
    return StoreWriter.resume(tmp_path / "store"), StoreWriter.resume(tmp_path / "store")


@pytest.fixture
def just_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], object]], None]:
    """Do something just before the writer's next call of a function, as another host might."""

    def plan(function: str, act: Callable[[], object]) -> None:
        owner: Any = writer_module if hasattr(writer_module, function) else LocalFiles
        real = getattr(owner, function)

        def interrupted(*args: Any, **options: Any) -> Any:
            monkeypatch.setattr(owner, function, real)
            act()
            return real(*args, **options)

        monkeypatch.setattr(owner, function, interrupted)

    return plan


def found_entries(path: Path) -> dict[int, Mapping[str, FileEntry]]:
    return {
        part: {
            name: FileEntry.of_bytes((path / name).read_bytes()) for name in [*record.files, facts_path(part)]
        }
        for part, record in read_journal(LocalFiles(path))[0].items()
    }


def recorded_entries(path: Path) -> dict[int, Mapping[str, FileEntry]]:
    return {
        part: {**record.files, facts_path(part): record.facts}
        for part, record in read_journal(LocalFiles(path))[0].items()
    }


MOMENTS = pytest.mark.parametrize(
    "moment", ["write", "create"], ids=["before its files", "before its record"]
)


def labels_of(writer: StoreWriter, seed: int, part: int = 0) -> PartLabels:
    return make_part(writer.manifest, make_label_maps(np.random.default_rng(seed), writer.manifest), part)


def of_other_files(labels: PartLabels) -> PartLabels:
    """The same labels of images whose files are others there, for example without their comments."""
    at = labels.facts.schema.get_field_index("sha256")
    digests = pa.array(["f" * 64] * len(labels.facts))
    return replace(labels, facts=labels.facts.set_column(at, labels.facts.schema.field("sha256"), digests))


@MOMENTS
@pytest.mark.parametrize(
    "theirs",
    [
        pytest.param(lambda labels, writer: labels, id="same"),
        pytest.param(lambda labels, writer: labels_of(writer, seed=2), id="other labels"),
        pytest.param(lambda labels, writer: of_other_files(labels), id="other facts"),
        pytest.param(lambda labels, writer: replace(labels, exif_oriented=2), id="other counts"),
    ],
)
def test_a_host_that_lost_leaves_a_record_that_fits_its_files(
    two_hosts: tuple[StoreWriter, StoreWriter],
    just_before: Callable[[str, Callable[[], object]], None],
    moment: str,
    theirs: Callable[[PartLabels, StoreWriter], PartLabels],
) -> None:
    winner, loser = two_hosts
    ours = labels_of(loser, seed=1)
    just_before(moment, lambda: winner.write_part(0, theirs(ours, winner)))
    record = loser.write_part(0, ours)
    assert found_entries(path_of(loser)) == recorded_entries(path_of(loser))
    assert loser.records() == {0: record}


@MOMENTS
@pytest.mark.parametrize("seed", [1, 2], ids=["same labels", "other labels"])
def test_a_host_that_lost_after_the_store_was_finished_leaves_it_whole(
    two_hosts: tuple[StoreWriter, StoreWriter],
    just_before: Callable[[str, Callable[[], object]], None],
    read_tree: ReadTree,
    moment: str,
    seed: int,
) -> None:
    winner, loser = two_hosts
    winner.write_part(1, labels_of(winner, seed=1, part=1))

    def win_and_finish() -> None:
        winner.write_part(0, labels_of(winner, seed=seed))
        winner.complete()

    just_before(moment, win_and_finish)
    loser.write_part(0, labels_of(loser, seed=1))
    loser.complete()  # as a build does that has nothing left to label
    open_store(path_of(loser)).read_rows(range(N))
    completion = read_completion(loser.files)
    assert completion is not None
    tree = read_tree(path_of(loser))
    tree.pop("complete.json")
    assert {name: FileEntry.of_bytes(data) for name, data in tree.items()} == completion.files


@pytest.mark.parametrize("finisher", ["loser", "next run"])
def test_a_winner_that_dies_before_its_files_are_in_place_is_helped(
    two_hosts: tuple[StoreWriter, StoreWriter], monkeypatch: pytest.MonkeyPatch, finisher: str
) -> None:
    winner, loser = two_hosts
    orphans = loser._encode(0, labels_of(loser, seed=1))
    loser.files.create("indices/c/0/0/0/0", orphans["indices/c/0/0/0/0"])

    class Killed(BaseException):
        pass

    def dying(files: LocalFiles, name: str, data: bytes) -> None:
        if name.startswith("indices/c"):
            raise Killed
        write(files, name, data)

    write = LocalFiles.write
    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "write", dying)
        with pytest.raises(Killed):
            winner.write_part(0, labels_of(winner, seed=2))
    with pytest.raises(DamagedFileError):
        open_store(path_of(winner)).read_rows([0])
    last = loser if finisher == "loser" else StoreWriter.resume(path_of(winner))
    assert last.write_part(0, labels_of(last, seed=1)) == winner.records()[0]
    assert last.damaged_parts() == {}
    last.write_part(1, labels_of(last, seed=2, part=1))
    last.complete()
    expected = make_label_maps(np.random.default_rng(2), last.manifest)
    np.testing.assert_array_equal(open_store(path_of(last)).read_rows(range(N)).indices, expected.indices)


def test_a_build_of_other_labels_does_not_touch_one_that_is_just_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, original: Any, read_tree: ReadTree
) -> None:
    write = LocalFiles.write
    refused = []

    def interrupted(files: LocalFiles, name: str, data: bytes) -> None:
        monkeypatch.setattr(LocalFiles, "write", write)
        with pytest.raises(
            TargetExistsError, match="of other labels or images has just been begun"
        ) as caught:
            begin(tmp_path / "store", make_manifest(n=7))
        refused.append(caught)
        write(files, name, data)

    monkeypatch.setattr(LocalFiles, "write", interrupted)
    write_all(begin(tmp_path / "store"), original.maps)
    assert len(refused) == 1
    assert read_tree(tmp_path / "store") == read_tree(original.path)


def test_a_host_whose_file_is_swept_away_by_another_that_finishes_is_dropped(
    two_hosts: tuple[StoreWriter, StoreWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    winner, loser = two_hosts
    winner.write_part(1, labels_of(winner, seed=1, part=1))
    real_replace = os.replace

    def replace_too_late(*args: Any, **options: Any) -> None:
        monkeypatch.setattr(os, "replace", real_replace)
        winner.write_part(0, labels_of(winner, seed=1))
        winner.complete()  # which removes the files that killed writers left half written
        real_replace(*args, **options)

    monkeypatch.setattr(os, "replace", replace_too_late)
    assert loser.write_part(0, labels_of(loser, seed=1)) == winner.records()[0]


@pytest.mark.parametrize(
    "moment",
    ["write", "sweep", "remove_folder"],
    ids=["before the merge", "before cleaning", "before the commit"],
)
def test_two_hosts_that_finish_at_once_write_the_same_bytes(
    two_hosts: tuple[StoreWriter, StoreWriter],
    just_before: Callable[[str, Callable[[], object]], None],
    original: Any,
    read_tree: ReadTree,
    moment: str,
) -> None:
    one, other = two_hosts
    for part in range(2):
        one.write_part(part, make_part(one.manifest, original.maps, part))
    just_before(moment, other.complete)
    one.complete()
    assert read_tree(path_of(one)) == read_tree(original.path)


def test_a_second_process_that_arrives_while_the_first_finishes_leaves_no_lock_behind(
    unfinished: Any,
    just_before: Callable[[str, Callable[[], object]], None],
    original: Any,
    read_tree: ReadTree,
) -> None:
    writer, late = StoreWriter.resume(unfinished.path), StoreWriter.resume(unfinished.path)
    writer.write_part(1, make_part(writer.manifest, unfinished.maps, 1))
    # The first has cleaned up and not committed yet.
    just_before("Completion", lambda: late.write_part(1, make_part(late.manifest, unfinished.maps, 1)))
    writer.complete()
    assert read_tree(unfinished.path) == read_tree(original.path)

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relabel_store.errors import (
    DamagedFileError,
    MissingDependencyError,
    ObjectStoreError,
    OptionError,
    StoreNotFoundError,
    TargetExistsError,
)
from relabel_store.store import remote_files
from relabel_store.store.local_files import LocalFiles
from relabel_store.store.location import is_url, open_files
from relabel_store.store.reader import open_store
from relabel_store.store.remote_files import RemoteFiles, require_url
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_samples, make_store

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def memory(tmp_path: Path) -> RemoteFiles:
    """Files in fsspec's memory, which all tests of a process share, under a name of their own."""
    return RemoteFiles(f"memory://bucket/{tmp_path.name}")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(remote_files, "_DELAYS_S", (0.0,) * 7)


# URLs


@pytest.mark.parametrize(
    "url",
    ["s3://bucket", "s3://", "s3:///key", "s3://bucket//key", "s3://bucket/../key", "gs://bucket/a/./b"],
)
def test_a_url_without_a_bucket_and_a_path_is_refused(url: str) -> None:
    with pytest.raises(OptionError, match="expected protocol://bucket/path"):
        RemoteFiles(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:hunter2@bucket/store",
        "https://user:hunter2@host/store",
        "https://host/store?X-Amz-Signature=hunter2",
        "s3://bucket/store#hunter2",
    ],
    ids=["s3", "https", "signed", "fragment"],
)
def test_a_url_with_a_secret_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(OptionError, match="credentials or a query") as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)


def test_slashes_at_the_end_of_a_url_do_not_matter() -> None:
    assert require_url("s3://bucket/store/") == "s3://bucket/store"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("s3://b/k", True), ("hf://datasets/u/r", True), ("file:///a", False), ("a/b", False), ("C:/a", False)],
)
def test_urls_and_paths_are_told_apart(text: str, expected: bool) -> None:
    assert is_url(text) is expected


def test_a_file_url_is_a_path() -> None:
    assert open_files("file:///a%20b/c") == LocalFiles(Path("/a b/c"))


def test_a_url_that_pathlib_took_a_slash_of_is_not_made_a_folder() -> None:
    with pytest.raises(OptionError, match="give it as text"):
        open_files(Path("s3://bucket/store"))


@pytest.mark.parametrize("url", ["https://host/store", "hf://datasets/user/name"])
def test_what_cannot_create_only_if_absent_is_only_read_from(url: str) -> None:
    with pytest.raises(OptionError, match="only read from"):
        RemoteFiles(url).write("a", b"x")


def test_a_protocol_that_nobody_knows_is_named() -> None:
    with pytest.raises(OptionError, match="nonsense"):
        RemoteFiles("nonsense://bucket/store").read("a")


def test_a_client_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any, **options: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    with monkeypatch.context() as patch:
        patch.setattr(fsspec, "filesystem", missing)
        with pytest.raises(MissingDependencyError, match=r"relabel-store\[remote\]"):
            RemoteFiles("s3://bucket/store").read("a")


# Files


def test_files_can_be_pickled(memory: RemoteFiles) -> None:
    memory.write("a", b"x")
    copy = pickle.loads(pickle.dumps(memory))
    assert (copy.location, copy.read("a")) == (memory.location, b"x")


def test_an_object_in_place_of_a_store_is_refused(memory: RemoteFiles) -> None:
    memory.write("store", b"x")
    with pytest.raises(TargetExistsError, match="is an object"):
        RemoteFiles(f"{memory.location}/store").require_folder()


# A store


def test_a_store_has_the_same_bytes_wherever_it_is_built(
    memory: RemoteFiles, tmp_path: Path, read_tree: Callable[[Path], dict[str, bytes]]
) -> None:
    make_store(memory, np.random.default_rng(0))
    make_store(tmp_path / "local", np.random.default_rng(0))
    assert dict(memory.read_many(memory.listing("", deep=True))) == read_tree(tmp_path / "local")


def test_a_store_is_read_as_from_a_directory(memory: RemoteFiles, finished: Any, tmp_path: Path) -> None:
    make_store(memory, np.random.default_rng(0))
    store, local = open_store(memory.location), open_store(finished.path)
    rows = [7, 0, 3, 3]
    for one in (
        store,
        store.load(),
        store.materialize(tmp_path / "cache"),
        pickle.loads(pickle.dumps(store)),
    ):
        np.testing.assert_array_equal(one.read_rows(rows).indices, local.read_rows(rows).indices)
        np.testing.assert_array_equal(one.read_rows(rows).values, local.read_rows(rows).values)
        assert (one.digest, one.samples.equals(local.samples)) == (local.digest, True)
        assert one.row_of(local.samples["sample_id"][5].as_py()) == 5


def test_an_unfinished_store_is_read_as_far_as_it_is(memory: RemoteFiles) -> None:
    maps = make_store(memory, np.random.default_rng(0), parts=[0])
    store = open_store(memory.location)
    assert [store.has_label(row) for row in (0, 7)] == [True, False]
    np.testing.assert_array_equal(store[0].indices, maps.indices[0])
    assert store.samples["status"].to_pylist() == ["labelled"] * 4 + ["missing"] * 4


def test_where_no_store_is_none_is_found(memory: RemoteFiles) -> None:
    with pytest.raises(StoreNotFoundError, match=r"no object of a label store there"):
        open_store(memory.location)


def test_a_prefix_of_others_is_refused_and_left_as_it_is(memory: RemoteFiles) -> None:
    memory.write("photo.jpg", b"x")
    with pytest.raises(
        TargetExistsError, match=r"holds 1 things that are no part of a store, 'photo\.jpg' first"
    ):
        make_store(memory, np.random.default_rng(0))
    assert list(memory.listing("", deep=True)) == ["photo.jpg"]


def test_opening_a_finished_store_writes_nothing(memory: RemoteFiles) -> None:
    make_store(memory, np.random.default_rng(0))
    before = memory.listing("", deep=True)
    StoreWriter.resume(memory).complete()
    assert memory.listing("", deep=True) == before


# Faults


@dataclass
class Flaky:
    """A file system some of whose calls fail, before or after they had their effect."""

    fs: Any
    fails: Callable[[str, int], Exception | None]
    is_late: bool = False
    calls: dict[str, int] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.fs, name)
        if not callable(real):
            return real

        def call(*args: Any, **options: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            error = self.fails(name, self.calls[name])
            if error is not None and not self.is_late:
                raise error
            result = real(*args, **options)
            if error is not None:
                raise error
            return result

        return call


@pytest.fixture
def flaky(
    monkeypatch: pytest.MonkeyPatch, impatient: None
) -> Callable[[Callable[[str, int], Exception | None], bool], Flaky]:
    def plan(fails: Callable[[str, int], Exception | None], is_late: bool = False) -> Flaky:
        made = Flaky(fsspec.filesystem("memory"), fails, is_late)
        monkeypatch.setattr(
            remote_files, "_open_file_system", lambda url, protocol: (made, made.fs._strip_protocol(url))
        )
        return made

    return plan


def every_fifth_write(name: str, call: int) -> Exception | None:
    return (
        OSError(errno.EIO, "We encountered an internal error")
        if name == "pipe_file" and call % 5 == 0
        else None
    )


@pytest.mark.parametrize("is_late", [False, True], ids=["request lost", "answer lost"])
def test_a_destination_that_fails_every_fifth_write_gives_the_same_bytes(
    flaky: Callable[..., Flaky], memory: RemoteFiles, tmp_path: Path, is_late: bool,
    read_tree: Callable[[Path], dict[str, bytes]],
) -> None:  # fmt: skip
    destination = flaky(every_fifth_write, is_late)
    make_store(memory, np.random.default_rng(0))
    make_store(tmp_path / "local", np.random.default_rng(0))
    assert destination.calls["pipe_file"] > 15
    assert dict(memory.read_many(memory.listing("", deep=True))) == read_tree(tmp_path / "local")


def test_a_service_that_stays_away_is_given_up_with_what_to_do(
    flaky: Callable[..., Flaky], memory: RemoteFiles
) -> None:
    destination = flaky(lambda name, call: TimeoutError("no answer"))
    with pytest.raises(
        ObjectStoreError, match=r"reading 'a' in 'memory://.*no answer; tried 8 times: run the same"
    ):
        memory.read("a")
    assert destination.calls == {"cat_file": 8}


class NoCredentialsError(Exception):
    __module__ = "botocore.exceptions"


@pytest.mark.parametrize(
    "error",
    [PermissionError("Access Denied"), NoCredentialsError("Unable to locate credentials")],
    ids=["forbidden", "no credentials"],
)
def test_a_refusal_is_not_tried_again(
    flaky: Callable[..., Flaky], memory: RemoteFiles, error: Exception
) -> None:
    destination = flaky(lambda name, call: error)
    with pytest.raises(ObjectStoreError, match="check its permissions and your credentials"):
        memory.write("a", b"x")
    assert destination.calls == {"pipe_file": 1}


def test_a_mistake_of_the_caller_is_no_fault_of_the_service(
    flaky: Callable[..., Flaky], memory: RemoteFiles
) -> None:
    flaky(lambda name, call: TypeError("a bytes-like object is required"))
    with pytest.raises(TypeError):
        memory.write("a", b"x")


def test_no_message_shows_a_secret(
    flaky: Callable[..., Flaky], memory: RemoteFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    flaky(lambda name, call: PermissionError("key hunter2hunter2 at https://me:pass@host/x"))
    with pytest.raises(ObjectStoreError, match=r"key … at https://…@host/x") as caught:
        memory.read("a")
    assert "pass" not in str(caught.value)


def test_a_service_that_replaces_what_was_to_be_created_is_refused(
    monkeypatch: pytest.MonkeyPatch, memory: RemoteFiles
) -> None:
    monkeypatch.setattr(RemoteFiles, "create", lambda files, name, data: files.write(name, data) is None)
    with pytest.raises(ObjectStoreError, match="created only if absent"):
        make_store(memory, np.random.default_rng(0))
    assert memory.listing("", deep=True) == {}


def test_a_journal_record_is_read_once(flaky: Callable[..., Flaky], memory: RemoteFiles) -> None:
    make_store(memory, np.random.default_rng(0), parts=[0, 1])
    writer = StoreWriter.resume(memory)
    writer.records()
    destination = flaky(lambda name, call: None)
    memory._opened = None
    assert (sorted(writer.records()), writer.missing_parts()) == ([0, 1], [])
    assert destination.calls == {"find": 2}


def test_materializing_fetches_each_shard_once(
    flaky: Callable[..., Flaky], memory: RemoteFiles, tmp_path: Path
) -> None:
    make_store(memory, np.random.default_rng(0))
    store = open_store(memory.location)
    destination = flaky(lambda name, call: None)
    store.files._opened = None  # type: ignore[attr-defined]
    store.materialize(tmp_path / "cache")
    assert destination.calls == {"cat_file": 4 + 2 + 1}  # shards, the arrays' metadata, the sample table


def test_what_a_part_costs_does_not_grow_with_the_parts_before_it(
    flaky: Callable[..., Flaky], memory: RemoteFiles
) -> None:
    manifest = make_manifest(n=40, shard_rows=1, chunk_rows=1)
    maps = make_label_maps(np.random.default_rng(0), manifest)
    writer = StoreWriter.begin(memory, manifest, make_samples(manifest))
    writer.write_part(0, make_part(manifest, maps, 0))  # after which creation has been tried
    destination = flaky(lambda name, call: None)
    memory._opened = None
    for part in range(1, 40):
        writer.write_part(part, make_part(manifest, maps, part))
    assert {name: calls / 39 for name, calls in destination.calls.items()} == {
        "pipe_file": 5,  # two shards, facts, times of change, record
        "cat_file": 2,  # of a record that might be there
        "info": 1,  # of a completion that might be
    }


def test_a_shard_asked_for_again_is_not_fetched_again(
    flaky: Callable[..., Flaky], memory: RemoteFiles
) -> None:
    make_store(memory, np.random.default_rng(0))
    store = open_store(memory.location)
    destination = flaky(lambda name, call: None)
    store.files._opened = None  # type: ignore[attr-defined]
    store.read_rows(range(8))
    store._chunks.clear()
    before = dict(destination.calls)
    store.read_rows(range(8))
    assert destination.calls == before


def test_a_changed_byte_of_a_shard_is_noticed(memory: RemoteFiles) -> None:
    make_store(memory, np.random.default_rng(0))
    name = "values/c/1/0/0/0"
    data = bytearray(memory.read(name))
    data[3] ^= 1
    memory.write(name, bytes(data))
    store = open_store(memory.location)
    store.read_rows(range(4))
    with pytest.raises(DamagedFileError, match=name):
        store.read_rows([4])


def test_a_store_that_lost_a_shard_is_not_finished_and_its_part_is_built_again(memory: RemoteFiles) -> None:
    maps = make_store(memory, np.random.default_rng(0), parts=[0, 1])
    memory.remove(["indices/c/1/0/0/0"])
    writer = StoreWriter.resume(memory)
    with pytest.raises(DamagedFileError, match="'indices/c/1/0/0/0': missing"):
        writer.complete()
    assert list(writer.damaged_parts()) == [1]
    writer.drop_parts([1])
    writer.write_part(1, make_part(writer.manifest, maps, 1))
    writer.complete()
    np.testing.assert_array_equal(open_store(memory.location).read_rows(range(8)).indices, maps.indices)


@pytest.fixture(autouse=True)
def clean_memory() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()

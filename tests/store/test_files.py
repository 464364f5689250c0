from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relabel_store.errors import DamagedFileError
from relabel_store.store.files import FileEntry, StoreFiles, read_verified, require_entry
from relabel_store.store.local_files import LocalFiles
from relabel_store.store.remote_files import RemoteFiles


@pytest.mark.parametrize("size", [0, 1, 100_000], ids=["empty", "one byte", "many bytes"])
def test_the_entry_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(size)
    (tmp_path / "file").write_bytes(data)
    expected = FileEntry(size, hashlib.sha256(data).hexdigest())
    with (tmp_path / "file").open("rb") as file:
        assert FileEntry.of_file(file) == FileEntry.of_bytes(data) == expected


def test_an_entry_survives_json() -> None:
    entry = FileEntry.of_bytes(b"x")
    assert FileEntry.from_json(entry.to_json()) == entry


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "text",
        {},
        {"size_bytes": 1},
        {"size_bytes": "1", "sha256": "0"},
        {"size_bytes": 1, "sha256": 0},
    ],
    ids=["null", "list", "text", "nothing", "no digest", "size as text", "digest as number"],
)
def test_what_is_no_entry_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match="expected size_bytes and sha256"):
        FileEntry.from_json(document)


CHECKS = pytest.mark.parametrize(
    "check", [require_entry, read_verified], ids=["require_entry", "read_verified"]
)


@CHECKS
def test_a_sound_file_passes(tmp_path: Path, check: Callable[..., Any]) -> None:
    (tmp_path / "file").write_bytes(b"sound")
    assert check(LocalFiles(tmp_path), "file", FileEntry.of_bytes(b"sound")) in (None, b"sound")


@CHECKS
@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(None, "'a/file': missing, expected 5 bytes", id="missing"),
        pytest.param(b"", "'a/file': 0 bytes, expected 5", id="empty"),
        pytest.param(b"soun", "'a/file': 4 bytes, expected 5", id="truncated"),
        pytest.param(b"sounds", "'a/file': 6 bytes, expected 5", id="appended"),
        pytest.param(b"souns", "'a/file': SHA-256 [0-9a-f]{12}…, expected", id="changed"),
    ],
)
def test_a_file_that_is_not_the_recorded_one_is_named(
    tmp_path: Path, check: Callable[..., Any], data: bytes | None, message: str
) -> None:
    if data is not None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "file").write_bytes(data)
    with pytest.raises(DamagedFileError, match=message):
        check(LocalFiles(tmp_path), "a/file", FileEntry.of_bytes(b"sound"))


# What a place that holds files can do, whichever it is


@pytest.fixture(params=["directory", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> StoreFiles:
    if request.param == "directory":
        return LocalFiles(tmp_path / "store")
    pytest.importorskip("fsspec")
    return RemoteFiles(f"memory://bucket/{tmp_path.name}")


def test_a_written_file_is_read(files: StoreFiles) -> None:
    files.write("a/b", b"x")
    assert (files.read("a/b"), files.size("a/b"), files.entry("a/b")) == (
        b"x",
        1,
        FileEntry.of_bytes(b"x"),
    )


def test_a_file_that_is_not_there_is_not_found(files: StoreFiles) -> None:
    with pytest.raises(FileNotFoundError):
        files.read("a")
    assert files.size("a") is None
    assert list(files.read_many(["a"])) == [("a", None)]


def test_a_folder_has_no_size(files: StoreFiles) -> None:
    files.write("a/b", b"x")
    assert files.size("a") is None


def test_creating_leaves_what_was_there(files: StoreFiles) -> None:
    assert files.create("a", b"first")
    assert not files.create("a", b"second")
    assert files.read("a") == b"first"


def test_a_listing_holds_files_of_the_folder_or_of_all_below(files: StoreFiles) -> None:
    for name in ("b", "a/2", "a/1", "a/deep/3", "ab/4"):
        files.write(name, name.encode())
    assert list(files.listing("a")) == ["a/1", "a/2"]
    assert list(files.listing("a", deep=True)) == ["a/1", "a/2", "a/deep/3"]
    assert {stamp.size_bytes for stamp in files.listing("", deep=True).values()} == {1, 3, 8, 4}
    assert sorted(files.children()) == ["a", "ab", "b"]


def test_a_place_where_nothing_is_has_an_empty_listing(files: StoreFiles) -> None:
    assert (files.listing("a"), list(files.children())) == ({}, [])


def test_removing_spares_the_rest_and_forgives_what_is_gone(files: StoreFiles) -> None:
    for name in ("a/1", "a/2", "b"):
        files.write(name, b"x")
    files.remove(["b", "c"])
    assert list(files.listing("", deep=True)) == ["a/1", "a/2"]
    files.remove_folder("a")
    assert files.listing("", deep=True) == {}


def test_many_files_come_in_the_order_asked(files: StoreFiles) -> None:
    for at in range(200):
        files.write(str(at), b"%d" % at)
    names = [str(at) for at in reversed(range(200))]
    assert list(files.read_many(names)) == [(name, name.encode()) for name in names]


def test_writing_replaces_what_was_there(files: StoreFiles) -> None:
    files.write("a", b"old")
    files.write("a", b"new")
    assert (files.read("a"), files.size("a")) == (b"new", 3)


def test_a_changed_file_has_another_stamp(files: StoreFiles) -> None:
    files.write("a", b"old")
    before = files.listing("")["a"]
    files.write("a", b"new")
    assert files.listing("")["a"] != before

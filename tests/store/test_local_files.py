from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relabel_store.errors import NotEnoughSpaceError
from relabel_store.store.local_files import create_file, remove_partials, sync_directory, write_file

WRITERS = pytest.mark.parametrize("write", [write_file, create_file], ids=["write_file", "create_file"])


def fail_with(code: int) -> Callable[..., Any]:
    def fail(*args: Any, **options: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


@WRITERS
def test_a_written_file_has_its_bytes(tmp_path: Path, write: Callable[..., Any]) -> None:
    write(tmp_path / "file", b"some bytes")
    assert (tmp_path / "file").read_bytes() == b"some bytes"


@WRITERS
def test_folders_on_the_way_are_made(tmp_path: Path, write: Callable[..., Any]) -> None:
    write(tmp_path / "a" / "b" / "file", b"x")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"x"


@WRITERS
def test_nothing_is_left_beside_a_written_file(tmp_path: Path, write: Callable[..., Any]) -> None:
    write(tmp_path / "file", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_writing_replaces_what_was_there(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"old")
    write_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_creating_tells_that_the_file_is_new(tmp_path: Path) -> None:
    assert create_file(tmp_path / "file", b"x")


def test_creating_leaves_what_was_there(tmp_path: Path) -> None:
    create_file(tmp_path / "file", b"first")
    assert not create_file(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"


@WRITERS
def test_a_file_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Any]
) -> None:
    named_at_sync = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: named_at_sync.append((tmp_path / "file").exists()))
    write(tmp_path / "file", b"x")
    assert (named_at_sync[0], named_at_sync[-1]) == (False, True)  # the file's bytes, then the folder's entry


@WRITERS
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=["disk full", "quota reached"])
@pytest.mark.parametrize("operation", ["mkdir", "fsync"])
def test_a_full_disk_is_reported_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Any], operation: str, code: int
) -> None:
    monkeypatch.setattr(os, operation, fail_with(code))
    with pytest.raises(
        NotEnoughSpaceError, match=r"writing 'file' \(10 bytes\): .*; free some space and run"
    ):
        write(tmp_path / "folder" / "file", b"some bytes")


@pytest.mark.parametrize(
    ("write", "operation"),
    [(write_file, "replace"), (create_file, "link")],
    ids=["write_file", "create_file"],
)
def test_a_disk_too_full_for_a_name_is_reported_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Any], operation: str
) -> None:
    monkeypatch.setattr(os, operation, fail_with(errno.ENOSPC))
    with pytest.raises(NotEnoughSpaceError):
        write(tmp_path / "file", b"some bytes")
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """Let the operating system refuse files of more than 100 bytes, as a full disk would.

    No fixture: pytest writes its own report between a test and the end of its fixtures.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@WRITERS
def test_nothing_is_left_where_the_bytes_did_not_fit(tmp_path: Path, write: Callable[..., Any]) -> None:
    with small_files(), pytest.raises(NotEnoughSpaceError):
        write(tmp_path / "file", bytes(1000))
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays_where_its_successor_did_not_fit(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"old")
    with small_files(), pytest.raises(NotEnoughSpaceError):
        write_file(tmp_path / "file", bytes(1000))
    assert (tmp_path / "file").read_bytes() == b"old"


@WRITERS
def test_another_error_of_the_disk_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Any]
) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
        write(tmp_path / "file", b"x")
    assert not isinstance(caught.value, NotEnoughSpaceError)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_writers_are_removed_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / ".file.0123.partial").write_bytes(b"half")
    (tmp_path / ".file.4567.partial").write_bytes(b"half")
    remove_partials(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_removing_leftovers_spares_files_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "mine.partial").write_bytes(b"x")
    remove_partials(tmp_path)
    assert (tmp_path / "mine.partial").exists()


def test_a_folder_can_be_synced(tmp_path: Path) -> None:
    sync_directory(tmp_path)

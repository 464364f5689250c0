from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relabel_store.errors import DamagedFileError
from relabel_store.store.files import FileEntry, read_verified, require_entry
from relabel_store.store.local_files import LocalFiles


@pytest.mark.parametrize("size", [0, 1, 100_000], ids=["empty", "one byte", "many bytes"])
def test_the_entry_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(size)
    (tmp_path / "file").write_bytes(data)
    expected = FileEntry(size, hashlib.sha256(data).hexdigest())
    assert FileEntry.of_file(tmp_path / "file") == FileEntry.of_bytes(data) == expected


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

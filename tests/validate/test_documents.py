from __future__ import annotations

import os
from pathlib import Path

import pytest

from relabel_store.canonical import with_digest
from relabel_store.store.files import FileEntry
from relabel_store.store.local_files import LocalFiles
from relabel_store.validate.documents import (
    file_entry,
    has_own_digest_at_all,
    is_below,
    json_object,
    manifest_in_parquet,
    part_record,
    read_regular,
)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b"\xff\xfe{}",
        b'{"a": ' * 60 + b"1" + b"}" * 60,
        b'{"a": ' * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=[
        "nothing",
        "a list",
        "null",
        "half",
        "NaN",
        "infinity",
        "no UTF-8",
        "deep",
        "too deep",
        "a huge number",
    ],
)
def test_what_is_no_object_is_none(data: bytes):
    assert json_object(data) is None


def test_an_object_is_itself():
    assert json_object(b'{"a": [{"b": 1}], "c": {}}') == {"a": [{"b": 1}], "c": {}}


@pytest.mark.parametrize("name", ["a", "a/b.c", "journal/part-00000.json", "..a", "a..", "ü"])
def test_a_name_of_a_file_below_is_let_pass(name: str):
    assert is_below(name)


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "..", "../a", "a/../b", ".", "a\\b", "a\0b"])
def test_a_name_that_leads_elsewhere_is_refused(name: str):
    assert not is_below(name)


def test_a_digest_of_what_cannot_be_written_is_no_digest():
    assert has_own_digest_at_all(with_digest({"a": 1}))
    assert not has_own_digest_at_all({"a": "\ud800", "digest": "sha256:"})


def test_values_that_are_no_entry_and_no_record_are_none():
    sha256 = 32 * "a0"
    assert file_entry({"size_bytes": 1, "sha256": sha256}) == FileEntry(1, sha256)
    others = [sha256.upper(), sha256[:-1], f"{sha256}\n", 64 * "g", 1]
    no_entries = [{"size_bytes": 1, "sha256": other} for other in others]
    for value in (None, 1, [], {}, {"size_bytes": "1", "sha256": sha256}, *no_entries):
        assert file_entry(value) is None
        assert part_record(value) is None


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"1")
    files = LocalFiles(tmp_path)
    assert read_regular(files, "pipe") is None
    assert read_regular(files, "nothing") is None
    assert read_regular(files, "") is None
    assert read_regular(files, "file") == b"1"


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" * 100])
def test_what_is_no_parquet_file_holds_no_manifest(data: bytes):
    assert manifest_in_parquet(data) is None

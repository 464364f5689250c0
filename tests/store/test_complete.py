from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from relabel_store import spec
from relabel_store.canonical import canonical_json, has_own_digest, with_digest
from relabel_store.errors import DamagedFileError, UnsupportedVersionError
from relabel_store.store.complete import Completion, read_completion
from relabel_store.store.files import FileEntry
from relabel_store.store.journal import PartRecord
from relabel_store.store.local_files import LocalFiles

ENTRY = FileEntry.of_bytes(b"x")
RECORD = PartRecord(0, range(4), {"indices/c/0/0/0/0": ENTRY}, ENTRY, (), 0)
COMPLETION = Completion(files={"zarr.json": ENTRY, "indices/c/0/0/0/0": ENTRY}, parts={0: RECORD})


def changed(**fields: Any) -> bytes:
    """The bytes of a completion some fields of which are others, with a digest that fits."""
    return canonical_json(with_digest({**json.loads(COMPLETION.to_bytes()), **fields}))


def test_a_completion_survives_its_file() -> None:
    assert Completion.from_bytes(COMPLETION.to_bytes()) == COMPLETION


def test_the_digest_in_the_file_is_that_of_its_content() -> None:
    assert has_own_digest(json.loads(COMPLETION.to_bytes()))


def test_the_digest_is_the_one_in_the_file() -> None:
    assert json.loads(COMPLETION.to_bytes())["digest"] == COMPLETION.digest


def test_a_store_without_the_file_is_not_finished(tmp_path: Path) -> None:
    assert read_completion(LocalFiles(tmp_path)) is None


def test_a_store_with_the_file_is_finished(tmp_path: Path) -> None:
    (tmp_path / spec.COMPLETE_FILE).write_bytes(COMPLETION.to_bytes())
    assert read_completion(LocalFiles(tmp_path)) == COMPLETION


def test_parts_and_files_are_the_same_bytes_in_any_order() -> None:
    records: Mapping[int, PartRecord] = {
        part: PartRecord(part, range(4), {}, ENTRY, (), 0) for part in (1, 0)
    }
    files = dict.fromkeys(("b", "a"), ENTRY)
    backwards = Completion(dict(sorted(files.items())), dict(sorted(records.items())))
    assert Completion(files, records).to_bytes() == backwards.to_bytes()


def test_a_field_of_a_later_minor_version_is_ignored() -> None:
    data = changed(format_version="1.7", note="from the future")
    assert Completion.from_bytes(data).parts == COMPLETION.parts


def test_the_digest_of_a_file_of_a_later_minor_version_is_the_one_it_carries() -> None:
    data = changed(format_version="1.7", note="from the future")
    assert Completion.from_bytes(data).digest == json.loads(data)["digest"]


def test_a_file_that_is_written_again_keeps_its_version() -> None:
    data = changed(format_version="1.7")
    assert Completion.from_bytes(data).to_bytes() == data


def test_a_file_of_another_major_version_is_unsupported_rather_than_damaged() -> None:
    with pytest.raises(UnsupportedVersionError, match=r"2\.0"):
        Completion.from_bytes(changed(format_version="2.0", parts={"count": 1}))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(COMPLETION.to_bytes()[:-20], id="truncated"),
        pytest.param(COMPLETION.to_bytes().replace(b"size_bytes", b"size_bites"), id="bytes changed"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b"null", id="null"),
        pytest.param(b"3", id="number"),
        pytest.param(b'"text"', id="text"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"{}", id="nothing in it"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"digest": ' + b"[" * 500 + b"]" * 500 + b"}", id="nested"),
        pytest.param(b'{"digest": ' + b"9" * 5000 + b"}", id="huge number"),
        pytest.param(b'{"digest": NaN}', id="not a number"),
        pytest.param(b'{"digest": 1e999}', id="infinite"),
        pytest.param(b'{"digest": "\\ud800"}', id="half a character"),
        pytest.param(changed(format_version=1.0), id="version as number"),
        pytest.param(changed(format_version=None), id="no version"),
        pytest.param(changed(format_version="1"), id="version without minor number"),
        pytest.param(changed(format_version="1.x"), id="version that is none"),
        pytest.param(changed(files=[]), id="files as list"),
        pytest.param(changed(files={"zarr.json": 1}), id="file as number"),
        pytest.param(changed(files={"zarr.json": {"size_bytes": "1", "sha256": "0"}}), id="size as text"),
        pytest.param(changed(files={"a": {"size_bytes": 1, "sha256": 32 * "AB"}}), id="digest in capitals"),
        pytest.param(changed(files=None), id="no files"),
        pytest.param(changed(parts=3), id="parts as number"),
        pytest.param(changed(parts=[[]]), id="part as list"),
        pytest.param(changed(parts=[{**RECORD.to_json(), "part": 1}]), id="part with another digest"),
        pytest.param(changed(parts=[with_digest({"part": 0})]), id="part without rows"),
    ],
)
def test_what_is_no_completion_is_damage_to_the_file(data: bytes) -> None:
    with pytest.raises(DamagedFileError, match=r"store file 'complete\.json'"):
        Completion.from_bytes(data)

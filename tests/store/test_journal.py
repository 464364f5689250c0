from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from relabel_store.canonical import canonical_json, with_digest
from relabel_store.errors import FormatError
from relabel_store.store.files import FileEntry
from relabel_store.store.journal import BadImage, PartRecord, facts_path, read_journal, record_path
from relabel_store.store.local_files import LocalFiles

ENTRY = FileEntry.of_bytes(b"x")


def make_record(part: int = 0) -> PartRecord:
    return PartRecord(
        part=part,
        rows=range(4 * part, 4 * part + 4),
        files={f"indices/c/{part}/0/0/0": ENTRY},
        facts=ENTRY,
        bad_images=(BadImage(4 * part + 1, "a truncated JPEG – ½ of it"),),
        exif_oriented=1,
    )


def write_record(store: Path, record: PartRecord, name: str | None = None) -> Path:
    path = store / (record_path(record.part) if name is None else f"journal/{name}")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(record.to_bytes())
    return path


def test_the_files_of_a_part_carry_its_number() -> None:
    assert (record_path(42), facts_path(42)) == ("journal/part-00042.json", "journal/part-00042.parquet")


def test_a_record_survives_its_file() -> None:
    record = make_record()
    assert PartRecord.from_json(json.loads(record.to_bytes())) == record


def test_equal_records_are_equal_bytes() -> None:
    assert make_record().to_bytes() == make_record().to_bytes()


def test_a_field_of_a_later_minor_version_is_ignored() -> None:
    document = with_digest({**make_record().to_json(), "attempts": 3})
    assert PartRecord.from_json(document) == make_record()


@pytest.mark.parametrize("document", [None, [], "text", 3], ids=["null", "list", "text", "number"])
def test_what_is_no_object_is_no_record(document: Any) -> None:
    with pytest.raises(FormatError):
        PartRecord.from_json(document)


@pytest.mark.parametrize(
    "change",
    [{"exif_oriented": 2}, {"bad_images": []}, {"digest": "sha256:0"}, {"digest": None}],
    ids=["count", "bad images", "digest", "no digest"],
)
def test_a_record_whose_digest_is_not_its_own_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="its digest is not that of its content"):
        PartRecord.from_json({**make_record().to_json(), **change})


HOSTILE_FIELDS = [
    pytest.param({"part": "0"}, id="part as text"),
    pytest.param({"part": None}, id="no part"),
    pytest.param({"rows": [0]}, id="one row"),
    pytest.param({"rows": [0, 1, 2]}, id="three rows"),
    pytest.param({"rows": ["0", "4"]}, id="rows as text"),
    pytest.param({"files": []}, id="files as list"),
    pytest.param({"files": {"a": 1}}, id="file as number"),
    pytest.param({"files": {"a": {"size_bytes": 1.5, "sha256": "0"}}}, id="half a byte"),
    pytest.param({"facts": None}, id="no facts"),
    pytest.param({"bad_images": {}}, id="bad images as object"),
    pytest.param({"bad_images": [1]}, id="bad image as number"),
    pytest.param({"bad_images": [{}]}, id="bad image without a row"),
    pytest.param({"bad_images": [{"row": "one", "reason": ""}]}, id="bad row as text"),
    pytest.param({"exif_oriented": None}, id="no count"),
]


@pytest.mark.parametrize("fields", HOSTILE_FIELDS)
def test_a_record_with_a_field_of_another_type_is_a_format_error(fields: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        PartRecord.from_json(with_digest({**make_record().to_json(), **fields}))


@pytest.mark.parametrize("fields", HOSTILE_FIELDS)
def test_a_part_whose_record_has_a_field_of_another_type_does_not_exist(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    path = write_record(tmp_path, make_record())
    path.write_bytes(canonical_json(with_digest({**make_record().to_json(), **fields})))
    assert read_journal(LocalFiles(tmp_path)) == ({}, ["part-00000.json"])


def test_the_journal_holds_the_records_of_all_finished_parts(tmp_path: Path) -> None:
    records = {part: make_record(part) for part in (0, 3, 100_000)}
    for record in records.values():
        write_record(tmp_path, record)
    assert read_journal(LocalFiles(tmp_path)) == (records, [])


def test_a_store_without_a_journal_has_no_parts(tmp_path: Path) -> None:
    assert read_journal(LocalFiles(tmp_path)) == ({}, [])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(make_record().to_bytes()[:-20], id="truncated"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"digest": ' + b"9" * 5000 + b"}", id="huge number"),
        pytest.param(b'{"digest": NaN}', id="not a number"),
        pytest.param(b'{"digest": "\\ud800"}', id="half a character"),
        pytest.param(make_record().to_bytes().replace(b"0", b"1", 1), id="one byte changed"),
    ],
)
def test_a_part_whose_record_cannot_be_read_does_not_exist(tmp_path: Path, data: bytes) -> None:
    write_record(tmp_path, make_record()).write_bytes(data)
    assert read_journal(LocalFiles(tmp_path)) == ({}, ["part-00000.json"])


@pytest.mark.parametrize(
    "name", ["part-00001.json", "part-0.json", "part-abcde.json", "part-00000 (copy).json"]
)
def test_a_record_under_another_name_is_no_record(tmp_path: Path, name: str) -> None:
    write_record(tmp_path, make_record(), name)
    assert read_journal(LocalFiles(tmp_path)) == ({}, [name])


def test_a_broken_record_does_not_hide_the_others(tmp_path: Path) -> None:
    write_record(tmp_path, make_record(0)).write_bytes(b"")
    write_record(tmp_path, make_record(1))
    assert read_journal(LocalFiles(tmp_path)) == ({1: make_record(1)}, ["part-00000.json"])

"""Validating whole stores: what is no store, what is not finished, what lies elsewhere, what means harm."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relabel_store import spec
from relabel_store.canonical import canonical_json, with_digest
from relabel_store.errors import (
    FormatError,
    OptionError,
    StoreNotFoundError,
    UnknownEncodingError,
    UnsupportedVersionError,
)
from relabel_store.store import local_files
from relabel_store.store.encodings import ENCODINGS
from relabel_store.store.files import FileEntry
from relabel_store.store.local_files import LocalFiles
from relabel_store.store.remote_files import RemoteFiles
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_manifest, make_store
from relabel_store.validate.finding import Finding
from relabel_store.validate.rule import Level
from relabel_store.validate.run import validate_store
from relabel_store.validate.scan import ScannedPart
from relabel_store.validate.stage import ValidationObserver

ARCHIVE = Path(__file__).parents[1] / "data" / "stores" / "valid" / "format-1.0"
every_encoding = pytest.mark.parametrize("encoding", ENCODINGS)


@pytest.fixture
def store(tmp_path: Path, valid_store: Callable[[str], Path]) -> Callable[[str], Path]:
    """Return a store of the test's own."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(valid_store(name), tmp_path / name))

    return copy


def change_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_bytes())
    edit(document)
    path.write_bytes(canonical_json(with_digest(document) if "digest" in document else document))


# What is there


def test_the_store_of_the_first_release_is_valid():
    report = validate_store(ARCHIVE)
    assert not report.has_errors()
    # The digest of its images was made up as well.
    assert report.ids == ("RS414",)
    assert report.digest == json.loads((ARCHIVE / "complete.json").read_bytes())["digest"]


@every_encoding
def test_a_store_that_was_just_written_is_valid(tmp_path: Path, rng: np.random.Generator, encoding: str):
    make_store(tmp_path / "s", rng, make_manifest(encoding=encoding), bad_images={3: "truncated"})
    report = validate_store(tmp_path / "s")
    assert (report.groups, report.skipped, report.files) == ((), (), ())
    assert (report.name, report.state) == ("made-up", "complete")
    assert report.levels == (Level.STRUCTURE, Level.CONTENT, Level.SENSE)


def test_nothing_is_written(store: Callable[[str], Path]):
    path = store("zarr")
    before = {file: file.stat() for file in path.rglob("*")}
    validate_store(path)
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == {
        file: status.st_mtime_ns for file, status in before.items()
    }


def test_a_place_without_a_store_is_an_error(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    for location in (tmp_path, tmp_path / "notes.txt", tmp_path / "nothing"):
        with pytest.raises(StoreNotFoundError, match="expected a store made by `relabel-store build`"):
            validate_store(location)


def test_a_zarr_group_of_somebody_else_is_an_error(tmp_path: Path):
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(FormatError, match="this is no label store"):
        validate_store(tmp_path)


def test_a_version_that_this_release_does_not_read_is_an_error(store: Callable[[str], Path]):
    path = store("zarr")
    change_json(path / "complete.json", lambda document: document.update(format_version="2.0"))
    with pytest.raises(UnsupportedVersionError, match=r"version 2\.0, this release reads 1\.x; upgrade"):
        validate_store(path)


def test_an_encoding_that_this_release_does_not_know_is_an_error(store: Callable[[str], Path]):
    path = store("parquet")
    change_json(
        path / "complete.json", lambda document: document["manifest"]["encoding"].update(name="woven")
    )
    with pytest.raises(UnknownEncodingError, match="'woven'"):
        validate_store(path)


def test_a_version_in_a_damaged_file_is_no_version(store: Callable[[str], Path]):
    path = store("zarr")
    for name in ("complete.json", "zarr.json"):
        data = (path / name).read_bytes()
        (path / name).write_bytes(data.replace(b'"format_version":"1.0"', b'"format_version":"3.0"'))
    with pytest.raises(UnsupportedVersionError):  # nothing is left that says that it is damaged
        validate_store(path)
    shutil.copy(ARCHIVE / "complete.json", path)
    assert "RS115" in validate_store(path).ids


# Levels


@pytest.mark.parametrize(
    ("level", "expected"),
    [("structure", ()), ("content", ("RS601",)), (None, ("RS601",)), (Level.CONTENT, ("RS601",))],
    ids=["structure", "content", "both", "as an object"],
)
def test_a_flipped_bit_in_a_shard_is_for_content_to_find(
    store: Callable[[str], Path], level: str | None, expected: tuple[str, ...]
):
    path = store("zarr") / "values/c/1/0/0/0"
    data = bytearray(path.read_bytes())
    data[9] ^= 4
    path.write_bytes(data)
    report = validate_store(path.parents[5], level=level)
    assert report.ids == expected
    assert report.files == (("values/c/1/0/0/0",) if expected else ())


def test_content_alone_rests_on_the_manifest(store: Callable[[str], Path]):
    path = store("zarr")
    (path / "zarr.json").write_text("{}")
    report = validate_store(path, level="content")
    assert report.has_errors()
    assert [skipped.what for skipped in report.skipped] == ["labels"]


def test_content_alone_notices_missing_files(store: Callable[[str], Path]):
    path = store("zarr")
    (path / "indices/c/1/0/0/0").unlink()
    assert validate_store(path, level="content").ids == ("RS111",)


def test_a_level_that_there_is_not_is_refused(store: Callable[[str], Path]):
    with pytest.raises(ValueError, match="'soul' is not a valid Level"):
        validate_store(store("zarr"), level="soul")


def test_digests_are_compared_where_nobody_knows_what_files_hold(store: Callable[[str], Path]):
    path = store("zarr")
    (path / "zarr.json").write_text("{}")
    shard = path / "values/c/1/0/0/0"
    shard.write_bytes(shard.read_bytes()[::-1])
    report = validate_store(path)
    assert report.ids == ("RS114", "RS601")
    assert report.files == ("values/c/1/0/0/0", "zarr.json")


class Watcher(ValidationObserver):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_start(self, *, level: Level, parts: int) -> None:
        self.told.append((level, parts))

    def on_part(self) -> None:
        self.told.append("part")


def test_progress_is_told(store: Callable[[str], Path]):
    watcher = Watcher()
    validate_store(store("parquet"), observer=watcher)
    assert watcher.told == [(Level.CONTENT, 3), "part", "part", "part"]


class Lookout:
    """A scan of somebody else's."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def look(self, part: ScannedPart) -> list[int]:
        return list(part.rows)

    def add(self, part: int, seen: list[int]) -> Iterable[Finding]:
        self.rows += seen
        return ()

    def conclude(self, *, is_whole: bool) -> Iterable[Finding]:
        self.rows.append(-1 if is_whole else -2)
        return ()


def test_others_can_look_at_the_parts_on_the_way(store: Callable[[str], Path]):
    lookout = Lookout()
    validate_store(store("zarr"), scans=[lookout])
    assert lookout.rows == [*range(10), -1]
    with pytest.raises(OptionError, match="level 'structure', expected 'content'"):
        validate_store(store("parquet"), level="structure", scans=[lookout])


@every_encoding
def test_digests_in_capitals_are_one_finding(tmp_path: Path, rng: np.random.Generator, encoding: str):
    path = tmp_path / "s"
    make_store(path, rng, make_manifest(10, encoding=encoding))

    def shout(document: dict[str, Any]) -> None:
        for entry in document["files"].values():
            entry["sha256"] = entry["sha256"].upper()

    change_json(path / spec.COMPLETE_FILE, shout)
    report = validate_store(path)
    assert report.ids == ("RS105",)
    assert [finding.problem.count for finding in report.findings] == [
        len(json.loads((path / spec.COMPLETE_FILE).read_bytes())["files"])
    ]


# Stores that are being built


@pytest.mark.parametrize("name", ["unfinished-zarr", "unfinished-parquet"])
def test_a_store_that_is_being_built_says_so_and_is_checked_as_far_as_it_is(
    store: Callable[[str], Path], name: str
):
    path = store(name)
    report = validate_store(path)
    assert (report.ids, report.state, report.digest, report.skipped) == (("RS101",), "building", None, ())
    assert "2 of 3 parts are recorded as built" in report.findings[0].message
    shard = next(
        file for file in path.rglob("*") if "00001-of" in file.name or file.match("values/c/1/0/0/0")
    )
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x00")
    assert validate_store(path).ids == ("RS101", "RS601" if name == "unfinished-zarr" else "RS321")


@every_encoding
def test_a_store_that_is_opened_again_may_hold_what_it_held_and_what_it_will(
    tmp_path: Path, rng: np.random.Generator, encoding: str
):
    path = tmp_path / "s"
    make_store(path, rng, make_manifest(10, encoding=encoding))
    StoreWriter.resume(path).drop_parts([1])
    assert validate_store(path).ids == ("RS101",)
    name = ENCODINGS[encoding].manifest_file
    text = (path / name).read_text(encoding="utf-8")
    (path / name).write_text(text.replace('"made-up"', '"made-uq"'), encoding="utf-8")
    report = validate_store(path)
    assert report.ids == ("RS101", "RS115")
    assert report.findings[1].problem.place.file == name


def test_a_damaged_beginning_blames_nothing_else(store: Callable[[str], Path]):
    path = store("unfinished-zarr")
    begun = path / spec.BEGUN_FILE
    begun.write_text(begun.read_text().replace('"sha256":"', '"sha256":"f', 1))
    assert validate_store(path).ids == ("RS101", "RS117")


def test_a_beginning_that_leads_out_of_the_store_is_not_followed(
    store: Callable[[str], Path], tmp_path: Path
):
    path = store("unfinished-zarr")
    (tmp_path / "secret").write_bytes(b"secret")
    entry = FileEntry.of_bytes(b"secret").to_json()
    change_json(path / spec.BEGUN_FILE, lambda document: document.update({"../secret": [entry, entry]}))
    report = validate_store(path)
    assert report.ids == ("RS101", "RS117")
    assert report.findings[1].problem.place.field == "../secret"


def test_locks_and_leftovers_of_a_build_are_let_pass(store: Callable[[str], Path]):
    path = store("unfinished-zarr")
    (path / "journal/running/aside").mkdir(parents=True, exist_ok=True)
    (path / "journal/running/part-00002.lock").touch()
    (path / f"values/c/.2.abc{local_files.PARTIAL_SUFFIX}").write_bytes(b"half")
    (path / "values/c/2/0/0").mkdir(parents=True)
    (path / "values/c/2/0/0/0").write_bytes(b"a shard without a record")
    assert validate_store(path).ids == ("RS101",)


def test_locks_in_a_finished_store_are_not(store: Callable[[str], Path]):
    path = store("zarr")
    (path / "journal/running").mkdir()
    (path / "journal/running/part-00002.lock").touch()
    assert validate_store(path).ids == ("RS112",)


def test_parquet_files_without_their_completion_are_a_store_that_lost_it(store: Callable[[str], Path]):
    path = store("parquet")
    (path / "complete.json").unlink()
    report = validate_store(path)
    assert report.ids == ("RS101", "RS201")
    assert "not copied along" in report.findings[0].message


@pytest.mark.parametrize("name", ["zarr", "parquet"])
def test_what_a_damaged_completion_does_not_cover_is_still_judged(store: Callable[[str], Path], name: str):
    path = store(name)
    data = (path / "complete.json").read_bytes()
    (path / "complete.json").write_bytes(data.replace(b'"digest":"sha256:', b'"digest":"sha257:'))
    # Of the records in there none is sound then: the journal of a Zarr store still has its own.
    assert "RS103" in validate_store(path).ids
    (path / "complete.json").write_bytes(data.replace(b'"files":{', b'"files":{"x":1,', 1))
    report = validate_store(path)
    assert report.ids == ("RS103",)
    shard = path / ("values/c/1/0/0/0" if name == "zarr" else "made-up-00002-of-00003.parquet")
    content = bytearray(shard.read_bytes())
    content[40] ^= 1
    shard.write_bytes(content)
    assert validate_store(path).ids == ("RS103", "RS601")


# Elsewhere


@every_encoding
def test_objects_are_judged_as_files_are(tmp_path: Path, rng: np.random.Generator, encoding: str):
    files = RemoteFiles(f"memory://bucket/{tmp_path.name}")
    make_store(files, rng, make_manifest(10, encoding=encoding), bad_images={3: "truncated"})
    for level in (None, "structure", "content"):
        report = validate_store(files.location, level=level)
        assert report.groups == ()
    assert report.location == files.location
    name = list(ENCODINGS[encoding].files_of_part(make_manifest(10, encoding=encoding), 1))[-1]
    files.write(name, files.read(name)[:-9] + bytes(9))
    assert validate_store(files.location).ids == ("RS601",)
    files.write("notes.txt", b"mine")
    files.remove([name])
    assert validate_store(files.location).ids == ("RS111", "RS112")


def test_sample_tables_in_remote_parts_are_judged_in_the_one_read(
    tmp_path: Path, invalid_store: Callable[[Any], Path]
):
    change = {"parquet": "made-up-00001-of-00003.parquet", "manifest_name": "another"}
    path = invalid_store({"store": "parquet", "changes": [change]})
    files = RemoteFiles(f"memory://bucket/{tmp_path.name}")
    for file in path.iterdir():
        files.write(file.name, file.read_bytes())
    assert validate_store(files.location).ids == ("RS324",)
    report = validate_store(files.location, level="structure")
    assert report.ids == ()
    assert [skipped.what for skipped in report.skipped] == ["sample table"]


class NoListing(http.server.SimpleHTTPRequestHandler):
    """Serves files, and lists none."""

    def list_directory(self, path: Any) -> None:
        self.send_error(404)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@pytest.fixture
def web(store: Callable[[str], Path]) -> Iterator[tuple[Path, str]]:
    pytest.importorskip("aiohttp")
    path = store("zarr")
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *arguments: NoListing(*arguments, directory=str(path.parent))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield path, f"http://127.0.0.1:{server.server_port}/{path.name}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_lists_nothing_is_asked_for_each_file(web: tuple[Path, str]):
    path, url = web
    report = validate_store(url)
    assert report.ids == ()
    assert [skipped.what for skipped in report.skipped] == ["files that are not listed"]
    (path / "rest/c/1/0/0").unlink()
    (path / "samples.parquet").unlink()
    assert validate_store(url).files == ("rest/c/1/0/0", "samples.parquet")


# Strangers


def test_a_manifest_that_claims_billions_of_parts_costs_nothing(store: Callable[[str], Path]):
    path = store("zarr")

    def claim(document: dict[str, Any]) -> None:
        manifest = document["attributes"]["relabel_store"]
        manifest["num_samples"] = manifest["images"]["count"] = 2**52
        manifest["layout"] = {"shard_rows": 1, "chunk_rows": 1}
        manifest["statistics"]["bad_images"] = 2**52 - 9

    change_json(path / "zarr.json", claim)
    entry = FileEntry.of_bytes((path / "zarr.json").read_bytes()).to_json()
    change_json(path / "complete.json", lambda document: document["files"].update({"zarr.json": entry}))
    assert "RS105" in validate_store(path).ids
    (path / "complete.json").write_text("{")
    assert "RS111" in validate_store(path).ids
    (path / "complete.json").unlink()
    assert "RS101" in validate_store(path).ids


@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd", "journal/../../outside.json"])
def test_a_list_that_leads_out_of_the_store_is_not_followed(
    store: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str
):
    path = store("zarr")
    (path.parent / "outside.json").write_text("{}")
    entry = {"size_bytes": 2, "sha256": "0" * 64}
    change_json(path / "complete.json", lambda document: document["files"].update({name: entry}))
    (path / "zarr.json").write_text("{}")  # so that nobody knows which files there should be
    asked: list[str] = []
    read, measure = LocalFiles.read, LocalFiles.entry

    def note_read(self: LocalFiles, file: str) -> bytes:
        asked.append(file)
        return read(self, file)

    def note_entry(self: LocalFiles, file: str) -> Any:
        asked.append(file)
        return measure(self, file)

    monkeypatch.setattr(LocalFiles, "read", note_read)
    monkeypatch.setattr(LocalFiles, "entry", note_entry)
    assert "RS105" in validate_store(path).ids
    assert "indices/c/0/0/0/0" in asked
    assert name not in asked


@pytest.mark.parametrize("name", ["../outside-00000-of-00001.parquet", "../../outside"])
def test_a_record_that_leads_out_of_the_store_is_not_followed(
    store: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str
):
    path = store("parquet")
    data = (path / "made-up-00000-of-00003.parquet").read_bytes()
    (path / name).write_bytes(data)
    entry = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def lead_out(document: dict[str, Any]) -> None:
        document["parts"][0]["files"] = {name: entry}
        document["parts"][0] = with_digest(document["parts"][0])

    change_json(path / "complete.json", lead_out)
    damaged = (path / "complete.json").read_bytes().replace(b'"files":{', b'"files":{"x":1,', 1)
    (path / "complete.json").write_bytes(damaged)
    read = LocalFiles.read
    asked: list[str] = []

    def note(self: LocalFiles, file: str) -> bytes:
        asked.append(file)
        return read(self, file)

    monkeypatch.setattr(LocalFiles, "read", note)
    assert "RS103" in validate_store(path).ids
    assert asked
    assert name not in asked


@pytest.mark.parametrize("name", ["complete.json", "zarr.json", "samples.parquet", "journal/part-00001.json"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(store: Callable[[str], Path], name: str):
    path = store("zarr")
    (path / name).unlink()
    os.mkfifo(path / name)
    assert "RS112" in validate_store(path).ids


def test_half_characters_are_found_and_can_be_printed(store: Callable[[str], Path]):
    path = store("zarr")
    data = (path / "complete.json").read_bytes()
    (path / "complete.json").write_bytes(data.replace(b'"reason":"', b'"reason":"\\ud800'))
    report = validate_store(path)
    assert "RS103" in report.ids
    json.dumps(report.to_json()).encode()
    "\n".join(finding.message for finding in report.findings).encode()


def test_every_row_may_be_bad(tmp_path: Path, rng: np.random.Generator, invalid_store: Callable[[Any], Path]):
    changes = [{"labels": part, "set": {"indices": {":,0": 999}}} for part in range(3)]
    report = validate_store(invalid_store({"store": "zarr", "changes": changes}))
    assert "RS612" in report.ids
    assert {group.rule.id: group.count for group in report.groups}["RS612"] == 9
    assert spec.INDICES in report.files[0]

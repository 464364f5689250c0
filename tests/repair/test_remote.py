"""Repairing stores in an S3 server of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relabel_store import spec
from relabel_store.errors import DamagedFileError, ImagesChangedError, NoLabelError
from relabel_store.generate.toy import ColourTeacher
from relabel_store.repair.report import Remedy, RepairReport
from relabel_store.repair.run import repair_store
from relabel_store.store.location import open_files
from relabel_store.store.reader import open_store
from relabel_store.store.remote_files import RemoteFiles
from relabel_store.store.writer import StoreWriter
from relabel_store.validate.run import validate_store

Contents = dict[str, bytes | None]
Damage = Callable[[RemoteFiles, str], None]

ENCODINGS = ("zarr", "parquet", pytest.param("packed", marks=pytest.mark.slow))


@pytest.fixture
def store(s3_folder: str, whole: Callable[[str], Path]) -> Callable[[str], RemoteFiles]:
    """Return the object-store copy of the store of an encoding, to be damaged."""

    def copy(encoding: str) -> RemoteFiles:
        files = RemoteFiles(f"{s3_folder}/labels.{encoding}")
        for name, data in contents_of(whole(encoding)).items():
            assert data is not None
            files.write(name, data)
        return files

    return copy


def contents_of(location: str | Path) -> Contents:
    files = open_files(location)
    return dict(files.read_many(files.listing("", deep=True)))


def flip(files: RemoteFiles, name: str) -> None:
    data = bytearray(files.read(name))
    data[len(data) // 2] ^= 1
    files.write(name, bytes(data))


def cut(files: RemoteFiles, name: str) -> None:
    data = files.read(name)
    files.write(name, data[: len(data) // 2])


def remove(files: RemoteFiles, name: str) -> None:
    files.remove([name])


DAMAGES = pytest.mark.parametrize("damage", [flip, cut, remove], ids=["flipped", "cut", "missing"])


def file_of_part(files: RemoteFiles, part: int) -> str:
    names = files.listing("", deep=True)
    mark = f"-{part:05d}-of-"
    return next(name for name in names if name == f"indices/c/{part}/0/0/0" or mark in name)


def repaired(files: RemoteFiles, photos: str | Path, **options: Any) -> RepairReport:
    return repair_store(
        files.location, images=photos, **{"teacher": ColourTeacher(), "workers": 0, **options}
    )


@DAMAGES
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_damaged_part_is_labelled_again_and_nothing_else_is_written(
    store: Callable[[str], RemoteFiles],
    whole: Callable[[str], Path],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    damage: Damage,
):
    files = store(encoding)
    target = file_of_part(files, 1)
    damage(files, target)
    write, written = RemoteFiles.write, []

    def noted(self: RemoteFiles, name: str, data: bytes) -> None:
        if not name.startswith(f"{spec.RUNNING_DIR}/"):  # where who labels says so, as in a build
            written.append(name)
        write(self, name, data)

    monkeypatch.setattr(RemoteFiles, "write", noted)
    report = repaired(files, photos)
    assert (report.is_whole, report.location) == (True, files.location)
    assert [(part.part, part.rows, part.remedy) for part in report.parts] == [
        (1, range(4, 8), Remedy.RESTORED)
    ]
    assert report.digest_before == report.digest_after == open_store(whole(encoding)).digest
    assert written == [target]
    assert contents_of(files.location) == contents_of(whole(encoding))


@pytest.mark.parametrize(
    ("encoding", "damage"),
    [("zarr", remove), ("zarr", flip), ("parquet", cut), ("parquet", remove), ("packed", flip)],
)
def test_dropping_leaves_a_valid_store_whose_other_rows_read_the_same(
    store: Callable[[str], RemoteFiles],
    whole: Callable[[str], Path],
    photos: Path,
    encoding: str,
    damage: Damage,
):
    files = store(encoding)
    damage(files, file_of_part(files, 1))
    report = repair_store(files.location, drop=True, images=None if encoding == "zarr" else photos)
    assert report.is_whole
    assert [(part.part, part.remedy) for part in report.parts] == [(1, Remedy.DROPPED)]
    assert report.digest_before != report.digest_after
    assert not validate_store(files.location).has_errors()
    left, before = open_store(files.location), open_store(whole(encoding))
    assert len(left) == len(before)
    kept = [row for row in (*range(4), 8) if row not in before.bad_images]
    found, expected = left.read_rows(kept), before.read_rows(kept)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.values, expected.values)
    for row in range(4, 8):
        with pytest.raises(NoLabelError, match="dropped by a repair"):
            left[row]
    assert repair_store(files.location).digest_after == report.digest_after


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("samples.parquet", cut),
        ("values/zarr.json", remove),
        ("journal/part-00001.json", flip),
        ("complete.json", remove),
    ],
)
def test_files_that_describe_a_zarr_store_are_made_again(
    store: Callable[[str], RemoteFiles],
    whole: Callable[[str], Path],
    photos: Path,
    name: str,
    damage: Damage,
):
    files = store("zarr")
    damage(files, name)
    report = repaired(files, photos)
    assert (report.is_whole, report.files) == (True, (name,))
    assert contents_of(files.location) == contents_of(whole("zarr"))


def test_every_part_can_be_damaged_at_once_and_the_images_lie_there_too(
    store: Callable[[str], RemoteFiles], whole: Callable[[str], Path], photos: Path, s3_folder: str
):
    there = RemoteFiles(f"{s3_folder}/photos")
    for path in photos.rglob("*.png"):
        there.write(path.relative_to(photos).as_posix(), path.read_bytes())
    files = store("zarr")
    for part, damage in enumerate((flip, cut, remove)):
        damage(files, file_of_part(files, part))
    assert [part.part for part in repaired(files, there.location).parts] == [0, 1, 2]
    assert contents_of(files.location) == contents_of(whole("zarr"))


@pytest.mark.parametrize(("encoding", "step"), [("zarr", "write_part"), ("parquet", "complete")])
def test_a_drop_that_was_killed_goes_on(
    store: Callable[[str], RemoteFiles],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    step: str,
):
    def killed(*_: object) -> None:
        raise InterruptedError("stopped by the test")

    files = store(encoding)
    remove(files, file_of_part(files, 1))
    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, step, killed)
        with pytest.raises(InterruptedError):
            repair_store(files.location, drop=True, images=photos)
    assert validate_store(files.location).has_errors()
    repair_store(files.location, drop=True)
    assert not validate_store(files.location).has_errors()


def test_what_was_dropped_is_asked_for_and_other_images_are_refused(
    store: Callable[[str], RemoteFiles], photos: Path, tmp_path: Path
):
    files = store("parquet")
    remove(files, file_of_part(files, 1))
    before = contents_of(files.location)
    with pytest.raises(DamagedFileError, match="give --images"):
        repair_store(files.location, drop=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes((photos / "red" / "0.png").read_bytes())
    with pytest.raises(ImagesChangedError):
        repaired(files, tmp_path / "other")
    assert contents_of(files.location) == before

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from relabel_store.errors import (
    DamagedFileError,
    FormatError,
    ImagesChangedError,
    NoLabelError,
    OptionError,
    StoreBusyError,
    StoreNotFoundError,
    TeacherError,
)
from relabel_store.generate.observer import BatchReport, BuildObserver
from relabel_store.generate.toy import ColourTeacher, build_colours
from relabel_store.manifest import Weights
from relabel_store.repair.report import Remedy, RepairReport
from relabel_store.repair.run import repair_store
from relabel_store.store.locks import hold_lock
from relabel_store.store.reader import open_store
from relabel_store.testing import file_digests, make_manifest, make_store
from relabel_store.validate.run import validate_store

Stores = Callable[[str], Path]

ENCODINGS = ("zarr", "parquet", "packed")
FACTORY = "relabel_store.generate.toy:make_colour_teacher"


def flip(path: Path, at: float = 0.5) -> None:
    """Flip a bit of a file, so far into it."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    """Cut off the second half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def file_of_part(path: Path, part: int) -> Path:
    """Return a file of a part of a store."""
    zarr = path / "indices" / "c" / str(part) / "0" / "0" / "0"
    return zarr if zarr.exists() else next(path.glob(f"*-{part:05d}-of-*"))


def repaired(path: Path, photos: Path, **options: Any) -> RepairReport:
    return repair_store(path, images=photos, **{"teacher": ColourTeacher(), "workers": 0, **options})


def stamps(path: Path) -> dict[str, tuple[int, int]]:
    found = {file.relative_to(path).as_posix(): file.stat() for file in path.rglob("*") if file.is_file()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink], ids=["flipped", "cut", "missing"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_damaged_part_is_labelled_again_and_nothing_else_is_touched(
    store: Stores, whole: Stores, photos: Path, encoding: str, damage: Callable[[Path], None]
):
    path = store(encoding)
    before = stamps(path)
    target = file_of_part(path, 1)
    damage(target)
    report = repaired(path, photos)
    assert report.is_whole
    assert [(part.part, part.rows, part.remedy) for part in report.parts] == [
        (1, range(4, 8), Remedy.RESTORED)
    ]
    assert report.digest_before == report.digest_after == open_store(whole(encoding)).digest
    assert file_digests(path) == file_digests(whole(encoding))
    after = stamps(path)
    name = target.relative_to(path).as_posix()
    assert after.pop(name) != before.pop(name)
    assert after == before


def test_a_bad_image_of_a_damaged_part_stays_one(store: Stores, whole: Stores, photos: Path):
    path = store("zarr")
    bad = open_store(path).row_of("green/1")
    flip(file_of_part(path, bad // 4))
    assert repaired(path, photos).is_whole
    with pytest.raises(NoLabelError, match="decode"):
        open_store(path)[bad]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_part_can_be_damaged_at_once(store: Stores, whole: Stores, photos: Path, encoding: str):
    path = store(encoding)
    for part in range(3):
        file_of_part(path, part).unlink()
    assert [part.part for part in repaired(path, photos).parts] == [0, 1, 2]
    assert file_digests(path) == file_digests(whole(encoding))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_whole_store_is_left_alone(store: Stores, photos: Path, encoding: str):
    path = store(encoding)
    before = stamps(path)
    for options in ({}, {"images": photos}, {"drop": True}):
        report = repair_store(path, **options)
        assert report.is_whole
        assert (report.files, report.parts) == ((), ())
    assert stamps(path) == before


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink], ids=["flipped", "cut", "missing"])
@pytest.mark.parametrize("name", ["indices/zarr.json", "values/zarr.json", "journal/part-00001.json"])
def test_files_that_describe_a_store_are_made_again_without_images(
    store: Stores, whole: Stores, name: str, damage: Callable[[Path], None]
):
    path = store("zarr")
    damage(path / name)
    report = repair_store(path)
    assert report.is_whole
    assert report.files == (name,)
    assert file_digests(path) == file_digests(whole("zarr"))


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink], ids=["flipped", "cut", "missing"])
def test_the_sample_table_is_made_again_from_the_images(
    store: Stores, whole: Stores, photos: Path, damage: Callable[[Path], None]
):
    path = store("zarr")
    damage(path / "samples.parquet")
    flip(file_of_part(path, 2))
    without = repair_store(path)
    assert not without.is_whole
    assert (without.files, without.parts) == ((), ())
    report = repaired(path, photos)
    assert report.is_whole
    assert report.files == ("samples.parquet",)
    assert file_digests(path) == file_digests(whole("zarr"))


def test_the_sample_table_of_other_images_is_not_taken(store: Stores, photos: Path, tmp_path: Path):
    path = store("zarr")
    flip(path / "samples.parquet")
    damaged = (path / "samples.parquet").read_bytes()
    other = Path(shutil.copytree(photos, tmp_path / "photos"))
    Image.new("RGB", (9, 9), "blue").save(other / "red" / "0.png")
    with pytest.raises(DamagedFileError, match="not the one that was recorded"):
        repaired(path, other)
    assert (path / "samples.parquet").read_bytes() == damaged


def test_a_manifest_that_was_written_in_other_words_is_put_right(store: Stores, whole: Stores):
    path = store("zarr")
    document = json.loads((path / "zarr.json").read_bytes())
    del document["consolidated_metadata"]["metadata"]["indices"]
    (path / "zarr.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    assert repair_store(path).files == ("zarr.json",)
    assert file_digests(path) == file_digests(whole("zarr"))


@pytest.mark.parametrize("damage", ["flipped behind", "cut off behind"])
def test_a_manifest_around_which_all_is_damaged_is_put_right(store: Stores, whole: Stores, damage: str):
    path = store("zarr")
    data = (path / "zarr.json").read_bytes()
    behind = data.index(b'"consolidated_metadata"')
    (path / "zarr.json").write_bytes(
        data[: behind + 40] if damage.startswith("cut") else data[:behind] + b"?" + data[behind + 1 :]
    )
    report = repair_store(path)
    assert report.is_whole
    assert report.files == ("zarr.json",)
    assert file_digests(path) == file_digests(whole("zarr"))


def test_a_damaged_manifest_is_not_guessed(store: Stores):
    path = store("zarr")
    text = (path / "zarr.json").read_text(encoding="utf-8")
    (path / "zarr.json").write_text(text.replace('"k":3', '"k":2'), encoding="utf-8")
    before = file_digests(path)
    with pytest.raises(DamagedFileError, match="holds the manifest"):
        repair_store(path)
    assert file_digests(path) == before


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink], ids=["flipped", "cut", "missing"])
def test_what_commits_a_zarr_store_is_made_again_from_its_journal(
    store: Stores, whole: Stores, photos: Path, damage: Callable[[Path], None]
):
    path = store("zarr")
    damage(path / "complete.json")
    report = repair_store(path)
    assert report.is_whole
    assert report.files == ("complete.json",)
    is_lost = damage is Path.unlink
    assert (report.digest_before, report.is_root_new) == (None if is_lost else report.digest_after, is_lost)
    assert file_digests(path) == file_digests(whole("zarr"))


def test_a_zarr_store_may_lose_a_part_a_record_and_what_commits_it(
    store: Stores, whole: Stores, photos: Path
):
    path = store("zarr")
    (path / "complete.json").unlink()
    (path / "indices" / "zarr.json").unlink()
    (path / "journal" / "part-00000.json").unlink()
    flip(file_of_part(path, 2))
    assert not repair_store(path).is_whole
    report = repaired(path, photos)
    assert report.is_whole
    assert [part.part for part in report.parts] == [0, 2]
    assert file_digests(path) == file_digests(whole("zarr"))


def test_without_what_commits_it_a_store_that_contradicts_itself_is_not_vouched_for(store: Stores):
    path = store("zarr")
    (path / "complete.json").unlink()
    cut(path / "samples.parquet")
    with pytest.raises(DamagedFileError, match="nothing tells what is right"):
        repair_store(path)
    assert not (path / "complete.json").exists()


def change_text(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize("encoding", ["parquet", "packed"])
@pytest.mark.parametrize(
    ("old", "new"),
    [('"manifest":{', '"manifest":['), ('"k":3', '"k":2'), ('"files":', '"piles":')],
    ids=["no json", "manifest", "list"],
)
def test_what_commits_other_encodings_is_made_again_to_its_digest(
    store: Stores, whole: Stores, encoding: str, old: str, new: str
):
    path = store(encoding)
    change_text(path / "complete.json", old, new)
    report = repair_store(path)
    assert report.is_whole
    assert (report.files, report.parts) == (("complete.json",), ())
    assert report.digest_before == report.digest_after == open_store(whole(encoding)).digest
    assert not report.is_root_new
    assert file_digests(path) == file_digests(whole(encoding))


@pytest.mark.parametrize("encoding", ["parquet", "packed"])
def test_a_digest_that_was_damaged_makes_the_root_a_new_one(store: Stores, whole: Stores, encoding: str):
    path = store(encoding)
    digest = open_store(path).digest
    assert digest is not None
    other = f"sha256:{'0' * 64}"
    change_text(path / "complete.json", digest, other)
    report = repair_store(path)
    assert report.is_whole
    assert (report.digest_before, report.digest_after, report.is_root_new) == (other, digest, True)
    assert file_digests(path) == file_digests(whole(encoding))


@pytest.mark.parametrize("encoding", ["parquet", "packed"])
@pytest.mark.parametrize("defect", ["record", "part", "cut", "empty"])
def test_what_nothing_else_holds_is_not_made_up(store: Stores, encoding: str, defect: str):
    path = store(encoding)
    if defect == "record":
        change_text(path / "complete.json", '"exif_oriented":0,"facts"', '"exif_oriented":1,"facts"')
    elif defect == "part":
        change_text(path / "complete.json", '"k":3', '"k":2')
        flip(file_of_part(path, 1))
    else:
        data = (path / "complete.json").read_bytes()
        (path / "complete.json").write_bytes(data[: len(data) // 2] if defect == "cut" else b"")
    before = file_digests(path)
    with pytest.raises(DamagedFileError):
        repair_store(path)
    assert file_digests(path) == before


@pytest.mark.parametrize("encoding", ["parquet", "packed"])
def test_parts_alone_are_no_store_to_repair(store: Stores, encoding: str):
    path = store(encoding)
    (path / "complete.json").unlink()
    before = file_digests(path)
    with pytest.raises(StoreNotFoundError, match="why images are bad"):
        repair_store(path)
    assert file_digests(path) == before


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_without_images_damaged_parts_are_named_and_left(store: Stores, encoding: str):
    path = store(encoding)
    target = file_of_part(path, 1)
    target.unlink()
    before = stamps(path)
    report = repair_store(path)
    assert not report.is_whole
    assert any(repr(target.relative_to(path).as_posix()) in message for message in report.left)
    assert stamps(path) == before


# Whose labels they are


@pytest.mark.parametrize("encoding", ["zarr", "parquet"])
def test_an_image_that_was_changed_is_refused_by_name(
    store: Stores, photos: Path, tmp_path: Path, encoding: str
):
    path = store(encoding)
    # In the middle of the maps, so that the samples in the file of the part can still be read.
    shard = file_of_part(path, 0)
    flip(shard, 0.3 if encoding == "zarr" else _place_of_maps(shard))
    before = file_digests(path)
    other = Path(shutil.copytree(photos, tmp_path / "photos"))
    Image.new("RGB", (9, 9), "blue").save(other / "green" / "0.png")
    with pytest.raises(ImagesChangedError, match=r"'green/0.png' is not the file that was labelled"):
        repaired(path, other)
    assert file_digests(path) == before


def _place_of_maps(path: Path) -> float:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        group = file.metadata.row_group(0)
        last = group.column(group.num_columns - 1)
        assert last.path_in_schema.startswith("values")
        offset = last.data_page_offset + last.total_compressed_size - 1
    return (offset + 0.5) / path.stat().st_size


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_images_with_other_names_are_refused(store: Stores, photos: Path, tmp_path: Path, encoding: str):
    path = store(encoding)
    file_of_part(path, 1).unlink()
    other = Path(shutil.copytree(photos, tmp_path / "photos"))
    (other / "red" / "0.png").rename(other / "red" / "9.png")
    with pytest.raises((ImagesChangedError, DamagedFileError), match=r"red/9.png|not those that it"):
        repaired(path, other)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("options", [{}, {"drop": True, "teacher": None}], ids=["label", "drop"])
def test_fewer_images_than_were_labelled_are_refused(
    store: Stores, photos: Path, tmp_path: Path, encoding: str, options: dict[str, Any]
):
    path = store(encoding)
    file_of_part(path, 2).unlink()
    before = file_digests(path)
    with pytest.raises(ImagesChangedError, match="3, expected 9 as the store records"):
        repaired(path, photos / "red", **options)
    assert file_digests(path) == before


def test_of_more_images_those_are_taken_that_a_limit_had_left(photos: Path, tmp_path: Path):
    build_colours(photos, tmp_path / "s", limit=5)
    before = file_digests(tmp_path / "s")
    file_of_part(tmp_path / "s", 1).unlink()
    (tmp_path / "s" / "samples.parquet").unlink()
    assert repaired(tmp_path / "s", photos).is_whole
    assert file_digests(tmp_path / "s") == before


def test_what_a_killed_repair_left_beside_a_whole_store_is_removed(store: Stores, whole: Stores):
    path = store("zarr")
    (path / "journal" / "running").mkdir()
    (path / "journal" / "running" / "repair.lock").touch()
    (path / "journal" / "running" / "part-00001.json").write_text("{}")
    assert validate_store(path).has_errors()
    assert repair_store(path).is_whole
    assert file_digests(path) == file_digests(whole("zarr"))


def test_two_repairs_at_once_are_refused(store: Stores):
    path = store("zarr")
    (path / "indices" / "zarr.json").unlink()
    with (
        hold_lock(path / "journal" / "running" / "repair.lock"),
        pytest.raises(StoreBusyError, match="another process is repairing it"),
    ):
        repair_store(path)
    assert not (path / "indices" / "zarr.json").exists()
    assert (path / "journal" / "running" / "repair.lock").exists()
    assert repair_store(path).is_whole


class NamedTeacher(ColourTeacher):
    """A teacher whose weights have a digest."""

    def __init__(self, digest: str, offset: float = 10.0) -> None:
        super().__init__(offset=offset)
        self.facts = replace(self.facts, weights=Weights("made up", f"sha256:{digest * 64}"))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_other_weights_are_refused(photos: Path, tmp_path: Path, encoding: str):
    path = tmp_path / "s"
    build_colours(photos, path, encoding=encoding, teacher=NamedTeacher("a"))
    flip(file_of_part(path, 1))
    before = file_digests(path)
    with pytest.raises(TeacherError, match=r"weights sha256:bbbbbbbbbbbb…, recorded sha256:aaaaaaaaaaaa…"):
        repaired(path, photos, teacher=NamedTeacher("b"))
    assert file_digests(path) == before


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_teacher_without_a_digest_has_to_give_the_recorded_bytes(
    store: Stores, photos: Path, encoding: str
):
    path = store(encoding)
    flip(file_of_part(path, 1))
    before = file_digests(path)
    with pytest.raises(TeacherError, match="gives other labels for part 1 than those recorded"):
        repaired(path, photos, teacher=ColourTeacher(offset=11.0))
    assert file_digests(path) == before


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_same_weights_may_give_other_bytes_and_the_store_another_digest(
    photos: Path, tmp_path: Path, encoding: str
):
    path = tmp_path / "s"
    build_colours(photos, path, encoding=encoding, teacher=NamedTeacher("a"))
    kept = open_store(path).read_rows([0, 8])
    for part in (0, 1):
        file_of_part(path, part).unlink()
    # As another version of what computes would: the weights are the same, and some values one step off.
    report = repaired(path, photos, teacher=NamedTeacher("a", offset=10.125))
    assert report.is_whole
    assert [part.remedy for part in report.parts] == [Remedy.RELABELLED] * 2
    assert report.digest_before != report.digest_after == open_store(path).digest
    now = open_store(path).read_rows([0, 8])
    np.testing.assert_array_equal(now.values[0], kept.values[0] + 0.125)
    np.testing.assert_array_equal(now.values[1], kept.values[1])


def test_the_teacher_of_a_name_that_leads_nowhere_is_asked_for(store: Stores, photos: Path):
    path = store("zarr")
    flip(file_of_part(path, 1))
    with pytest.raises(TeacherError, match="--teacher module:factory"):
        repair_store(path, images=photos, workers=0)
    assert repair_store(path, images=photos, teacher=FACTORY, workers=0).is_whole


def test_a_converted_store_has_no_teacher_to_label_with(tmp_path: Path, rng: np.random.Generator):
    manifest = replace(make_manifest(), build=None)
    make_store(tmp_path / "s", rng, manifest)
    flip(file_of_part(tmp_path / "s", 0))
    before = file_digests(tmp_path / "s")
    samples = open_store(tmp_path / "s").samples
    for name in samples["path"].to_pylist():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "photos" / name)
    with pytest.raises(TeacherError, match="converted, not built"):
        repair_store(tmp_path / "s", images=tmp_path / "photos", workers=0)
    assert file_digests(tmp_path / "s") == before
    assert repair_store(tmp_path / "s", drop=True).is_whole


@pytest.mark.parametrize("options", [{}, {"drop": True, "images": "photos"}])
def test_a_teacher_that_would_not_be_asked_is_an_error(store: Stores, options: dict[str, Any]):
    with pytest.raises(OptionError, match="teacher"):
        repair_store(store("zarr"), teacher=FACTORY, **options)


# Stopped half-way


class StopAfter(BuildObserver):
    """Breaks a repair off in the middle, as a crash would."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_batch(self, report: BatchReport) -> None:
        self.left -= 1
        if self.left < 0:
            raise InterruptedError("stopped by the test")


@pytest.mark.parametrize("batches", range(5))
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_repair_that_was_stopped_goes_on(
    store: Stores, whole: Stores, photos: Path, encoding: str, batches: int
):
    path = store(encoding)
    for part in range(3):
        flip(file_of_part(path, part))
    with pytest.raises(InterruptedError):
        repaired(path, photos, observer=StopAfter(batches))
    report = repaired(path, photos)
    assert report.is_whole
    assert file_digests(path) == file_digests(whole(encoding))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_repair_with_other_bytes_that_was_stopped_goes_on(photos: Path, tmp_path: Path, encoding: str):
    path, other = tmp_path / "s", tmp_path / "other"
    for target in (path, other):
        build_colours(photos, target, encoding=encoding, teacher=NamedTeacher("a"), name="colours")
        for part in (0, 1):
            file_of_part(target, part).unlink()
    changed = NamedTeacher("a", offset=10.125)
    repaired(other, photos, teacher=changed)
    with pytest.raises(InterruptedError):
        repaired(path, photos, teacher=changed, observer=StopAfter(3))
    assert validate_store(path).has_errors()
    report = repaired(path, photos, teacher=changed)
    assert report.is_whole
    assert file_digests(path) == file_digests(other)


def test_a_store_that_was_never_finished_is_finished_with_what_it_records(
    whole: Stores, photos: Path, tmp_path: Path
):
    build_colours(photos, tmp_path / "s", share="1/3")
    assert not repair_store(tmp_path / "s").is_whole
    report = repaired(tmp_path / "s", photos)
    assert [part.part for part in report.parts] == [0, 2]
    assert not report.is_root_new
    assert file_digests(tmp_path / "s") == file_digests(whole("zarr"))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_whatever_is_flipped_comes_back_as_it_was_or_is_refused(
    store: Stores, whole: Stores, photos: Path, encoding: str
):
    path, intact = store(encoding), file_digests(whole(encoding))
    rng = np.random.default_rng(7)
    mended = set()
    for name in intact:
        for at in rng.random(2):
            data = (path / name).read_bytes()
            flip(path / name, at)
            damaged = file_digests(path)
            try:
                report = repaired(path, photos)
            except FormatError:
                assert file_digests(path) == damaged
                (path / name).write_bytes(data)
            else:
                assert report.is_whole
                assert file_digests(path) == intact
                mended.add(name)
    only_copies = {"zarr.json"} if encoding == "zarr" else {"complete.json"}
    assert set(intact) - mended <= only_copies

from __future__ import annotations

import json
import logging
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from relabel_store.errors import ImageSourceError
from relabel_store.images import tars as tars_module
from relabel_store.images.recognise import open_images
from relabel_store.images.tars import TarImages

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, add_member: Callable[..., None]) -> Make:
    """Write a tar of some files."""

    def write(files: dict[str, bytes] | list[str], name: str = "x.tar") -> Path:
        contents = files if isinstance(files, dict) else {path: path.encode() for path in files}
        with tarfile.open(tmp_path / name, "w") as tar:
            for path, data in contents.items():
                add_member(tar, path, data)
        return tmp_path / name

    return write


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tars that were scanned."""
    scanned: list[str] = []
    scan = tars_module._scan
    monkeypatch.setattr(
        tars_module, "_scan", lambda place, inside=None: scanned.append(place.name) or scan(place, inside)
    )
    return scanned


@pytest.mark.parametrize(
    ("paths", "ids", "ids_from"),
    [
        (["n1/a.jpg", "n2/a.jpg"], ["n1/a", "n2/a"], "paths"),
        (["./n1/a.jpg", "./n2/a.jpg"], ["n1/a", "n2/a"], "paths"),
        (["train/n1/a.jpg", "train/n2/a.jpg"], ["n1/a", "n2/a"], "paths below 'train/'"),
        (["a/b/n1/x.jpg", "a/b/n1/y.jpg"], ["n1/x", "n1/y"], "paths below 'a/b/'"),
        (["a/n1/x.jpg", "a/y.jpg"], ["a/n1/x", "a/y"], "paths"),
        (["n1/a.jpg", "n1/b.jpg"], ["n1/a", "n1/b"], "paths"),
        (["b.jpg", "a.jpg"], ["b", "a"], "paths"),
        (["é/ä/x.jpg", "é/ö/x.jpg"], ["ä/x", "ö/x"], "paths below 'é/'"),
        (["ab/n1/x.jpg", "ac/n1/x.jpg"], ["ab/n1/x", "ac/n1/x"], "paths"),
    ],
)
def test_folders_above_the_class_folders_are_no_part_of_ids(
    make: Make, paths: list[str], ids: list[str], ids_from: str
):
    source = open_images(make(paths))
    assert (list(source.sample_ids), source.ids_from) == (ids, ids_from)
    assert [source.read(row).decode() for row in range(len(paths))] == paths


def test_rows_keep_the_order_of_the_tar(make: Make):
    source = open_images(make(["c/z.jpg", "c/a.jpg", "b/m.jpg"]))
    assert (list(source.sample_ids), source.order) == (["c/z", "c/a", "b/m"], "source")


@pytest.mark.parametrize("paths", [["c/a.jpg", "c/a.png"], ["c/a.jpg", "./c/a.jpg"]])
def test_two_images_with_one_id_are_refused_by_name(make: Make, paths: list[str]):
    with pytest.raises(ImageSourceError, match="have one sample id, 'c/a'"):
        open_images(make([*paths, "c/b.jpg"] if paths[0] != paths[1] else paths))


def test_a_member_that_was_appended_anew_is_refused(make: Make, add_member: Callable[..., None]):
    path = make(["c/a.jpg", "c/b.jpg"])
    with tarfile.open(path, "a") as tar:
        add_member(tar, "c/a.jpg", b"other")
    with pytest.raises(ImageSourceError, match=r"'c/a\.jpg' and 'c/a\.jpg' have one sample id"):
        open_images(path)


def test_a_tar_without_images_is_refused(make: Make):
    with pytest.raises(ImageSourceError, match=r"no image in the tar, expected files that end in \.jpg"):
        open_images(make(["readme.txt"]))


def test_class_tars_whose_members_have_their_folder_already_do_not_get_it_twice(make: Make, tmp_path: Path):
    inner = {name: make([f"{name[:2]}/a.jpg"], name).read_bytes() for name in ("n1.tar", "n2.tar")}
    source = open_images(make({f"train/{name}": data for name, data in inner.items()}))
    assert list(source.sample_ids) == ["n1/a", "n2/a"]
    assert source.kind == "tar-of-tars"


def test_masks_beside_the_photo_of_a_sample_are_no_images_of_their_own(make: Make):
    source = open_images(
        make(["c/a.cls", "c/a.jpg", "c/a.seg.png", "c/b.left.jpg", "c/b.right.jpg", "c/b.json"])
    )
    assert source.kind == "webdataset"
    assert list(source.sample_ids) == ["c/a", "c/b.left", "c/b.right"]


def test_shards_without_folders_are_called_by_imagenets_names(make: Make):
    make(["n01440764_1.jpg", "n01440764_1.cls"], "train-0000.tar")
    source = open_images(make(["n01443537_2.jpg"], "train-0001.tar").parent / "train-{0000..0001}.tar")
    assert list(source.sample_ids) == ["n01440764/n01440764_1", "n01443537/n01443537_2"]
    assert list(source.class_names) == ["n01440764", "n01443537"]
    assert source.ids_from == "ImageNet's file names"


def test_shards_with_one_key_twice_are_refused(make: Make):
    make(["000.jpg", "000.cls"], "train-0000.tar")
    path = make(["000.jpg", "000.cls"], "train-0001.tar")
    with pytest.raises(ImageSourceError, match="have one sample id, '000'"):
        open_images(path.parent / "train-*.tar")


def test_the_index_lies_beside_the_store_and_is_made_once(make: Make, tmp_path: Path, scans: list[str]):
    path = make(["c/a.jpg", "c/b.jpg"])
    first = open_images(path, beside=tmp_path / "labels.zarr")
    again = open_images(path, beside=tmp_path / "labels.zarr")
    assert scans == ["x.tar"]
    assert sorted(one.suffix for one in (tmp_path / "labels.zarr.tar-index").iterdir()) == [".arrow", ".json"]
    assert [again.read(row) for row in (0, 1)] == [first.read(row) for row in (0, 1)]
    assert list(again.sample_ids) == list(first.sample_ids)


def test_without_a_store_the_index_lies_in_the_cache(make: Make, cache: Path, scans: list[str]):
    path = make(["c/a.jpg"])
    assert open_images(path).read(0) == open_images(path).read(0) == b"c/a.jpg"
    assert scans == ["x.tar"]
    assert len(list((cache / "tar-index").iterdir())) == 1


def test_where_a_store_cannot_have_a_neighbour_the_index_goes_to_the_cache(
    make: Make, tmp_path: Path, cache: Path
):
    (tmp_path / "labels.zarr.tar-index").write_text("in the way")
    open_images(make(["c/a.jpg"]), beside=tmp_path / "labels.zarr")
    assert len(list((cache / "tar-index").iterdir())) == 1


def test_where_nothing_can_be_written_the_index_stays_in_memory(
    make: Make, cache: Path, caplog: pytest.LogCaptureFixture
):
    cache.write_text("in the way")
    source = open_images(make(["c/a.jpg"]))
    assert pickle.loads(pickle.dumps(source)).read(0) == b"c/a.jpg"
    assert "cannot be kept anywhere" in caplog.text


@pytest.mark.parametrize("change", ["time", "size"])
def test_an_index_of_a_tar_that_changed_is_made_anew(make: Make, scans: list[str], cache: Path, change: str):
    path = make(["c/a.jpg", "c/b.jpg"])
    open_images(path)
    if change == "time":
        before = path.stat()
        make(["c/b.jpg", "c/a.jpg"])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    else:
        make(["c/b.jpg", "c/a.jpg", "c/" + "c" * 200 + ".jpg", *[f"d/{n}.jpg" for n in range(20)]])
    assert open_images(path).read(0) == b"c/b.jpg"
    assert scans == ["x.tar", "x.tar"]
    (folder,) = (cache / "tar-index").iterdir()
    assert len(list(folder.iterdir())) == 2  # nothing is left of the old one


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "missing", "header", "version", "hostile"])
def test_a_damaged_index_is_made_anew(
    make: Make, cache: Path, scans: list[str], caplog: pytest.LogCaptureFixture, damage: str
):
    path = make(["c/a.jpg", "c/b.jpg"])
    open_images(path)
    (folder,) = (cache / "tar-index").iterdir()
    (data,), header = folder.glob("*.arrow"), folder / "index.json"
    contents, document = bytearray(data.read_bytes()), json.loads(header.read_text())
    if damage == "flip":
        contents[contents.index(b"c/a.jpg")] ^= 1
    data.write_bytes(contents[: {"truncate": 100, "empty": 0}.get(damage, len(contents))])
    if damage == "missing":
        data.unlink()
    if damage == "header":
        header.write_text("{")
    if damage == "version":
        header.write_text(json.dumps({**document, "version": 99}))
    if damage == "hostile":
        header.write_text(
            json.dumps({**document, "data": {**document["data"], "name": "../../../etc/passwd"}})
        )
    source = open_images(path)
    assert [source.read(row) for row in (0, 1)] == [b"c/a.jpg", b"c/b.jpg"]
    assert list(source.sample_ids) == ["c/a", "c/b"]
    assert scans == ["x.tar", "x.tar"]


def test_another_file_in_the_place_of_an_image_is_an_error(make: Make):
    path = make(["c/a.jpg", "c/b.jpg"])
    source, before = open_images(path), path.stat()
    make(["c/a.jpg", "c/x.jpg"])  # of one size, with its time put back
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert open_images(path).read(0) == source.read(0)
    with pytest.raises(OSError, match="another file than was listed, so the tar changed"):
        source.read(1)


def test_a_tar_that_is_gone_or_was_cut_off_is_an_error(make: Make):
    path = make(["c/a.jpg", "c/b.jpg"])
    source = open_images(path)
    path.write_bytes(path.read_bytes()[:1100])
    assert source.read(0) == b"c/a.jpg"
    with pytest.raises(OSError, match="it was cut off after it was listed"):
        source.read(1)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        source.read(0)


def test_a_source_that_is_sent_elsewhere_takes_the_index_by_name(make: Make):
    source = open_images(make([f"c/{number:05d}.jpg" for number in range(2000)]))
    assert isinstance(source, TarImages)
    assert len(pickle.dumps(source)) < 2000


def test_what_is_found_is_logged(make: Make, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="relabel_store")
    path = make(["c/a.jpg"])
    open_images(path)
    os.utime(path, ns=(1, 1))
    open_images(path)
    assert "they changed since, it is made anew" in caplog.text

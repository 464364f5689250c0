from __future__ import annotations

import errno
import gzip
import io
import pickle
import tarfile
from pathlib import Path

import pytest

from relabel_store.convert.sources import label_files
from relabel_store.convert.sources.label_files import find_tar, first_files, open_label_files, read_each
from relabel_store.errors import LabelSourceError
from relabel_store.images.names import Wanted

PT = Wanted("label file", (".pt",))
TREE = {"b/1.pt": b"b1", "a/2.pt": b"a2", "a/1.x.pt": b"a1", "a/readme.txt": b""}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RELABEL_STORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def contents(files) -> dict[str, bytes]:
    return {files.sample_ids[row]: data for row, data in read_each(files, range(len(files)))}


def test_a_folder_is_read_by_sample_id(tmp_path) -> None:
    files = open_label_files(write_folder(tmp_path / "maps", TREE), PT)
    assert contents(files) == {"a/1.x": b"a1", "a/2": b"a2", "b/1": b"b1"}
    assert list(files.sample_ids) == ["a/1.x", "a/2", "b/1"]
    assert list(files.class_names) == ["a", "a", "b"]
    assert (files.name, files.order, files.ids_from) == ("maps", "sample-id", "paths")


def test_a_tar_is_read_in_its_own_order_where_it_lies(tmp_path, cache) -> None:
    path = write_tar(tmp_path / "maps.tar", TREE)
    before = sorted(tmp_path.rglob("*"))
    files = open_label_files(path, PT)
    assert list(files.sample_ids) == ["b/1", "a/2", "a/1.x"]
    assert contents(files) == {"b/1": b"b1", "a/2": b"a2", "a/1.x": b"a1"}
    assert (files.name, files.order) == ("maps", "source")
    assert [one for one in sorted(tmp_path.rglob("*")) if not one.is_relative_to(cache)] == before


def test_an_index_is_made_once_and_again_when_the_tar_changed(tmp_path, monkeypatch) -> None:
    path = write_tar(tmp_path / "maps.tar", TREE)
    open_label_files(path, PT)
    monkeypatch.setattr(label_files, "scan_tar", None)
    assert len(open_label_files(path, PT)) == 3
    monkeypatch.undo()
    monkeypatch.setenv("RELABEL_STORE_CACHE", str(tmp_path / "cache"))
    write_tar(path, {**TREE, "c/9.pt": b"new"})
    assert contents(open_label_files(path, PT))["c/9"] == b"new"


def test_an_index_that_cannot_be_kept_is_done_without(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RELABEL_STORE_CACHE", str(tmp_path / "file"))
    assert len(contents(open_label_files(write_tar(tmp_path / "maps.tar", TREE), PT))) == 3


@pytest.mark.parametrize("is_tar", [False, True], ids=["folder", "tar"])
def test_folders_that_all_share_are_no_part_of_the_ids(tmp_path, is_tar: bool) -> None:
    deep = {f"data/relabel/{name}": content for name, content in TREE.items()}
    path = write_tar(tmp_path / "x.tar", deep) if is_tar else write_folder(tmp_path / "x", deep)
    files = open_label_files(path, PT)
    assert sorted(files.sample_ids) == ["a/1.x", "a/2", "b/1"]
    assert files.ids_from == "paths below 'data/relabel/'"
    assert contents(files)["b/1"] == b"b1"


@pytest.mark.parametrize("is_tar", [False, True], ids=["folder", "tar"])
def test_two_trees_are_told_apart_by_naming_one(tmp_path, is_tar: bool) -> None:
    both = {f"all/{tree}/{name}": content for tree in ("one", "two") for name, content in TREE.items()}
    path = write_tar(tmp_path / "x.tar", both) if is_tar else write_folder(tmp_path / "x", both)
    with pytest.raises(LabelSourceError, match=r"name one of the trees in it, such as '.*/all/(one|two)'"):
        open_label_files(path, PT)
    files = open_label_files(path / "all" / "two", PT)
    assert sorted(files.sample_ids) == ["a/1.x", "a/2", "b/1"]
    assert files.name == "two"
    with pytest.raises(LabelSourceError, match=r"no label file in it|nothing there"):
        open_label_files(path / "all" / "three", PT)


@pytest.mark.parametrize("name", ["../a/1.pt", "a/../../1.pt"])
def test_a_member_that_leads_out_of_the_tar_is_refused(tmp_path, name: str) -> None:
    with pytest.raises(LabelSourceError, match="expected one that stays below the root"):
        open_label_files(write_tar(tmp_path / "x.tar", {name: b"1"}), PT)


def test_an_absolute_member_stays_below_the_root(tmp_path) -> None:
    files = open_label_files(write_tar(tmp_path / "x.tar", {"/a/1.pt": b"1", "/b/1.pt": b"2"}), PT)
    assert list(files.sample_ids) == ["a/1", "b/1"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["soft", "hard"])
def test_a_member_that_is_a_link_is_refused(tmp_path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        member = tarfile.TarInfo("a/1.pt")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(LabelSourceError, match=r"label file 'a/1\.pt' is a link to '/etc/passwd'"):
        open_label_files(tmp_path / "x.tar", PT)


def test_a_packed_tar_is_refused_with_what_to_do(tmp_path) -> None:
    (tmp_path / "x.tgz").write_bytes(gzip.compress(write_tar(tmp_path / "x.tar", TREE).read_bytes()))
    with pytest.raises(LabelSourceError, match=r"a gzip file, .* decompress it, a tar need not be unpacked"):
        open_label_files(tmp_path / "x.tgz", PT)


@pytest.mark.parametrize("size", [0, 700, 1200, 3000])
def test_a_tar_that_was_cut_off_is_refused(tmp_path, size: int) -> None:
    path = write_tar(tmp_path / "x.tar", {name: content * 100 for name, content in TREE.items()})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(LabelSourceError, match="labels"):
        open_label_files(path, PT)


@pytest.mark.parametrize(("place", "what"), [("nothing", "nothing there"), ("s3://b/x", "a URL")])
def test_where_nothing_is_that_can_be_read_is_said(tmp_path, place: str, what: str) -> None:
    with pytest.raises(LabelSourceError, match=what):
        open_label_files(place if "://" in place else tmp_path / place, PT)


def test_files_are_read_in_another_process(tmp_path) -> None:
    for path in (write_folder(tmp_path / "x", TREE), write_tar(tmp_path / "x.tar", TREE)):
        assert len(contents(pickle.loads(pickle.dumps(open_label_files(path, PT))))) == 3


def test_a_file_that_is_gone_is_an_error_in_its_place_and_the_others_are_read(tmp_path) -> None:
    files = open_label_files(write_folder(tmp_path / "x", TREE), PT)
    (tmp_path / "x" / "a" / "2.pt").unlink()
    found = contents(files)
    assert isinstance(found.pop("a/2"), FileNotFoundError)
    assert found == {"a/1.x": b"a1", "b/1": b"b1"}


def test_a_disk_that_fails_for_now_stops_it(tmp_path, monkeypatch) -> None:
    files = open_label_files(write_folder(tmp_path / "x", TREE), PT)

    def fail(row: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "read", fail)
    with pytest.raises(
        LabelSourceError, match=r"label of 'a/1\.x': Input/output error; run the same command again"
    ):
        contents(files)


def test_a_tar_that_changed_since_it_was_listed_stops_it(tmp_path) -> None:
    files = open_label_files(write_tar(tmp_path / "x.tar", TREE), PT)
    write_tar(tmp_path / "x.tar", {f"z{name}": content for name, content in TREE.items()})
    with pytest.raises(LabelSourceError, match="so the tar changed"):
        contents(files)


def test_many_files_come_in_order(tmp_path) -> None:
    tree = {f"c/{number:04d}.pt": str(number).encode() for number in range(700)}
    files = open_label_files(write_folder(tmp_path / "x", tree), PT)
    rows = list(range(699, -1, -1))
    assert [(row, int(data)) for row, data in read_each(files, rows)] == [(row, row) for row in rows]


def test_the_first_files_are_read_without_listing_all(tmp_path) -> None:
    folder, tar = write_folder(tmp_path / "x", TREE), write_tar(tmp_path / "x.tar", TREE)
    assert list(first_files(tar, PT, 2)) == [b"b1", b"a2"]
    assert len(list(first_files(folder, PT, 2))) == 2
    (tmp_path / "junk").write_bytes(b"hello" * 300)
    for name, reason in (
        ("nothing", "nothing there, expected a folder or a tar"),
        ("junk", "a whole tar file"),
    ):
        with pytest.raises(LabelSourceError, match=reason):
            list(first_files(tmp_path / name, PT, 2))


def test_a_path_leads_into_a_tar_or_does_not(tmp_path) -> None:
    tar = write_tar(tmp_path / "x.tar", TREE)
    found = find_tar(tar / "a" / "b")
    assert found is not None
    assert (found[0].location, found[1]) == (str(tar), "a/b/")
    assert find_tar(tmp_path) is None
    assert find_tar(tmp_path / "nothing" / "x") is None

from __future__ import annotations

import os
import pickle
import unicodedata
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from relabel_store.errors import ImageSourceError
from relabel_store.images.names import SUFFIXES
from relabel_store.images.recognise import open_images


def write(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


def test_a_tree_is_read_as_torchvision_reads_it(tmp_path: Path):
    write(
        tmp_path,
        *[f"cat/{name}{suffix}" for name, suffix in zip("abcdefghi", SUFFIXES, strict=True)],
        *[
            "dog/A.JPG",
            "dog/deep/er/b.Jpeg",
            "dog/._c.jpg",
            "dog/notes.txt",
            "dog/no suffix",
            "cat/x.jpg.part",
        ],
    )
    theirs = [Path(path).relative_to(tmp_path).as_posix() for path, _ in ImageFolder(tmp_path).samples]
    source = open_images(tmp_path)
    assert sorted(source.paths) == sorted(theirs)
    assert set(source.class_names) == {"cat", "dog"}
    assert (source.name, source.kind, source.order) == (tmp_path.name, "class-folders", "sample-id")


def test_rows_are_in_order_of_their_ids(tmp_path: Path):
    source = open_images(write(tmp_path, "b/1.jpg", "a/2.jpg", "a/10.png", "a-b/1.jpg", "a/é.jpg", "a/z.jpg"))
    assert list(source.sample_ids) == sorted(source.sample_ids)
    for row, path in enumerate(source.paths):
        assert source.read(row) == path.encode()
        assert source.sample_ids[row] == path.rpartition(".")[0]
        assert source.fingerprint(row) == (len(path.encode()), (tmp_path / path).stat().st_mtime_ns)


def test_images_without_class_folders_have_no_class_name(tmp_path: Path):
    source = open_images(write(tmp_path, "b.jpg", "a.jpg"))
    assert (list(source.sample_ids), list(source.class_names), source.kind) == (
        ["a", "b"],
        [None, None],
        "folder",
    )


def test_images_in_the_root_and_in_folders_can_be_mixed(tmp_path: Path):
    source = open_images(write(tmp_path, "b.jpg", "c/a.jpg"))
    assert dict(zip(source.sample_ids, source.class_names, strict=True)) == {"b": None, "c/a": "c"}


def test_a_decomposed_name_is_read_from_where_it_lies(tmp_path: Path):
    name = unicodedata.normalize("NFD", "ä.jpg")
    source = open_images(write(tmp_path, f"c/{name}"))
    assert list(source.sample_ids) == ["c/ä"]
    assert source.read(0) == f"c/{name}".encode()


@pytest.mark.parametrize(
    "paths",
    [("c/a.jpg", "c/a.png"), ("c/a.jpg", "c/a.JPG"), ("c/ä.jpg", unicodedata.normalize("NFD", "c/ä.jpg"))],
    ids=["suffix", "case", "normal form"],
)
def test_two_images_with_one_id_are_refused_by_name(tmp_path: Path, paths: tuple[str, str]):
    write(tmp_path, *paths, "c/b.jpg")
    with pytest.raises(ImageSourceError, match="have one sample id") as caught:
        open_images(tmp_path)
    assert all(repr(path) in str(caught.value) for path in paths)


def test_names_that_are_not_utf8_are_refused_by_name(tmp_path: Path):
    write(tmp_path, "c/a.jpg")
    try:
        (tmp_path / "c" / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system refuses such names")
    with pytest.raises(ImageSourceError, match=r"xff.*not UTF-8"):
        open_images(tmp_path)


def test_links_are_followed_and_loops_end(tmp_path: Path):
    write(tmp_path / "real", "a.jpg", "deep/b.jpg")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "cat").symlink_to(tmp_path / "real")
    (tmp_path / "root" / "dog").symlink_to(tmp_path / "real")
    (tmp_path / "root" / "one.jpg").symlink_to(tmp_path / "real" / "a.jpg")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "deep" / "up").symlink_to(tmp_path / "root")
    paths = set(open_images(tmp_path / "root").paths)
    assert {"cat/a.jpg", "cat/deep/b.jpg", "dog/a.jpg", "dog/deep/b.jpg", "one.jpg"} <= paths
    assert not any("loop" in path for path in paths)


@pytest.mark.parametrize("kind", ["dangling link", "pipe"])
def test_what_is_no_regular_file_is_refused_and_never_opened(tmp_path: Path, kind: str):
    write(tmp_path, "c/a.jpg")
    if kind == "pipe":
        os.mkfifo(tmp_path / "c" / "x.jpg")
    else:
        (tmp_path / "c" / "x.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(
        ImageSourceError, match=r"'c/x\.jpg': (no regular file|a link that leads nowhere); remove it"
    ):
        open_images(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path):
    write(tmp_path, "c/a.jpg", "d/b.jpg")
    (tmp_path / "d").chmod(0)
    with pytest.raises(ImageSourceError, match="folder 'd': Permission denied"):
        open_images(tmp_path)
    (tmp_path / "d").chmod(0o700)


def test_a_source_can_be_sent_to_another_process(tmp_path: Path):
    source = pickle.loads(pickle.dumps(open_images(write(tmp_path, "c/a.jpg"))))
    assert source.read(0) == b"c/a.jpg"


def test_an_image_that_is_gone_raises_what_the_system_says(tmp_path: Path):
    source = open_images(write(tmp_path, "c/a.jpg", "c/b.jpg"))
    (tmp_path / "c" / "a.jpg").unlink()
    for look in (source.read, source.fingerprint):
        with pytest.raises(FileNotFoundError):
            look(0)

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from relabel_store.errors import ImageSourceError, MissingDependencyError
from relabel_store.images.recognise import open_images


def test_every_kind_is_recognised_and_reads_the_same_images(kind: str, packed: str, tree: Path):
    source, folder = open_images(packed), open_images(tree)
    assert source.kind == kind
    assert list(source.sample_ids) == list(folder.sample_ids)
    assert list(source.class_names) == list(folder.class_names)
    for row in range(len(folder)):
        assert source.read(row) == folder.read(row), row


def test_rows_can_be_read_in_any_order(packed: str, tree: Path):
    source, folder = open_images(packed), open_images(tree)
    for row in [11, 3, 4, 0, 7, 6, 5, 5, 10, 1]:
        assert source.read(row) == folder.read(row), row


def test_a_source_of_any_kind_can_be_sent_to_another_process(packed: str):
    source = open_images(packed)
    source.read(2)  # which may open files
    sent = pickle.loads(pickle.dumps(source))
    assert list(sent.sample_ids) == list(source.sample_ids)
    assert (sent.kind, sent.ids_from) == (source.kind, source.ids_from)
    assert [sent.read(row) for row in (3, 11)] == [source.read(row) for row in (3, 11)]
    assert sent.fingerprint(3) == source.fingerprint(3)


def touch(path: Path, data: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("files", "given", "message"),
    [
        ({}, "x", "nothing there, expected a folder of class folders or of images, a tar file"),
        ({"x": b""}, "x", "an empty file, expected a folder"),
        ({"x": b"junk"}, "x", "a file that begins with b'junk', expected a folder"),
        ({"x.tar": b""}, "x.tar", "an empty file"),
        ({"x.tar": b"junk" * 400}, "x.tar", "expected a whole tar file"),
        ({"x.tar.gz": b"\x1f\x8b rest"}, "x.tar.gz", "a gzip file, .* decompress it, a tar file need not be"),
        ({"x.tar": b"\x1f\x8b rest"}, "x.tar", "a gzip file"),
        ({"x.zip": b"PK\x03\x04"}, "x.zip", "a zip file"),
        ({"x.parquet": b"PAR1 and no more"}, "x.parquet", "expected a whole Parquet file"),
        ({"x.parquet": b"junk"}, "x.parquet", "a file that begins with b'junk'"),
        ({"x/readme.txt": b""}, "x", r"no image in it or below, expected images \(\.jpg"),
        ({"x/a.tar": b"", "x/b.parquet": b""}, "x", "Parquet and tar files, .* name the files you mean"),
        ({"x/a.csv": b"", "x/b.csv": b""}, "x", "CSV files, .* such as 'a.csv'"),
        (
            {"x/train-0.parquet": b"PAR1", "x/test-0.parquet": b"PAR1"},
            "x",
            "of 'test', 'train', expected one split",
        ),
        (
            {"x/train-0000.tar": b"junk", "x/train-0001.tar": b"junk", "x/val-0000.TAR": b"junk"},
            "x",
            r"tar files of 'train', 'val', expected one split; name it, as in 'x/train\*\.tar'",
        ),
        ({}, "train-{0000..0001}.tar", "train-0000.tar': No such file"),
        ({}, "train-*.tar", "no file of such a name"),
        ({}, "http://127.0.0.1:9/train/", "cannot be listed"),
        ({}, "nonsense://x/train.tar", "expected s3, gs, hf, http or https"),
        ({}, "s3://key:secret@bucket/train.tar", "a URL with credentials"),
        ({}, "memory://nowhere", "no image in it or below"),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], given: str, message: str
):
    monkeypatch.chdir(tmp_path)
    for name, data in files.items():
        touch(Path(name), data)
    with pytest.raises(ImageSourceError, match=message) as caught:
        open_images(given)
    assert "secret" not in str(caught.value)


def test_a_url_that_became_a_path_is_named():
    with pytest.raises(ImageSourceError, match="became a path, which has one slash; give it as text"):
        open_images(Path("s3://bucket/train.tar"))


def test_a_service_whose_client_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'relabel-store\[build,remote\]'"):
        open_images("s3://bucket/train.tar")


def test_an_existing_path_is_no_pattern(tree: Path):
    odd = tree.with_name("tr{a,b}in*")
    tree.rename(odd)
    assert len(open_images(odd)) == 12


def test_one_tar_a_class_is_not_taken_for_shards(pack: Callable[[str], str]):
    folder = Path(pack("tar-a-class"))
    assert open_images(folder).kind == "tar-a-class"
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"train-{number:04d}.tar")
    assert open_images(folder).kind == "webdataset"


def test_shards_of_any_name_keep_the_ids_of_their_keys(pack: Callable[[str], str], tree: Path):
    folder = Path(pack("webdataset")).parent
    for path, name in zip(sorted(folder.iterdir()), ("first", "second", "third"), strict=True):
        path.rename(folder / f"{name}.tar")
    source = open_images(folder)
    assert source.kind == "webdataset"
    assert sorted(source.sample_ids) == list(open_images(tree).sample_ids)


def test_images_beside_shards_are_not_taken_for_all_there_is_in_silence(
    pack: Callable[[str], str], caplog: pytest.LogCaptureFixture
):
    folder = Path(pack("webdataset")).parent
    (folder / "preview.jpg").write_bytes(b"1")
    assert len(open_images(folder)) == 1
    assert "1 images in the folder; what is in 'train-0000.tar' and others is not read" in caplog.text

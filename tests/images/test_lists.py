from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from relabel_store.errors import ImageSourceError
from relabel_store.images import lists
from relabel_store.images.lists import open_list
from relabel_store.images.places import LocalFile
from relabel_store.images.recognise import open_images

Listed = Callable[..., Path]


@pytest.fixture
def listed(tmp_path: Path) -> Listed:
    """Write a CSV file, and the files that it lists."""

    def write(text: str | bytes, *files: str, name: str = "list.csv") -> Path:
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_bytes(file.encode())
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return tmp_path / name

    return write


def test_ids_and_classes_come_from_their_columns_and_rows_keep_their_order(listed: Listed):
    path = listed(
        "label,path,sample_id\ncat,b.jpg,x/2\ndog,a.jpg,x/1\n,c.jpg,x/0\n", "a.jpg", "b.jpg", "c.jpg"
    )
    source = open_images(path)
    assert list(source.sample_ids) == ["x/2", "x/1", "x/0"]
    assert list(source.class_names) == ["cat", "dog", None]
    assert list(source.paths) == ["b.jpg", "a.jpg", "c.jpg"]
    assert (source.kind, source.order, source.ids_from) == ("list", "source", "column 'sample_id'")
    assert source.read(0) == b"b.jpg"
    assert source.fingerprint(0)[0] == 5


def test_without_an_id_column_paths_are_ids(listed: Listed):
    source = open_images(listed("file_name\nc/b.jpg\nd/a.jpg\n", "c/b.jpg", "d/a.jpg"))
    assert (list(source.sample_ids), source.ids_from) == (["c/b", "d/a"], "paths")
    assert list(source.class_names) == ["c", "d"]


def test_absolute_paths_are_cut_to_what_tells_them_apart(listed: Listed, tmp_path: Path):
    files = ("train/c/b.jpg", "train/d/a.jpg")
    text = "path\n" + "\n".join(str(tmp_path / file) for file in files)
    (tmp_path / "lists").mkdir()
    source = open_images(listed(text, *files, name="lists/list.csv"))
    assert list(source.sample_ids) == ["c/b", "d/a"]
    assert list(source.paths) == ["c/b.jpg", "d/a.jpg"]
    assert source.read(1) == b"train/d/a.jpg"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Callable[[list[str]], Any]:
    """Open a list of files none of which need be there: paths, in a table of another folder."""

    def open_them(files: list[str], **columns: list[str]) -> Any:
        table = pa.table({"path": files, **columns})
        return open_list(LocalFile(tmp_path / "list.csv"), table, "list")

    return open_them


@pytest.fixture
def no_files_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "_require_files", lambda *_: None)
    monkeypatch.setenv("HOME", "/data/alice")


@pytest.mark.parametrize(
    ("files", "paths", "taken"),
    [
        (["/data/in/train/n01/x.jpg", "/data/in/train/n02/y.jpg"], ["n01/x.jpg", "n02/y.jpg"], "'/data/in/train/'"),
        (["/data/in/train/n01/x.jpg", "/data/in/train/n01/y.jpg"], ["n01/x.jpg", "n01/y.jpg"], "'/data/in/train/'"),
        (["/data/in/n01/x.jpg"], ["n01/x.jpg"], "'/data/in/'"),
        # As the folder has them, where some lie directly in it.
        (["/data/in/x.jpg", "/data/in/n01/y.jpg"], ["x.jpg", "n01/y.jpg"], "'/data/in/'"),
        (["/data/n0/x.jpg", "/data/n01/y.jpg"], ["n0/x.jpg", "n01/y.jpg"], "'/data/'"),
        (["//data/in//n01/./x.jpg", "/data/in/n02/y.jpg"], ["n01/x.jpg", "n02/y.jpg"], "'/data/in/'"),
        (["/home/alice/in/n01/x.jpg", "/home/alice/in/n02/y.jpg"], ["n01/x.jpg", "n02/y.jpg"], "'/home/alice/in/'"),
        # No name that is a whole absolute path, a user, a bucket or a host.
        (["/images/x.jpg", "/images/y.jpg"], ["x.jpg", "y.jpg"], "'/images/'"),
        (["/x.jpg"], ["x.jpg"], "'/'"),
        (["/home/alice/x.jpg"], ["x.jpg"], "'/home/alice/'"),
        (["/nfs/home/alice/x.jpg"], ["x.jpg"], "'/nfs/home/alice/'"),
        (["/Users/alice/x.jpg"], ["x.jpg"], "'/Users/alice/'"),
        (["/data/alice/x.jpg"], ["x.jpg"], "'/data/alice/'"),
        (["s3://bucket/x.jpg", "s3://bucket/y.jpg"], ["x.jpg", "y.jpg"], "'s3://bucket/'"),
        (["https://host:8/x.jpg"], ["x.jpg"], "'https://host:8/'"),
        (["https://host/~alice/x.jpg"], ["x.jpg"], "'https://host/~alice/'"),
        (["https://host/n01/x.jpg", "https://host/n02/y.jpg?s=4/2"], ["n01/x.jpg", "n02/y.jpg"], "'https://host/'"),
        (["https://a/t/n01/x.jpg", "https://b/t/n02/y.jpg"], ["n01/x.jpg", "n02/y.jpg"], "'t/' of 2 places"),
        (["s3://a/n01/x.jpg", "s3://b/n02/y.jpg"], ["n01/x.jpg", "n02/y.jpg"], "2 places"),
        (["s3://a/t/n01/x.jpg", "/t/n02/y.jpg"], ["n01/x.jpg", "n02/y.jpg"], "'t/' of 2 places"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("no_files_are_missing")
def test_paths_are_those_below_the_folder_that_all_share(
    elsewhere: Callable[..., Any], files: list[str], paths: list[str], taken: str
):
    source = elsewhere(files)
    assert (list(source.paths), source.ids_from) == (paths, f"paths below {taken}")
    ids = [str(number) for number in range(len(files))]
    named = elsewhere(files, sample_id=ids)
    assert (list(named.paths), list(named.sample_ids)) == (paths, ids)
    assert named.ids_from == f"column 'sample_id'; paths are those below {taken}"


@pytest.mark.parametrize(
    "files",
    [
        ["/data/n01/x.jpg", "/images/n02/y.jpg"],
        ["/x.jpg", "/data/y.jpg"],
        ["/home/alice/x.jpg", "/home/bob/y.jpg"],
        ["/nfs/home/alice/x.jpg", "/nfs/data/y.jpg"],
        ["/data/alice/x.jpg", "/data/in/y.jpg"],
        ["s3://bucket/n01/x.jpg", "/data/n02/y.jpg"],
        ["https://host/~alice/x.jpg", "https://host/~bob/y.jpg"],
    ],
)
@pytest.mark.usefixtures("no_files_are_missing")
def test_files_that_share_no_folder_that_may_be_left_out_are_refused(
    elsewhere: Callable[..., Any], files: list[str]
):
    with pytest.raises(
        ImageSourceError, match=r"share no folder but '/' or that of the homes .*link the folders"
    ):
        elsewhere(files)


@pytest.mark.parametrize("sample_id", ["/home/alice/n01/x", "/data/in/n01/x.jpg", "/data/in/n01/x"])
@pytest.mark.usefixtures("no_files_are_missing")
def test_an_id_that_tells_where_its_image_lies_is_refused(elsewhere: Callable[..., Any], sample_id: str):
    with pytest.raises(ImageSourceError, match=f"column 'sample_id' has '{sample_id}', a path of a machine"):
        elsewhere(["/data/in/n01/x.jpg", "/data/in/n02/y.jpg"], sample_id=[sample_id, "2"])


@pytest.mark.usefixtures("no_files_are_missing")
def test_an_id_may_begin_with_a_slash(elsewhere: Callable[..., Any]):
    ids = ["/m/01g317", "/m/02"]
    assert list(elsewhere(["/data/n01/x.jpg", "/data/n02/y.jpg"], sample_id=ids).sample_ids) == ids


def test_one_file_elsewhere_makes_all_begin_at_the_shared_folder(listed: Listed, tmp_path: Path):
    files = ("lists/c/b.jpg", "train/d/a.jpg")
    text = f"path\nc/b.jpg\n{tmp_path / files[1]}\n"
    source = open_images(listed(text, *files, name="lists/list.csv"))
    assert list(source.paths) == list(files)
    assert source.ids_from == f"paths below '{tmp_path}/'"
    assert [source.read(row) for row in range(2)] == [file.encode() for file in files]


def test_a_file_url_is_a_path(listed: Listed, tmp_path: Path):
    files = ("train/c/b 1.jpg", "train/d/a.jpg")
    text = "path\n" + "\n".join((tmp_path / file).as_uri() for file in files)
    (tmp_path / "lists").mkdir()
    source = open_images(listed(text, *files, name="lists/list.csv"))
    assert list(source.sample_ids) == ["c/b 1", "d/a"]
    assert source.read(0) == b"train/c/b 1.jpg"


def test_the_signature_of_a_url_is_no_part_of_a_path(listed: Listed):
    urls = [f"https://host/train/{path}?X-Amz-Signature=4.2/7" for path in ("c/a.jpg", "d/b.jpg")]
    source = open_images(listed("path\n" + "\n".join(urls)))
    assert list(source.paths) == ["c/a.jpg", "d/b.jpg"]
    assert list(source.sample_ids) == ["c/a", "d/b"]


def test_a_question_mark_is_part_of_the_name_of_a_file(listed: Listed):
    assert list(open_images(listed("path\nc/a?.jpg\n", "c/a?.jpg")).paths) == ["c/a?.jpg"]


def test_a_url_with_credentials_is_refused_without_them(listed: Listed):
    with pytest.raises(ImageSourceError, match="a URL with credentials") as caught:
        open_images(listed("path\nhttps://user:secret@host/a.jpg\n"))
    assert "secret" not in str(caught.value)


def test_a_byte_order_mark_quotes_and_line_ends_are_no_part_of_the_text(listed: Listed):
    text = '\ufeffpath,id\r\n"c/a, b.jpg","one\nline"\r\n"c/""q"".jpg",0010\r\n'
    source = open_images(listed(text, "c/a, b.jpg", 'c/"q".jpg'))
    assert list(source.paths) == ["c/a, b.jpg", 'c/"q".jpg']
    assert list(source.sample_ids) == ["one\nline", "0010"]
    assert source.read(1) == b'c/"q".jpg'


def test_tabs_part_the_columns_of_a_tsv_file(listed: Listed):
    source = open_images(listed("path\tid\nc/a,b.jpg\t7\n", "c/a,b.jpg", name="list.tsv"))
    assert list(source.sample_ids) == ["7"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Empty CSV file, expected a CSV table"),
        ("path\n", "a table without rows"),
        (
            "name,size\na,1\n",
            "columns 'name', 'size', expected one of paths, called 'path'.*in the first line",
        ),
        ("a.jpg\nb.jpg\n", "the first line is 'a.jpg', expected the names of the columns"),
        ("path,path\na.jpg,a.jpg\n", "two columns of one name"),
        ("path\na.jpg\n\n", None),
        ("path,id\na.jpg,1\n,2\n", "column 'path' is empty in 1 of 2 rows, row 2 first"),
        ("path,id\na.jpg,1\na.jpg,\n", "column 'id' is empty in 1 of 2 rows"),
        ("path,id\na.jpg,1\nb.jpg,1\n", "'row 1' and 'row 2' have one sample id, '1'"),
        ("path\na.jpg\na.jpg\n", "have one sample id, 'a'"),
        ("path\na.jpg\nx.jpg\ny.jpg\n", r"2 of 3 files are not there \('x\.jpg', 'y\.jpg'\); paths begin at"),
        ("path\n../a.jpg\n", "1 of 1 files are not there|stays below"),
        ("path,id\na.jpg\n", "expected a CSV table"),
        (b"path\n\xff\xfe.jpg\n", "expected a CSV table in UTF-8|UTF-8"),
        ("path\na.jpg\n".encode("utf-16"), "expected"),
        (b"path\na\0.jpg\n", "expected"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(listed: Listed, text: str | bytes, message: str | None):
    path = listed(text, "a.jpg", "b.jpg")
    if message is None:
        assert len(open_images(path)) == 1
        return
    with pytest.raises(ImageSourceError, match=message):
        open_images(path)


def test_a_path_that_leads_out_of_the_folder_is_refused(listed: Listed, tmp_path: Path):
    (tmp_path / "lists").mkdir()
    with pytest.raises(ImageSourceError, match="expected one that stays below the root"):
        open_images(listed("path\n../a.jpg\n", "a.jpg", name="lists/list.csv"))


def test_a_parquet_list_is_read_with_the_class_names_that_datasets_notes(tmp_path: Path, listed: Listed):
    listed("", "a.jpg", "b.jpg", "c.jpg")
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    schema = pa.schema([("path", pa.string()), ("label", pa.int64())], {"huggingface": json.dumps(features)})
    rows = [{"path": f"{name}.jpg", "label": label} for name, label in (("c", 1), ("a", 0), ("b", -1))]
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "list.parquet")
    source = open_images(tmp_path / "list.parquet")
    assert (source.kind, list(source.class_names)) == ("list", ["dog", "cat", None])
    assert list(source.sample_ids) == ["c", "a", "b"]


def test_a_class_without_a_name_is_refused(tmp_path: Path, listed: Listed):
    listed("", "a.jpg")
    features = {"info": {"features": {"label": {"names": ["cat"], "_type": "ClassLabel"}}}}
    schema = pa.schema([("path", pa.string()), ("label", pa.int64())], {"huggingface": json.dumps(features)})
    pq.write_table(pa.Table.from_pylist([{"path": "a.jpg", "label": 1}], schema), tmp_path / "list.parquet")
    with pytest.raises(ImageSourceError, match="column 'label' has class 1, its metadata name 1"):
        open_images(tmp_path / "list.parquet")


@pytest.mark.parametrize("path", ["/etc/passwd", "file:///etc/passwd", "local:///etc/passwd"])
def test_a_remote_list_cannot_read_this_machine(path: str):
    fsspec.filesystem("memory").pipe_file("/lists/list.csv", f"path\n{path}\n".encode())
    with pytest.raises(ImageSourceError, match=f"path '{path}' of this machine in a remote table"):
        open_images("memory://lists/list.csv")

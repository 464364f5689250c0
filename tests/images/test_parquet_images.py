from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from relabel_store.errors import ImageSourceError
from relabel_store.images.parquet_images import ImageColumn, ParquetImages, image_column
from relabel_store.images.recognise import open_images

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(
    path: Path,
    images: Sequence[tuple[bytes | None, str | None] | None],
    *,
    names: list[str] | None = None,
    row_group_size: int | None = None,
    **columns: Sequence[object],
) -> Path:
    """Write images as bytes and path, with other columns."""
    cells = [None if image is None else {"bytes": image[0], "path": image[1]} for image in images]
    table = pa.table({"image": pa.array(cells, IMAGE), **columns})
    if names is not None:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def read_all(source: ParquetImages) -> list[bytes]:
    return [source.read(row) for row in range(len(source))]


@pytest.mark.parametrize(
    ("paths", "columns", "names", "ids", "ids_from"),
    [
        (["c/a.jpg", "d/a.jpg"], {}, None, ["c/a", "d/a"], "paths"),
        (["t/c/a.jpg", "t/d/a.jpg"], {}, None, ["c/a", "d/a"], "paths below 't/'"),
        (["/x/t/c/a.jpg", "/x/t/d/a.jpg"], {}, None, ["c/a", "d/a"], "paths below '/x/t/'"),
        (["/x/t/c/a.jpg", "/x/t/b.jpg"], {}, None, ["c/a", "b"], "paths below '/x/t/'"),
        (["/x/c/a.jpg", "/y/d/b.jpg"], {}, None, ["a", "b"], "file names"),
        (["/home/alice/a.jpg", "/home/bob/b.jpg"], {}, None, ["a", "b"], "file names"),
        (["file:///x/c/a.jpg", "file:///y/d/b.jpg"], {}, None, ["a", "b"], "file names"),
        (["/x/c/a.jpg", "d/b.jpg"], {}, None, ["a", "b"], "file names"),
        (["C:\\x\\c\\a.jpg", "D:/d/b.jpg"], {}, None, ["a", "b"], "file names"),
        (["https://h/c/a.jpg?s=1/2", "https://h/d/b.jpg"], {}, None, ["c/a", "d/b"], "paths below 'https://h/'"),
        (["a.jpg", "b.jpg"], {}, None, ["a", "b"], "file names"),
        (["a.jpg", "b.jpg"], {"label": [1, 0]}, ["cat", "dog"], ["dog/a", "cat/b"], "class names and file names"),
        (["a.jpg", "a.jpg"], {"label": [1, 0]}, ["cat", "dog"], ["dog/a", "cat/a"], "class names and file names"),
        (["a.jpg", "b.jpg"], {"label": [1, 0]}, ["c/t", "d/g"], ["a", "b"], "file names"),
        (["n01440764_1_n01440764.JPEG", "ILSVRC2012_val_00000293_n01443537.JPEG"], {"label": [0, 1]}, ["tench, T", "x"],
         ["n01440764/n01440764_1", "n01443537/ILSVRC2012_val_00000293"], "ImageNet's file names"),
        (["c/a.jpg", "d/a.jpg"], {"sample_id": ["x", "y"]}, None, ["x", "y"], "column 'sample_id'"),
        (["c/a.jpg", "d/a.jpg"], {"id": [7, 8]}, None, ["c/a", "d/a"], "paths"),
        (["a.jpg", "a.jpg"], {"id": [7, 8]}, None, ["7", "8"], "column 'id'"),
        ([None, "a.jpg"], {"__key__": ["k", "l"]}, None, ["k", "l"], "column '__key__'"),
        ([None, None], {}, None, ["x/0000000", "x/0000001"], "positions"),
        (["a.jpg", "a.jpg"], {}, None, ["x/0000000", "x/0000001"], "positions"),
    ],
)  # fmt: skip
def test_ids_are_made_of_the_best_there_is(
    tmp_path: Path, paths: list[str | None], columns: dict[str, list[object]], names: list[str] | None, ids: list[str],
    ids_from: str,
):  # fmt: skip
    source = open_images(
        write(tmp_path / "x.parquet", [(b"1", path) for path in paths], names=names, **columns)
    )
    assert (list(source.sample_ids), source.ids_from) == (ids, ids_from)
    assert source.kind == "parquet"


@pytest.mark.parametrize("first", ["/m/01g317", "C:/a", "a/../b", "https://host/a"])
def test_ids_that_are_no_paths_below_a_root_do_not_stand_for_paths(tmp_path: Path, first: str):
    source = open_images(write(tmp_path / "x.parquet", [(b"1", None), (b"2", None)], sample_id=[first, "k"]))
    assert (list(source.sample_ids), list(source.paths)) == ([first, "k"], ["x/0000000", "x/0000001"])


def test_classes_are_folders_where_there_are_any_and_labels_elsewhere(tmp_path: Path):
    images = [(b"1", "a.jpg"), (b"2", "b.jpg")]
    labelled = open_images(write(tmp_path / "x.parquet", images, names=["c/t", "d"], label=[1, 0]))
    assert list(labelled.class_names) == ["d", "c/t"]
    assert list(open_images(write(tmp_path / "y.parquet", images)).class_names) == [None, None]


def test_null_images_are_empty_files_and_keep_their_row(tmp_path: Path):
    images = [(b"0", None), None, (None, None), (b"", None), (b"4", None)]
    source = open_images(write(tmp_path / "x.parquet", images, row_group_size=3))
    assert isinstance(source, ParquetImages)
    assert read_all(source) == [b"0", b"", b"", b"", b"4"]


def test_paths_without_bytes_are_refused(tmp_path: Path):
    path = write(tmp_path / "x.parquet", [(None, "/a/c/1.jpg"), (None, "/a/d/2.jpg")], row_group_size=1)
    with pytest.raises(ImageSourceError, match="column 'image' is without bytes in every row"):
        open_images(path)


@pytest.mark.parametrize("row_group_size", [1, 7, 16, 17, 100])
def test_rows_in_any_order_are_those_of_the_table(
    tmp_path: Path, rng: np.random.Generator, row_group_size: int
):
    contents = [rng.bytes(int(size)) for size in rng.integers(1, 400, 60)]
    path = write(tmp_path / "x.parquet", [(data, None) for data in contents], row_group_size=row_group_size)
    source = open_images(path)
    for row in [*range(60), *rng.integers(0, 60, 100).tolist(), *range(59, -1, -1)]:
        assert source.read(row) == contents[row], row


def test_files_with_empty_row_groups_and_none_at_all(tmp_path: Path):
    (tmp_path / "data").mkdir()
    for number, images in enumerate(([], [(b"0", "a.jpg")], [], [(b"1", "b.jpg")])):
        write(tmp_path / "data" / f"train-{number:05d}-of-00004.parquet", images)
    source = open_images(tmp_path / "data")
    assert isinstance(source, ParquetImages)
    assert read_all(source) == [b"0", b"1"]
    for row in (-1, 2):
        with pytest.raises(IndexError):
            source.read(row)


def test_a_plain_binary_column_will_do(tmp_path: Path):
    table = pa.table({"jpg": [b"0", b"1"], "__key__": ["k", "l"], "thumbnail": [b"", b""]})
    pq.write_table(table, tmp_path / "x.parquet")
    source = open_images(tmp_path / "x.parquet")
    assert isinstance(source, ParquetImages)
    assert (read_all(source), list(source.sample_ids)) == ([b"0", b"1"], ["k", "l"])


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"image": IMAGE}, ImageColumn("image", True, True)),
        ({"photo": IMAGE}, ImageColumn("photo", True, True)),
        ({"image": IMAGE, "mask": IMAGE}, ImageColumn("image", True, True)),
        ({"a": IMAGE, "b": IMAGE}, None),
        ({"x": pa.binary()}, None),
        ({"image": pa.large_binary()}, ImageColumn("image")),
        ({"image": pa.string()}, None),
        ({"image": pa.struct([("bytes", pa.string())])}, None),
    ],
)
def test_the_column_of_images_is_found(fields: dict[str, pa.DataType], found: ImageColumn | None):
    assert image_column(pa.schema(list(fields.items()))) == found


def test_files_of_different_tables_are_refused(tmp_path: Path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train-0.parquet", [(b"1", "a")])
    pq.write_table(pa.table({"x": [1]}), tmp_path / "data" / "train-1.parquet")
    with pytest.raises(ImageSourceError, match=r"train-1\.parquet': columns 'x', expected images in 'image'"):
        open_images(tmp_path / "data")


def test_a_table_without_rows_is_refused(tmp_path: Path):
    with pytest.raises(ImageSourceError, match="no rows"):
        open_images(write(tmp_path / "x.parquet", []))


def test_a_file_that_changed_is_an_error_that_can_be_tried_again(tmp_path: Path):
    path = write(tmp_path / "x.parquet", [(bytes([n]), f"{n}.jpg") for n in range(40)])
    source = open_images(path)
    write(path, [(b"1", "0.jpg")])
    assert source.read(0) == b"1"
    with pytest.raises(OSError, match="has fewer rows than were listed; the file changed"):
        source.read(39)
    path.write_bytes(b"PAR1 and no more")
    source.close()
    with pytest.raises(OSError, match=r"x\.parquet"):
        source.read(39)


def test_flipped_bits_never_pass_for_another_image_unseen(tmp_path: Path, rng: np.random.Generator):
    """With page checksums, as ``datasets`` does not write them but Arrow can, damage is an error."""
    contents = [rng.bytes(300) for _ in range(20)]
    table = pa.table({"image": pa.array([{"bytes": data, "path": None} for data in contents], IMAGE)})
    pq.write_table(table, tmp_path / "x.parquet", write_page_checksum=True, compression="none")
    data = bytearray((tmp_path / "x.parquet").read_bytes())
    data[data.index(contents[10]) + 5] ^= 1
    (tmp_path / "x.parquet").write_bytes(data)
    with pytest.raises(OSError, match=r"x\.parquet"):
        open_images(tmp_path / "x.parquet").read(10)


def test_the_writer_of_the_other_tests_makes_what_datasets_makes(
    tmp_path: Path, parquet_writer: Callable[..., None]
):
    parquet_writer(tmp_path / "x.parquet", [{"image": {"bytes": b"1", "path": "a.jpg"}, "label": 2}])
    source = open_images(tmp_path / "x.parquet")
    assert (list(source.sample_ids), list(source.class_names)) == (["n00000003/a"], ["n00000003"])

"""One tree of images, in every way that it can be stored."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from relabel_store.store.cache import CACHE_VARIABLE

COLOURS = {"n00000001": (250, 10, 10), "n00000002": (10, 240, 20), "n00000003": (5, 5, 250)}
KINDS = ("tar", "tar-of-tars", "tar-a-class", "webdataset", "parquet", "list")
Packer = Callable[[Path, Path], str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Twelve images in three class folders, with names as ImageNet has them."""
    root = tmp_path / "train"
    rng = np.random.default_rng(1)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.clip(np.array(colour) + rng.integers(-40, 40, (20 + number, 30, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{name}_{number}.JPEG")
    return root


def images_of(tree: Path) -> list[Path]:
    return sorted(path for path in tree.rglob("*") if path.is_file())


def add(tar: tarfile.TarFile, name: str, data: bytes, **facts: object) -> None:
    """Add a file to a tar."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for fact, value in facts.items():
        setattr(member, fact, value)
    tar.addfile(member, io.BytesIO(data))


def pack_tar(tree: Path, target: Path) -> str:
    """Pack as ``tar cf`` does: with the folder itself first, directories as members of their own."""
    with tarfile.open(target / "train.tar", "w") as tar:
        tar.add(tree, arcname=tree.name)
    return str(target / "train.tar")


def _class_tars(tree: Path) -> Iterator[tuple[str, bytes]]:
    for folder in sorted(tree.iterdir()):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            for path in sorted(folder.iterdir()):
                add(tar, path.name, path.read_bytes())
        yield f"{folder.name}.tar", data.getvalue()


def pack_tar_of_tars(tree: Path, target: Path) -> str:
    """Pack as ImageNet is: a tar of one tar a class, of images without folders."""
    with tarfile.open(target / "ILSVRC2012_img_train.tar", "w") as tar:
        for name, data in _class_tars(tree):
            add(tar, name, data)
    return str(target / "ILSVRC2012_img_train.tar")


def pack_tar_a_class(tree: Path, target: Path) -> str:
    """Pack as ImageNet is after unpacking it once."""
    (target / "synsets").mkdir()
    for name, data in _class_tars(tree):
        (target / "synsets" / name).write_bytes(data)
    return str(target / "synsets")


def pack_webdataset(tree: Path, target: Path) -> str:
    """Pack into shards of five samples: image, class and a note; keys are paths."""
    paths = images_of(tree)
    for shard, start in enumerate(range(0, len(paths), 5)):
        with tarfile.open(target / f"train-{shard:04d}.tar", "w") as tar:
            for path in paths[start : start + 5]:
                key = path.relative_to(tree).with_suffix("").as_posix()
                add(tar, f"{key}.jpg", path.read_bytes())
                add(tar, f"{key}.cls", b"7")
                add(tar, f"{key}.json", b"{}")
    return str(target / "train-{0000..0002}.tar")


def write_parquet(path: Path, rows: Iterable[dict[str, object]], **options: object) -> None:
    """Write images as ``datasets`` does: a struct of bytes and path, class names in the schema's metadata."""
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(COLOURS), "_type": "ClassLabel"},
    }
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path, **options)


def pack_parquet(tree: Path, target: Path) -> str:
    """Pack as ``datasets`` stores ImageNet: two files, names without folders, small row groups."""
    rows = [
        {
            "image": {"bytes": path.read_bytes(), "path": f"{path.stem}_{path.parent.name}.JPEG"},
            "label": list(COLOURS).index(path.parent.name),
        }
        for path in images_of(tree)
    ]
    (target / "data").mkdir()
    for number, some in enumerate((rows[:7], rows[7:])):
        write_parquet(target / "data" / f"train-{number:05d}-of-00002.parquet", some, row_group_size=3)
    return str(target / "data")


def pack_list(tree: Path, target: Path) -> str:
    """List paths in a CSV file beside the tree."""
    with open(target / "train.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path"])
        writer.writerows([[str(path)] for path in images_of(tree)])
    return str(target / "train.csv")


PACKERS: dict[str, Packer] = {
    "tar": pack_tar,
    "tar-of-tars": pack_tar_of_tars,
    "tar-a-class": pack_tar_a_class,
    "webdataset": pack_webdataset,
    "parquet": pack_parquet,
    "list": pack_list,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each way to store images other than in folders."""
    return str(request.param)


@pytest.fixture
def packed(kind: str, tree: Path, tmp_path: Path) -> str:
    """The tree stored in that way; what to give to ``--images``."""
    target = tmp_path / "packed"
    target.mkdir()
    return PACKERS[kind](tree, target)


@pytest.fixture
def pack(tree: Path, tmp_path: Path) -> Callable[[str], str]:
    """Store the tree in a way of the test's choice."""
    target = tmp_path / "packed"
    target.mkdir(exist_ok=True)
    return lambda kind: PACKERS[kind](tree, target)


@pytest.fixture
def add_member() -> Callable[..., None]:
    return add


@pytest.fixture
def parquet_writer() -> Callable[..., None]:
    return write_parquet

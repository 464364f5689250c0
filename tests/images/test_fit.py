"""Labels made from images in any packing are those of the folder, and fit a training run on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from relabel_store.errors import ImageReadError, ImagesChangedError
from relabel_store.generate.build import build
from relabel_store.generate.toy import ColourTeacher
from relabel_store.images.recognise import open_images
from relabel_store.store.reader import LabelStore, open_store
from relabel_store.torch import LabelDataset
from relabel_store.torch.images import SampleImages

# One row a shard group of three, so that parts end inside tars, shards and row groups.
SHARD_ROWS = 5


def label(images: str | Path, out: Path, **options: object) -> LabelStore:
    build(ColourTeacher(), images, out, absent="zero", batch_size=2, shard_rows=SHARD_ROWS, **options)  # type: ignore[arg-type]
    return open_store(out)


@pytest.fixture
def expected(tree: Path, tmp_path: Path) -> LabelStore:
    return label(tree, tmp_path / "folder.zarr")


@pytest.mark.parametrize("workers", [0, 2])
def test_labels_from_any_kind_are_those_of_the_folder_and_train_on_it(
    packed: str, kind: str, tree: Path, tmp_path: Path, expected: LabelStore, workers: int
):
    found = label(packed, tmp_path / "packed.zarr", workers=workers)
    assert found.manifest.images.kind == kind
    assert found.manifest.images.digest == expected.manifest.images.digest
    for sample_id in expected.samples["sample_id"].to_pylist():
        ours, theirs = (store[store.row_of(sample_id)] for store in (found, expected))
        np.testing.assert_array_equal(ours.indices, theirs.indices)
        np.testing.assert_array_equal(ours.values, theirs.values)
    for column in ("sample_id", "class_name", "sha256", "width", "height", "status"):
        assert found.samples[column].to_pylist() == expected.samples[column].to_pylist(), column
    dataset = LabelDataset(ImageFolder(tree), found, join="exact", with_class_index=True)
    assert [dataset[at][1].tolist() for at in range(12)] == [
        LabelDataset(ImageFolder(tree), expected, join="exact")[at][1].tolist() for at in range(12)
    ]


def test_paths_lead_to_the_same_images_in_the_folder(pack: Callable[[str], str], tree: Path, tmp_path: Path):
    for kind in ("tar", "tar-of-tars", "tar-a-class", "list"):
        store = label(pack(kind), tmp_path / f"{kind}.zarr")
        assert len(SampleImages(tree, store)) == 12, kind


@pytest.mark.parametrize("is_mixed", [False, True], ids=["class folders", "an image beside them"])
@pytest.mark.parametrize("has_ids", [False, True], ids=["paths", "ids"])
def test_a_list_of_files_elsewhere_fits_the_folder_and_does_not_say_where_it_is(
    tree: Path, tmp_path: Path, is_mixed: bool, has_ids: bool
):
    if is_mixed:
        next(tree.rglob("*.JPEG")).rename(tree / "a.JPEG")
    folder = open_images(tree)
    lines = [
        f"{tree / path},{sample_id}" for path, sample_id in zip(folder.paths, folder.sample_ids, strict=True)
    ]
    table = tmp_path / "lists" / "train.csv"
    table.parent.mkdir()
    table.write_text("\n".join([f"path,{'sample_id' if has_ids else 'size'}", *lines]))
    assert repr(f"{tree}/") in open_images(table).ids_from
    found = label(table, tmp_path / "list.zarr")
    expected = label(tree, tmp_path / "folder.zarr")
    for column in ("sample_id", "path", "class_name", "sha256"):
        assert found.samples[column].to_pylist() == expected.samples[column].to_pylist(), column
    for file in (tmp_path / "list.zarr").rglob("*"):
        assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes(), file


@pytest.mark.parametrize("limit", [1, 5])
def test_a_limit_takes_the_same_images(packed: str, tree: Path, tmp_path: Path, limit: int):
    found, expected = (
        label(images, tmp_path / f"{name}.zarr", limit=limit) for name, images in (("a", packed), ("b", tree))
    )
    assert found.samples["sha256"].to_pylist() == expected.samples["sha256"].to_pylist()


def test_a_build_that_failed_goes_on(packed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    undisturbed = label(packed, tmp_path / "undisturbed.zarr")
    source_class = type(open_images(packed))
    read = source_class.read

    def fail_at_8(self: object, row: int) -> bytes:
        if row == 8:
            raise PermissionError(13, "no")
        return read(self, row)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(source_class, "read", fail_at_8)
        with pytest.raises(ImageReadError):
            label(packed, tmp_path / "failed.zarr")
    store = label(packed, tmp_path / "failed.zarr")
    files = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "undisturbed.zarr", tmp_path / "failed.zarr")
    ]
    assert store.digest == undisturbed.digest
    assert files[0] == files[1]


def test_other_images_in_the_same_place_are_noticed_when_a_build_goes_on(
    pack: Callable[[str], str], tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from relabel_store.images.tars import TarImages

    out = tmp_path / "labels.zarr"
    tar = pack("tar")
    read = TarImages.read

    def fail_at_8(self: TarImages, row: int) -> bytes:
        if row == 8:
            raise PermissionError(13, "no")
        return read(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(TarImages, "read", fail_at_8)
        with pytest.raises(ImageReadError):
            label(tar, out)
    first, second = sorted(tree.rglob("*.JPEG"))[:2]
    data = second.read_bytes()
    first.write_bytes(data + bytes(max(first.stat().st_size - len(data), 0)))
    pack("tar")
    with pytest.raises(
        ImagesChangedError, match=r"1 changed after they were labelled: 'n00000001/n00000001_0\.JPEG'"
    ):
        label(tar, out)

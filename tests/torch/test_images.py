from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from relabel_store.errors import ClassOrderError, FormatError, JoinError
from relabel_store.store.reader import LabelStore, open_store
from relabel_store.testing import make_manifest, make_sample_ids, make_store
from relabel_store.torch.dataset import LabelDataset
from relabel_store.torch.images import SampleImages
from relabel_store.torch.join import class_columns
from relabel_store.torch.pooling import LabelPooling


@pytest.fixture
def image_root(image_root: Path) -> Path:
    """The images under the names that the store has for them."""
    for path in image_root.rglob("*.png"):
        path.rename(path.with_suffix(".jpg"))
    return image_root


def colour_of(path: Path) -> object:
    with Image.open(path) as image:
        return image.getpixel((0, 0))


def test_the_images_are_those_of_the_store(image_root: Path, store: LabelStore) -> None:
    images = SampleImages(image_root, store)
    assert list(images.sample_ids) == make_sample_ids(8)
    for (image, class_index), sample_id in zip(images, images.sample_ids, strict=True):
        assert (image.mode, image.size) == ("RGB", (40, 30))
        assert image.getpixel((0, 0)) == colour_of(image_root / f"{sample_id}.jpg")
        assert class_index == sample_id.startswith("dog")


def test_images_without_a_label_are_left_out(
    image_root: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    make_store(tmp_path / "bad.zarr", rng, bad_images={0: "truncated", 5: "truncated"})
    images = SampleImages(image_root, open_store(tmp_path / "bad.zarr"))
    left = [sample_id for row, sample_id in enumerate(make_sample_ids(8)) if row not in (0, 5)]
    assert (len(images), list(images.sample_ids)) == (6, left)
    assert images[0][0].getpixel((0, 0)) == colour_of(image_root / f"{left[0]}.jpg")
    assert images[-1][0].getpixel((0, 0)) == colour_of(image_root / f"{left[-1]}.jpg")


def test_a_class_that_the_teacher_does_not_know_is_minus_one(
    image_root: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    make_store(tmp_path / "one.zarr", rng, make_manifest(k=1, num_classes=1))  # knows cats alone
    images = SampleImages(image_root, open_store(tmp_path / "one.zarr"))
    assert [class_index for _, class_index in images] == [0] * 4 + [-1] * 4


def test_a_student_of_some_classes_numbers_them_its_own_way(image_root: Path, store: LabelStore) -> None:
    assert SampleImages(image_root, store).classes == ["cat", "dog"]
    images = SampleImages(image_root, store, classes=["dog", "cat"])
    assert images.classes == ["dog", "cat"]
    for (_, class_index), sample_id in zip(images, images.sample_ids, strict=True):
        assert class_index == sample_id.startswith("cat")
    dogs = SampleImages(image_root, store, classes=["dog"])
    assert {sample_id.split("/")[0] for sample_id in dogs.sample_ids} == {"dog"}
    assert [class_index for _, class_index in dogs] == [0] * 4


def test_its_labels_are_those_of_its_classes(image_root: Path, store: LabelStore) -> None:
    classes = ["dog", "cat"]
    pool = LabelPooling(store.num_classes, classes=class_columns(store, classes))
    dataset = LabelDataset(SampleImages(image_root, store, classes), store, pool=pool, with_class_index=True)
    every = LabelDataset(SampleImages(image_root, store), store)
    for (_, target, class_index), (_, whole) in zip(dataset, every, strict=True):
        dog_and_cat = whole[[1, 0]]
        torch.testing.assert_close(target, dog_and_cat / dog_and_cat.sum())
        assert class_index in (0, 1)


def test_a_class_that_nobody_knows_is_named(image_root: Path, store: LabelStore) -> None:
    with pytest.raises(ClassOrderError, match="'cow' of 2 not among the teacher's"):
        SampleImages(image_root, store, classes=["cow", "dog"])


def test_the_images_of_another_folder_are_refused(tmp_path: Path, store: LabelStore) -> None:
    with pytest.raises(
        JoinError, match=r"no file 'cat/photo 0001.jpg' in it, expected the folder that 'made-up'"
    ):
        SampleImages(tmp_path, store)


def test_a_path_that_leads_out_of_the_root_is_refused(
    image_root: Path, store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = SampleImages(image_root, store)
    table = store.samples
    paths = pa.array(["../secret.jpg"] * len(table))
    outside = table.set_column(table.schema.get_field_index("path"), table.schema.field("path"), paths)
    monkeypatch.setitem(store.__dict__, "samples", outside)
    with pytest.raises(FormatError, match="expected one below the images' root"):
        images[0]


def test_a_copy_in_another_process_reads_the_store_anew(
    image_root: Path, tmp_path: Path, store: LabelStore
) -> None:
    images = SampleImages(image_root, store.materialize(tmp_path / "cache"))
    pickled = pickle.dumps(images)
    assert b"photo 0001" not in pickled
    copy = pickle.loads(pickled)
    assert list(copy.sample_ids) == list(images.sample_ids)
    assert copy[3][1] == images[3][1]


def test_numbers_that_nobody_sees_may_be_the_teacher_s(image_root: Path, store: LabelStore) -> None:
    pool = LabelPooling(store.num_classes, classes=[1, 0])
    images = SampleImages(image_root, store)
    assert LabelDataset(images, store, pool=pool)[0][1].shape == (2,)
    with pytest.raises(ClassOrderError, match="numbered otherwise"):
        LabelDataset(images, store, pool=pool, with_class_index=True)

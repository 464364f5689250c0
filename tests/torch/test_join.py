from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import Subset, TensorDataset
from torchvision.datasets import ImageFolder

from relabel_store.errors import ClassOrderError, JoinError
from relabel_store.manifest import Classes
from relabel_store.store.reader import LabelStore, open_store
from relabel_store.testing import make_manifest, make_sample_ids, make_store
from relabel_store.torch.join import JoinMode, class_columns, join_labels, require_class_order, sample_ids_of

IDS = make_sample_ids(8)


@pytest.mark.parametrize("mode", list(JoinMode), ids=str)
def test_labels_are_joined_by_id_in_whatever_order(mode: JoinMode, store: LabelStore) -> None:
    shuffled = [IDS[at] for at in (5, 0, 7, 2, 1, 6, 4, 3)]
    join = join_labels(shuffled, store, mode)
    assert join.positions.tolist() == list(range(8))
    assert [store[row].sample_id for row in join.rows] == shuffled
    assert str(join) == "8 images with labels"


def test_an_inner_join_keeps_what_has_both(store: LabelStore) -> None:
    join = join_labels(["cat/new", *IDS[2:], "dog/new"], store, JoinMode.INNER)
    assert join.positions.tolist() == [1, 2, 3, 4, 5, 6]
    assert join.rows.tolist() == [2, 3, 4, 5, 6, 7]
    assert join.unlabelled_images == ("cat/new", "dog/new")
    assert join.unused_labels == 2
    assert str(join) == "6 images with labels, 2 without ('cat/new', 'dog/new'), 2 labels without an image"


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([*IDS, "cat/new"], r"1 without \('cat/new'\)"),
        (IDS[1:], "1 labels without an image"),
    ],
    ids=["an image more", "an image less"],
)
def test_an_exact_join_says_what_is_left_over(ids: list[str], said: str, store: LabelStore) -> None:
    with pytest.raises(JoinError, match=said + r".*join='inner'"):
        join_labels(ids, store, JoinMode.EXACT)


def test_rows_that_a_bad_image_left_empty_have_no_label(tmp_path: Path, rng: np.random.Generator) -> None:
    make_store(tmp_path / "bad.zarr", rng, bad_images={3: "truncated"})
    store = open_store(tmp_path / "bad.zarr")
    with pytest.raises(JoinError, match=IDS[3]):
        join_labels(IDS, store, JoinMode.EXACT)
    assert 3 not in join_labels(IDS, store, JoinMode.INNER).rows


def test_rows_of_parts_that_are_not_built_have_no_label(tmp_path: Path, rng: np.random.Generator) -> None:
    make_store(tmp_path / "half.zarr", rng, parts=[1])
    join = join_labels(IDS, open_store(tmp_path / "half.zarr"), JoinMode.INNER)
    assert join.rows.tolist() == [4, 5, 6, 7]
    assert join.unused_labels == 0


@pytest.mark.parametrize("mode", list(JoinMode), ids=str)
def test_images_none_of_which_has_a_label_are_refused(mode: JoinMode, store: LabelStore) -> None:
    with pytest.raises(JoinError, match=r"none of 1 .*'train/cat/photo 0001'.*'cat/photo 0001'"):
        join_labels(["train/cat/photo 0001"], store, mode)


def test_two_images_of_one_id_are_refused(store: LabelStore) -> None:
    with pytest.raises(JoinError, match=f"two have the sample id {IDS[2]!r}"):
        join_labels([*IDS, IDS[2]], store, JoinMode.INNER)


def test_folders_say_which_files_they_read(images: ImageFolder) -> None:
    assert sorted(sample_ids_of(images)) == IDS
    subset = Subset(Subset(images, [4, 1, 3]), [2, 0])
    assert sample_ids_of(subset) == [sample_ids_of(images)[3], sample_ids_of(images)[4]]


def test_a_root_given_with_dots_makes_the_same_ids(image_root: Path) -> None:
    assert sample_ids_of(ImageFolder(image_root / ".." / "images")) == sample_ids_of(ImageFolder(image_root))


def test_timms_dataset_says_which_files_it_reads(image_root: Path) -> None:
    timm_data = pytest.importorskip("timm.data")
    assert sorted(sample_ids_of(timm_data.ImageDataset(str(image_root)))) == IDS


def test_a_dataset_that_does_not_say_is_asked_for_ids() -> None:
    with pytest.raises(JoinError, match="TensorDataset does not say which files it reads; pass sample_ids="):
        sample_ids_of(TensorDataset())


def test_classes_in_the_targets_order_pass(store: LabelStore) -> None:
    assert require_class_order({"cat": 0, "dog": 1}, store, None)
    assert require_class_order({"dog": 0, "cat": 1}, store, [1, 0])


def test_classes_that_neither_knows_cannot_be_compared(store: LabelStore) -> None:
    assert not require_class_order({"a": 0, "b": 1}, store, None)


@pytest.mark.parametrize(
    ("class_to_index", "columns", "said"),
    [
        ({"dog": 0, "cat": 1}, None, "'dog' is class 0 of the images and column 1 of the targets"),
        ({"cat": 0, "dog": 1}, [1, 0], "'cat' is class 0 of the images and column 1 of the targets"),
        ({"cat": 0, "dog": 1}, [0, 2], "'dog' is class 1 of the images and not among the targets"),
    ],
    ids=["swapped", "swapped by the selection", "not selected"],
)
def test_another_order_of_classes_is_refused(
    class_to_index: dict[str, int], columns: list[int] | None, said: str, store: LabelStore
) -> None:
    with pytest.raises(ClassOrderError, match=said):
        require_class_order(class_to_index, store, columns)


def test_the_columns_of_class_folders_are_the_teachers(store: LabelStore) -> None:
    assert class_columns(store, ["dog", "thing 4", "cat"]) == [1, 4, 0]
    with pytest.raises(
        ClassOrderError, match="'bird' of 2 not among the teacher's; the store knows 5 classes"
    ):
        class_columns(store, ["cat", "bird"])


def test_a_store_without_class_names_says_so(tmp_path: Path, rng: np.random.Generator) -> None:
    manifest = make_manifest()
    make_store(
        tmp_path / "nameless.zarr",
        rng,
        type(manifest)(**{**manifest.__dict__, "classes": Classes.of(None, None, None)}),
    )
    with pytest.raises(ClassOrderError, match="does not say what its classes are called"):
        class_columns(open_store(tmp_path / "nameless.zarr"), ["cat"])

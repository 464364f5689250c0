from __future__ import annotations

import dataclasses
import inspect
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from timm.data import AugMixDataset, ImageDataset, create_loader, create_transform
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, default_collate
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from relabel_store.errors import (
    BoxError,
    ClassOrderError,
    CropError,
    GeometryError,
    JoinError,
    LabelMismatchError,
)
from relabel_store.labels.pooling import soft_targets
from relabel_store.manifest import AbsentRule, Resize
from relabel_store.store.reader import LabelStore, open_store
from relabel_store.testing import make_manifest, make_sample_ids, make_store
from relabel_store.torch.crops import CropBox
from relabel_store.torch.dataset import LabelDataset
from relabel_store.torch.pooling import LabelPooling

CROP = v2.Compose(
    [v2.RandomResizedCrop(16), v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
)


class Left:
    """Shows the left half; remembers nothing and draws nothing."""

    def __call__(self, image: Image.Image, box: CropBox) -> tuple[torch.Tensor, CropBox]:
        tensor = v2.functional.pil_to_tensor(image)
        height, width = tensor.shape[-2:]
        return v2.functional.crop(tensor, 0, 0, height, width // 2), v2.functional.crop(
            box, 0, 0, height, width // 2
        )


def test_a_target_is_pooled_from_what_the_crop_shows(images: ImageFolder, store: LabelStore) -> None:
    dataset = LabelDataset(images, store, Left())
    for position, (path, _) in enumerate(images.samples):
        _, target = dataset[position]
        label_map = store[store.row_of(Path(path).relative_to(images.root).with_suffix("").as_posix())]
        expected = soft_targets(
            label_map.indices[None], label_map.values[None], [[0, 0, 0.5, 1]], num_classes=5
        )
        np.testing.assert_allclose(target, expected[0], atol=1e-6)


def test_without_a_transform_the_whole_image_is_shown(images: ImageFolder, store: LabelStore) -> None:
    image, target = LabelDataset(images, store)[2]
    assert image.size == (40, 30)
    maps = store.read_rows([2])
    expected = soft_targets(maps.indices, maps.values, [[0, 0, 1, 1]], num_classes=5)
    np.testing.assert_allclose(target, expected[0], atol=1e-6)


def test_a_batch_is_what_its_items_are(images: ImageFolder, store: LabelStore) -> None:
    dataset = LabelDataset(images, store, Left(), with_class_index=True)
    order = [3, 0, 7, 3, -1]
    for (image, target, index), position in zip(dataset.__getitems__(order), order, strict=True):
        alone = dataset[position]
        assert torch.equal(image, alone[0])
        torch.testing.assert_close(target, alone[1])
        assert index == alone[2] == images.samples[position][1]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_default_collate_makes_batches(workers: int, images: ImageFolder, store: LabelStore) -> None:
    loader = DataLoader(LabelDataset(images, store, CROP), batch_size=3, num_workers=workers)
    batches = list(loader)
    assert [len(targets) for _, targets in batches] == [3, 3, 2]
    for pictures, targets in batches:
        assert pictures.shape[1:] == (3, 16, 16)
        assert type(targets) is torch.Tensor
        torch.testing.assert_close(targets.sum(1), torch.ones(len(targets)))


@pytest.mark.parametrize("context", ["fork", "forkserver"])
def test_workers_give_the_same_however_they_are_started(
    context: str, images: ImageFolder, store: LabelStore
) -> None:
    dataset = LabelDataset(images, store, v2.ToImage())
    store.read_rows([0, 5])  # opened before the workers start
    here = [target for _, target in dataset]
    loader = DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context=context)
    torch.testing.assert_close(torch.cat([targets for _, targets in loader]), torch.stack(here))


def test_pooling_on_the_device_gives_the_targets_of_the_worker(
    images: ImageFolder, store: LabelStore
) -> None:
    (_, in_worker), (_, for_device) = (
        default_collate(LabelDataset(images, store, Left(), pool_on=place).__getitems__(list(range(8))))
        for place in ("worker", "device")
    )
    assert for_device["indices"].dtype == torch.uint16
    torch.testing.assert_close(LabelPooling(5)(**for_device), in_worker)


def test_flips_turn_the_tokens(images: ImageFolder, store: LabelStore) -> None:
    pool = LabelPooling(5, (3, 3))
    (_, plain), (_, mirrored), (_, upside_down) = (
        LabelDataset(images, store, transform, pool=pool)[1]
        for transform in (None, v2.RandomHorizontalFlip(1), v2.RandomVerticalFlip(1))
    )
    torch.testing.assert_close(mirrored, plain.flip(2))
    torch.testing.assert_close(upside_down, plain.flip(1))


def test_the_rest_is_pooled_too(images: ImageFolder, tmp_path: Path, rng: np.random.Generator) -> None:
    make_store(tmp_path / "rest.zarr", rng, make_manifest(absent=AbsentRule.REST))
    store = open_store(tmp_path / "rest.zarr")
    maps = store.read_rows([0])
    expected = soft_targets(maps.indices, maps.values, [[0, 0, 1, 1]], num_classes=5, rest=maps.rest)
    np.testing.assert_allclose(LabelDataset(images, store)[0][1], expected[0], atol=1e-6)
    assert "rest" in LabelDataset(images, store, pool_on="device")[0][1]


def test_it_can_be_pickled(images: ImageFolder, store: LabelStore) -> None:
    dataset = LabelDataset(images, store, Left())
    copy = pickle.loads(pickle.dumps(dataset))
    torch.testing.assert_close(copy[3][1], dataset[3][1])


def test_an_inner_join_shortens_the_dataset(image_root: Path, store: LabelStore) -> None:
    Image.new("RGB", (40, 30)).save(image_root / "cat" / "a new one.png")
    images = ImageFolder(image_root)
    with pytest.raises(JoinError, match="cat/a new one"):
        LabelDataset(images, store)
    dataset = LabelDataset(images, store, join="inner", with_class_index=True)
    assert len(dataset) == 8
    assert dataset.join.unlabelled_images == ("cat/a new one",)
    torch.testing.assert_close(dataset[0][1], LabelDataset(Subset(images, [1]), store, join="inner")[0][1])


def test_what_was_joined_is_logged(
    images: ImageFolder, store: LabelStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        LabelDataset(images, store)
    assert "labels of 'made-up': 8 images with labels" in caplog.text


class Turned(ImageFolder):
    """Reads as a reader that applies the EXIF orientation does."""

    def __getitem__(self, index: int) -> Any:
        image, class_index = super().__getitem__(index)
        return image.transpose(Image.Transpose.ROTATE_90), class_index


def test_a_reader_that_turns_images_is_noticed(image_root: Path, store: LabelStore) -> None:
    with pytest.raises(GeometryError, match=r"30 x 40 pixels, expected 500 x 375.*EXIF orientation"):
        LabelDataset(Turned(image_root), store)


def test_an_image_that_is_turned_and_nearly_square_is_noticed(image_root: Path, store: LabelStore) -> None:
    loaded = store.load()
    samples = loaded.samples
    for name, side in (("width", 40), ("height", 39)):
        at = samples.schema.get_field_index(name)
        samples = samples.set_column(at, samples.schema.field(name), pa.array([side] * 8, pa.int32()))
    loaded._samples = samples  # type: ignore[attr-defined]  # a store of such images
    for path in image_root.rglob("*.png"):
        Image.new("RGB", (39, 40)).save(path)
    with pytest.raises(GeometryError, match=r"39 x 40 pixels, expected 40 x 39.*EXIF orientation"):
        LabelDataset(ImageFolder(image_root), loaded)


def test_an_image_that_was_cropped_before_is_noticed_when_it_is_read(
    image_root: Path, store: LabelStore
) -> None:
    Image.new("RGB", (30, 30)).save(image_root / f"{make_sample_ids(8)[1]}.png")
    dataset = LabelDataset(ImageFolder(image_root), store)
    with pytest.raises(GeometryError, match="cropped before"):
        dataset[1]


def with_geometry(store: LabelStore, resize: Resize) -> LabelStore:
    """The same labels, made from another part of each image."""
    loaded = store.load()
    geometry = dataclasses.replace(store.manifest.geometry, resize=resize)
    loaded.manifest = dataclasses.replace(store.manifest, geometry=geometry)
    return loaded


def test_maps_of_the_middle_of_images_are_refused(images: ImageFolder, store: LabelStore) -> None:
    with pytest.raises(GeometryError, match=r"square in the middle.*maps_cover_images=True"):
        LabelDataset(images, with_geometry(store, Resize.CENTER_CROP))


def test_maps_of_an_unknown_part_of_images_are_taken_with_a_warning(
    images: ImageFolder, store: LabelStore, caplog: pytest.LogCaptureFixture
) -> None:
    LabelDataset(images, with_geometry(store, Resize.UNKNOWN))
    assert "nobody knows which part of an image a map covers" in caplog.text


@pytest.mark.parametrize("resize", [Resize.CENTER_CROP, Resize.UNKNOWN])
def test_whoever_knows_that_maps_cover_the_images_says_so(
    resize: Resize, images: ImageFolder, store: LabelStore, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = LabelDataset(images, with_geometry(store, resize), maps_cover_images=True)
    assert torch.equal(dataset[2][1], LabelDataset(images, store)[2][1])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def nested(images: ImageFolder) -> list[Dataset[Any]]:
    every = range(len(images))
    return [
        images,
        Subset(images, every),
        ConcatDataset([Subset(images, every)]),
        Subset(ConcatDataset([images]), every),
    ]


@pytest.mark.parametrize(
    "which", range(4), ids=["itself", "subset", "concatenated", "subset-of-concatenated"]
)
def test_a_transform_is_found_wherever_it_hides(image_root: Path, store: LabelStore, which: int) -> None:
    images = nested(ImageFolder(image_root, transform=v2.RandomHorizontalFlip()))[which]
    with pytest.raises(LabelMismatchError, match="ImageFolder has a transform of its own"):
        LabelDataset(images, store)
    plain = LabelDataset(nested(ImageFolder(image_root))[which], store)
    assert plain.join.rows.tolist() == list(range(8))


class Reversed(ImageFolder):
    """Numbers its classes from the last."""

    def find_classes(self, directory: Any) -> tuple[list[str], dict[str, int]]:
        classes, _ = super().find_classes(directory)
        return classes, {name: index for index, name in enumerate(reversed(classes))}


@pytest.mark.parametrize(
    "which", range(4), ids=["itself", "subset", "concatenated", "subset-of-concatenated"]
)
def test_another_class_order_is_found_wherever_it_hides(
    image_root: Path, store: LabelStore, which: int
) -> None:
    with pytest.raises(ClassOrderError, match="numbered otherwise"):
        LabelDataset(nested(Reversed(image_root))[which], store)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_class_order_of_timm_s_dataset_is_compared(
    image_root: Path, store: LabelStore, caplog: pytest.LogCaptureFixture
) -> None:
    LabelDataset(ImageDataset(str(image_root)), store)
    assert "not compared" not in caplog.text
    with pytest.raises(ClassOrderError, match="numbered otherwise"):
        LabelDataset(ImageDataset(str(image_root), class_map={"dog": 0, "cat": 1}), store)


def test_a_transform_that_is_refused_changes_nothing(images: ImageFolder, store: LabelStore) -> None:
    dataset = LabelDataset(images, store, CROP)
    with pytest.raises(CropError):
        dataset.transform = v2.RandomPerspective()
    assert dataset.transform is CROP


def test_items_that_are_no_images_are_named(store: LabelStore) -> None:
    class Rows(Colours):
        def __getitem__(self, index: int) -> Any:
            return {"image": super().__getitem__(index)}

    dataset = LabelDataset(Rows(), store, sample_ids=make_sample_ids(8))
    with pytest.raises(LabelMismatchError, match="item 0 is a dict, expected a PIL image"):
        dataset[0]
    with pytest.raises(LabelMismatchError, match=r"expected \(image, class index\) for with_class_index"):
        LabelDataset(Colours(), store, sample_ids=make_sample_ids(8), with_class_index=True)[0]
    with pytest.raises(JoinError, match="sample_ids: 0, expected text"):
        LabelDataset(Colours(), store, sample_ids=range(8))  # type: ignore[arg-type]


def test_positions_are_whole_numbers(images: ImageFolder, store: LabelStore) -> None:
    dataset = LabelDataset(images, store)
    with pytest.raises(TypeError, match="integer"):
        dataset[1.5]  # type: ignore[index]
    assert dataset.__getitems__([]) == []
    assert torch.equal(dataset[np.int64(-1)][1], dataset[7][1])  # type: ignore[index]


def test_oversampling_is_pointed_to_where_it_works(images: ImageFolder, store: LabelStore) -> None:
    with pytest.raises(JoinError, match="take a Subset of the LabelDataset"):
        LabelDataset(Subset(images, [1, 1, 2]), store, join="inner")
    assert len(Subset(LabelDataset(images, store), [1, 1, 2])) == 3


def test_a_box_in_pixels_is_named(images: ImageFolder, store: LabelStore) -> None:
    def in_pixels(image: Any, box: CropBox) -> tuple[Any, CropBox]:
        return image, CropBox(torch.tensor([0, 0, 20, 30]), canvas_size=box.canvas_size)

    with pytest.raises(BoxError, match="not pixels"):
        LabelDataset(images, store, in_pixels)[0]


class Colours(Dataset[torch.Tensor]):
    """Tensors without files, labels or classes."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((3, 30, 40), index)


def test_a_dataset_of_bare_tensors_works_with_ids(
    store: LabelStore, caplog: pytest.LogCaptureFixture
) -> None:
    ids = make_sample_ids(8)[::-1]
    dataset = LabelDataset(Colours(), store, v2.RandomResizedCrop(8), sample_ids=ids)
    assert "not compared with those of the images" in caplog.text
    image, target = dataset[2]
    assert image.shape == (3, 8, 8)
    assert target.shape == (5,)
    assert dataset.join.rows.tolist() == list(range(7, -1, -1))


def test_as_many_ids_as_images_are_asked_for(store: LabelStore) -> None:
    with pytest.raises(JoinError, match="sample_ids: 1, expected 8"):
        LabelDataset(Colours(), store, sample_ids=["a"])


def test_a_student_with_other_classes_selects_them(images: ImageFolder, store: LabelStore) -> None:
    images.class_to_idx = {"dog": 0, "cat": 1}
    with pytest.raises(ClassOrderError, match="class_columns"):
        LabelDataset(images, store)
    dataset = LabelDataset(images, store, pool=LabelPooling(5, classes=[1, 0]))
    assert dataset.num_targets == 2
    assert dataset[0][1].shape == (2,)


def test_a_pool_for_another_class_count_is_refused(images: ImageFolder, store: LabelStore) -> None:
    with pytest.raises(LabelMismatchError, match="of 1000 classes, expected 5"):
        LabelDataset(images, store, pool=LabelPooling(1000))


@pytest.mark.parametrize("name", ["transform", "target_transform"])
def test_a_transform_of_the_images_own_is_refused(name: str, image_root: Path, store: LabelStore) -> None:
    images = ImageFolder(image_root, **{name: lambda given: given})
    with pytest.raises(LabelMismatchError, match=f"ImageFolder has a {name} of its own"):
        LabelDataset(images, store)


@pytest.mark.parametrize("position", [8, -9])
def test_a_position_out_of_range_is_an_index_error(
    position: int, images: ImageFolder, store: LabelStore
) -> None:
    with pytest.raises(IndexError, match=f"position {position}"):
        LabelDataset(images, store)[position]


def timm_loader(dataset: Any, **options: Any) -> Any:
    return create_loader(
        dataset,
        input_size=(3, 16, 16),
        batch_size=4,
        is_training=True,
        num_workers=0,
        device=torch.device("cpu"),
        **options,
    )


def test_sizes_that_timms_loader_chooses_are_refused(images: ImageFolder, store: LabelStore) -> None:
    if "input_size_choices" not in inspect.signature(create_loader).parameters:
        pytest.skip("this timm crops in the dataset alone")
    with pytest.raises(CropError, match=r"label of the whole image\. Leave input_size_choices out"):
        timm_loader(LabelDataset(images, store), input_size_choices=[16, 24])


def test_augmentation_splits_of_timm_are_refused_without_their_dataset(
    images: ImageFolder, store: LabelStore
) -> None:
    with pytest.raises(CropError, match=r"found a tuple of 3.*AugMixDataset\(dataset, num_splits=\.\.\.\)"):
        timm_loader(LabelDataset(images, store), num_aug_splits=3)


def test_augmentation_splits_of_timm_have_the_label_of_their_crop(
    images: ImageFolder, store: LabelStore
) -> None:
    inside = LabelDataset(images, store, seed=7)
    inside.epoch = 0
    outside = AugMixDataset(inside, num_splits=3)
    timm_loader(outside, num_aug_splits=3, auto_augment="rand-m7-inc1")  # which sets the transforms
    crop, _, normalize = create_transform(
        16, is_training=True, auto_augment="rand-m7-inc1", use_prefetcher=True, separate=True
    )
    alone = LabelDataset(images, store, crop, seed=7)
    alone.epoch = 0
    for (splits, target), (picture, expected) in zip(outside, alone, strict=True):
        assert len(splits) == 3
        np.testing.assert_array_equal(splits[0], normalize(picture))
        torch.testing.assert_close(target, expected)


def test_augmentation_splits_of_timm_make_batches(images: ImageFolder, store: LabelStore) -> None:
    dataset = AugMixDataset(LabelDataset(images, store), num_splits=3)
    (pictures, targets), *_ = timm_loader(dataset, num_aug_splits=3, use_prefetcher=False)
    assert [part.shape for part in pictures] == [(4, 3, 16, 16)] * 3
    assert (targets.shape, targets.dtype) == ((4, 5), torch.float32)

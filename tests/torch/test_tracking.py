"""Older pipelines carry a box and give the picture they always gave."""

from __future__ import annotations

import pickle
import random
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from timm.data import create_loader, create_transform
from timm.data import transforms as timm_transforms
from timm.data.transforms import (
    CenterCropOrPad,
    RandomCropOrPad,
    RandomPad,
    RandomResizedCropAndInterpolation,
    ResizeKeepRatio,
    TrimBorder,
)
from torch.utils.data import Dataset, default_collate
from torchvision import transforms as v1
from torchvision.transforms import v2

from relabel_store.errors import CropError
from relabel_store.torch import CropBox, TrackedTransform, as_tracked

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "transforms.md"

TRAINING: dict[str, dict[str, Any]] = {
    "plain": {},
    "rrc": {"train_crop_mode": "rrc", "scale": (0.3, 1.0), "ratio": (0.5, 2.0)},
    "rkrc": {"train_crop_mode": "rkrc"},
    "rkrr": {"train_crop_mode": "rkrr"},
    "oblong": {"input_size": (3, 40, 56)},
    "no flip": {"hflip": 0.0},
    "both flips": {"hflip": 0.5, "vflip": 0.5},
    "always flipped": {"hflip": 1.0, "vflip": 1.0},
    "colours": {
        "color_jitter": (0.4, 0.4, 0.4, 0.1),
        "color_jitter_prob": 0.5,
        "grayscale_prob": 0.3,
        "gaussian_blur_prob": 0.5,
    },
    "RandAugment": {"auto_augment": "rand-m9-mstd0.5-inc1"},
    "AutoAugment": {"auto_augment": "original-mstd0.5"},
    "AugMix": {"auto_augment": "augmix-m5-w4-d2"},
    "three augment": {"auto_augment": "3a"},
    "erasing": {"re_prob": 1.0, "re_mode": "pixel", "re_count": 2},
    "bicubic": {"interpolation": "bicubic"},
    "without augmentation": {"no_aug": True},
    "not normalized": {"normalize": False},
}
EVALUATION: dict[str, dict[str, Any]] = {
    "plain": {},
    "center": {"crop_mode": "center", "crop_pct": 0.9},
    "squash": {"crop_mode": "squash", "crop_pct": 1.0},
    "border": {"crop_mode": "border", "crop_pct": 0.8},
    "trimmed": {"crop_border_pixels": 4},
    "oblong": {"input_size": (3, 40, 56)},
}
CASES = [
    pytest.param({"is_training": is_training, **options}, id=f"{'train' if is_training else 'eval'}, {name}")
    for is_training, table in ((True, TRAINING), (False, EVALUATION))
    for name, options in table.items()
]


def seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


@pytest.fixture
def photo(rng: np.random.Generator) -> PIL.Image.Image:
    """Return noise of the shape of a photo."""
    return PIL.Image.fromarray(rng.integers(0, 256, (75, 100, 3), dtype=np.uint8))


def same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and np.array_equal(np.asarray(left), np.asarray(right))


@pytest.mark.parametrize("use_prefetcher", [True, False], ids=["prefetcher", "no prefetcher"])
@pytest.mark.parametrize("options", CASES)
def test_timm_s_picture_is_the_same_to_the_byte(
    photo: PIL.Image.Image, options: dict[str, Any], use_prefetcher: bool
):
    pipeline = create_transform(**{"input_size": 48, "use_prefetcher": use_prefetcher, **options})
    tracked = as_tracked(pipeline)
    for number in range(6):
        seed(number)
        expected, state = pipeline(photo), (random.random(), np.random.rand(), torch.rand(1))
        seed(number)
        found, box = tracked(photo, CropBox.of(photo))
        assert same(found, expected)
        assert (random.random(), np.random.rand(), torch.rand(1)) == state
        assert box.canvas_size == tuple(found.shape[-2:])


GEOMETRY: dict[str, list[Callable[..., Any]]] = {
    "timm rrc": [RandomResizedCropAndInterpolation(48, scale=(0.2, 1.0))],
    "timm rrc, random interpolation": [RandomResizedCropAndInterpolation((40, 60), interpolation="random")],
    "timm rkrc": [ResizeKeepRatio(60, random_scale_prob=1.0, random_aspect_prob=1.0), CenterCropOrPad(48)],
    "timm rkrr": [
        ResizeKeepRatio(50, longest=1.0, random_scale_prob=1.0, random_aspect_prob=1.0),
        RandomCropOrPad((56, 48)),
    ],
    "timm pads": [RandomPad((130, 140)), TrimBorder(3), CenterCropOrPad((120, 150))],
    "v1 rrc": [v1.RandomResizedCrop(48, scale=(0.2, 1.0)), v1.RandomHorizontalFlip()],
    "v1 crop": [
        v1.RandomVerticalFlip(),
        v1.RandomCrop(60, padding=4),
        v1.RandomCrop((80, 50), pad_if_needed=True),
    ],
    "v1 centre": [v1.Resize(60), v1.CenterCrop((70, 50)), v1.Pad((1, 2)), v1.Pad([1, 2, 3, 4]), v1.Pad(2)],
    "v1 containers": [
        v1.RandomApply([v1.RandomHorizontalFlip(1.0), v1.CenterCrop(60)]),
        v1.RandomChoice([v1.RandomVerticalFlip(), v1.Compose([v1.CenterCrop((70, 90)), v1.Pad(5)])]),
        v1.RandomOrder([v1.RandomHorizontalFlip(1.0), v1.RandomCrop(50), v1.Pad((3, 0, 0, 0))]),
    ],
    "v1 and v2": [v1.RandomHorizontalFlip(1.0), v2.RandomCrop(60), v2.RandomApply([v1.CenterCrop(48)])],
}


@pytest.mark.parametrize("name", GEOMETRY)
def test_the_pixels_lie_where_the_box_says(painted: Any, off: Any, name: str):
    size = (90, 110)
    picture = painted(*size)
    if isinstance(picture, torch.Tensor) and name.startswith("timm"):
        pytest.skip("timm's crops are for PIL images")
    pipeline = v1.Compose(GEOMETRY[name])
    tracked = as_tracked(pipeline)
    for number in range(30):
        seed(number)
        expected = pipeline(picture)
        seed(number)
        found, box = tracked(picture, CropBox.of(picture))
        assert same(found, expected)
        assert np.median(off(found, box, size)) < 0.01


@pytest.mark.parametrize(
    "steps",
    [
        [v2.RandomResizedCrop(48), v2.RandomHorizontalFlip(), v2.ToImage()],
        [v2.ToImage(), v2.RandomResizedCrop(48), v2.ToPureTensor(), v2.RandomVerticalFlip(1.0)],
        [
            v2.AutoAugment(),
            v2.RandomResizedCrop(48),
            v2.ColorJitter(0.4),
            v2.ToImage(),
            v2.RandomErasing(1.0),
        ],
        [v1.RandomResizedCrop(48), v2.RandomHorizontalFlip(1.0), v1.ToTensor(), v2.Normalize([0.5], [0.5])],
    ],
    ids=["plain", "pure tensors", "augmented", "with v1 inside"],
)
def test_a_v2_pipeline_is_the_same_with_and_without(photo: PIL.Image.Image, steps: list[Any]):
    pipeline = v2.Compose(steps)
    seed(3)
    expected = pipeline(photo)
    seed(3)
    found, box = as_tracked(pipeline)(photo, CropBox.of(photo))
    assert same(found, expected)
    assert box.canvas_size == (48, 48)
    assert (box != torch.tensor([0.0, 0.0, 1.0, 1.0])).any()


def test_no_transform_does_nothing(photo: PIL.Image.Image):
    box = CropBox.of(photo)
    assert as_tracked(None)(photo, box) == (photo, box)


def test_a_tracked_transform_is_left_as_it_is():
    tracked = as_tracked(v2.CenterCrop(3))
    assert as_tracked(tracked) is tracked


def left_half(image: PIL.Image.Image, box: CropBox) -> tuple[PIL.Image.Image, CropBox]:
    return image.crop((0, 0, 50, 75)), box.cropped(0, 0, 75, 50)


@pytest.mark.parametrize(
    "transform", [left_half, v1.Compose([left_half, v1.ToTensor()])], ids=["alone", "inside"]
)
def test_a_function_of_picture_and_box_is_taken(photo: PIL.Image.Image, transform: Any):
    _, box = as_tracked(transform)(photo, CropBox.of(photo))
    assert box.tolist() == [0.0, 0.0, 0.5, 1.0]


class OwnNoise:
    def __call__(self, image: Any) -> Any:
        return image


@pytest.mark.parametrize("own", [OwnNoise(), v2.Lambda(lambda image: image), v1.Lambda(lambda image: image)])
def test_a_class_of_one_s_own_is_taken_when_its_owner_says_so(photo: PIL.Image.Image, own: Any):
    pipeline = v1.Compose([v1.CenterCrop(50), own])
    with pytest.raises(CropError, match="not known whether it moves pixels; name its class in keeps"):
        as_tracked(pipeline)
    assert as_tracked(pipeline, keeps=[type(own)])(photo, CropBox.of(photo))[1].canvas_size == (50, 50)


class MyCrop(v1.RandomResizedCrop):
    """A subclass may do anything in its call."""


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (MyCrop(8), "MyCrop: it is not known"),
        (lambda image: image, "lambda.*not known|function: it is not known"),
        (lambda *images: images, "not known"),
        (len, "builtin_function_or_method: it is not known"),
        (3, "int: it is not known"),
        (v1.RandomPerspective(), "bends the picture"),
        (
            v2.Compose([v2.CenterCrop(3), v2.RandomApply([v2.ElasticTransform()])]),
            "ElasticTransform: it bends",
        ),
        (v1.FiveCrop(3), "several pictures"),
        (v2.TenCrop(3), "several pictures"),
        (torch.nn.Sequential(v2.CenterCrop(3)), "Sequential: it is not known"),
        (create_transform(32, is_training=True, separate=True), "found a tuple of 3, expected one transform"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_what_cannot_be_followed_is_refused_at_once(transform: Any, reason: str):
    with pytest.raises(CropError, match=reason):
        as_tracked(transform)


def test_sequences_of_patches_are_refused():
    pytest.importorskip("timm.data.naflex_transforms")
    with pytest.raises(CropError, match="NaFlex patches"):
        as_tracked(create_transform(32, is_training=True, naflex=True))


class Rotated(v2.Transform):
    """A transform that works past torchvision's functionals."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return inpt.rotate(90, expand=True) if isinstance(inpt, PIL.Image.Image) else inpt

    _transform = transform


class Mirrored(v2.Transform):
    """The same, and the picture keeps its size, so that nothing else could notice."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return PIL.ImageOps.mirror(inpt) if isinstance(inpt, PIL.Image.Image) else inpt

    _transform = transform


def test_a_v2_transform_of_ones_own_that_moves_no_pixels_is_named(photo: PIL.Image.Image):
    picture, box = as_tracked(Mirrored(), keeps=[Mirrored])(photo, CropBox.of(photo))
    assert picture.tobytes() == PIL.ImageOps.mirror(photo).tobytes()
    assert not box.is_hflipped


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (Rotated(), r"Rotated: it changed the picture and left the box alone.*keeps="),
        (Mirrored(), r"Mirrored: it changed the picture and left the box alone"),
        (v1.RandomRotation((90, 90), expand=True), r"after RandomRotation: the picture has"),
        (lambda image, box: (image, box + 0), "found a Tensor in the place of the box"),
    ],
    ids=["own v2 transform", "own v2 transform of one size", "growing rotation", "own function"],
)
def test_a_picture_that_left_its_box_behind_is_noticed(photo: PIL.Image.Image, transform: Any, message: str):
    with pytest.raises(CropError, match=message):
        as_tracked(transform)(photo, CropBox.of(photo))


def test_a_box_of_another_picture_is_noticed(photo: PIL.Image.Image):
    with pytest.raises(CropError, match=r"before the transforms: the picture has 75 x 100"):
        as_tracked(None)(photo, CropBox.whole(100, 75))


def test_a_crop_that_no_longer_tells_what_it_drew_is_noticed(
    photo: PIL.Image.Image, monkeypatch: pytest.MonkeyPatch
):
    changed = RandomResizedCropAndInterpolation
    monkeypatch.setattr(changed, "__call__", lambda self, image: image.resize((48, 48)))
    with pytest.raises(CropError, match="drew 0 crops through get_params, expected one"):
        as_tracked(changed(48))(photo, CropBox.of(photo))


def test_every_geometric_class_of_timm_s_transforms_is_known_or_refused():
    for name in ("RandomResizedCropAndInterpolation", "CenterCropOrPad", "RandomCropOrPad", "RandomPad"):
        assert hasattr(timm_transforms, name)
    kinds = [kind for kind in vars(timm_transforms).values() if isinstance(kind, type)]
    ours = [kind for kind in kinds if kind.__module__ == timm_transforms.__name__]
    known = {name for name in tracking_names() if name.startswith("timm.data.transforms.")}
    assert {f"{kind.__module__}.{kind.__qualname__}" for kind in ours} <= known


def tracking_names() -> set[str]:
    from relabel_store.torch import tracking

    return {*tracking._FOLLOWS, *tracking._KEEPS, *tracking._REFUSED}


def test_it_goes_to_worker_processes(photo: PIL.Image.Image):
    tracked = pickle.loads(pickle.dumps(as_tracked(create_transform(32, is_training=True))))
    assert isinstance(tracked, TrackedTransform)
    assert tracked(photo, CropBox.of(photo))[1].canvas_size == (32, 32)


def test_threads_do_not_see_each_other_s_draws(rng: np.random.Generator):
    tracked = as_tracked(v1.RandomResizedCrop(32))
    shapes = [(40 + 7 * number, 150 - 7 * number) for number in range(12)] * 8

    def crop(shape: tuple[int, int]) -> bool:
        picture = torch.arange(shape[1], dtype=torch.float32).expand(1, *shape)
        found, box = tracked(picture, CropBox.of(picture))
        return abs(found.mean().item() + 0.5 - shape[1] * (box[0] + box[2]).item() / 2) < 0.5

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(crop, shapes))


def test_the_examples_of_the_page_run(photo: PIL.Image.Image):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {
        "v1": v1,
        "v1_pipeline": v1.Compose([v1.CenterCrop(20), OwnNoise()]),
        "MyNoise": OwnNoise,
        "my_quadrant": lambda image: image.crop((0, 0, 50, 37)),
        "get_targets": lambda batch: batch[1],
        "images": torch.rand(4, 3, 8, 8),
        "targets": torch.eye(4),
    }
    boxes = []
    for block in blocks:
        if "create_loader" not in block:  # the test below has it
            names["image"] = photo
            exec(block, names)
            boxes.append(names.get("box"))
    assert [type(box) for box in boxes] == [CropBox] * len(boxes)
    image, box = as_tracked(v1.Compose([names["Quadrant"]()]))(photo, CropBox.of(photo))
    assert (box.tolist(), image.size) == (pytest.approx([0, 0, 0.5, 37 / 75]), (50, 37))
    _, box = names["transform"](photo, CropBox.of(photo))
    assert box.tolist() == [0.0, 0.0, 0.5, 1.0]
    torch.testing.assert_close(names["mix"](names["images"], names["targets"])[1].sum(1), torch.ones(4))


class Photos(Dataset[Any]):
    """What a dataset of label maps does with the transform that timm's loader sets."""

    def __init__(self, photo: PIL.Image.Image) -> None:
        self.photo = photo
        self.transform = None

    @property
    def transform(self) -> Any:
        return self._transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        self._transform = as_tracked(transform)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> tuple[Any, torch.Tensor]:
        image, box = self.transform(self.photo, CropBox.of(self.photo))
        return image, torch.cat([box, torch.tensor([float(box.is_hflipped)])])


@pytest.mark.parametrize("use_prefetcher", [True, False], ids=["prefetcher", "no prefetcher"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_timm_s_loader_gives_soft_targets(photo: PIL.Image.Image, use_prefetcher: bool, num_workers: int):
    loader = create_loader(
        Photos(photo),
        input_size=(3, 32, 32),
        batch_size=2,
        is_training=True,
        use_prefetcher=use_prefetcher,
        collate_fn=default_collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        device=torch.device("cpu"),
    )
    for images, targets in loader:
        assert images.shape == (2, 3, 32, 32)
        assert images.dtype == targets.dtype == torch.float32
        assert targets.shape == (2, 5)
        assert images.abs().max() < 5

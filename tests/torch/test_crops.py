"""Crop boxes follow their pictures: the pixels say where they come from."""

from __future__ import annotations

import copy
import doctest
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional
from torchvision.transforms.v2.functional import _utils as registry

from relabel_store.errors import CropError
from relabel_store.torch import CropBox, crops

# Functionals that leave every pixel where it is, or do not change the picture at all.
PHOTOMETRIC = {
    "adjust_brightness",
    "adjust_contrast",
    "adjust_gamma",
    "adjust_hue",
    "adjust_saturation",
    "adjust_sharpness",
    "autocontrast",
    "equalize",
    "erase",
    "gaussian_blur",
    "gaussian_noise",
    "get_dimensions",
    "get_num_channels",
    "get_num_frames",
    "get_size",
    "grayscale_to_rgb",
    "invert",
    "jpeg",
    "normalize",
    "permute_channels",
    "posterize",
    "rgb_to_grayscale",
    "solarize",
    "to_dtype",
    "uniform_temporal_subsample",
}
PICTURES = (torch.Tensor, tv_tensors.Image, PIL.Image.Image)
for_both_kinds = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
)


@pytest.fixture
def box() -> CropBox:
    """Return a box that has everything."""
    return CropBox((0.25, 0.125, 0.75, 0.5), canvas_size=(30, 40), is_hflipped=True, is_vflipped=True)


def facts(box: CropBox) -> tuple[object, ...]:
    return type(box), tuple(box.tolist()), box.canvas_size, box.is_hflipped, box.is_vflipped


def test_every_functional_with_a_picture_kernel_moves_boxes_or_is_photometric():
    unknown = [
        moves.__name__
        for moves, kernels in registry._KERNEL_REGISTRY.items()
        if any(kind in kernels for kind in PICTURES)
        and CropBox not in kernels
        and moves.__name__ not in PHOTOMETRIC
    ]
    assert unknown == []


@pytest.mark.parametrize(
    "image",
    [PIL.Image.new("RGB", (40, 30)), torch.zeros(3, 30, 40), tv_tensors.Image(torch.zeros(30, 40))],
    ids=["PIL", "tensor", "grey tv_tensor"],
)
def test_the_box_of_an_image_is_all_of_it(image: Any):
    assert facts(CropBox.of(image)) == (CropBox, (0.0, 0.0, 1.0, 1.0), (30, 40), False, False)


@pytest.mark.parametrize(
    ("values", "size", "message"),
    [
        ((0.0, 0.0, 1.0), (3, 4), r"shape \(3,\), expected \(4,\)"),
        ((0.5, 0.0, 0.5, 1.0), (3, 4), "empty, expected x0 < x1"),
        ((0.0, float("nan"), 1.0, 1.0), (3, 4), "empty"),
        ((0.0, 0.0, 1.0, 1.0), (0, 4), "0 x 4 pixels"),
    ],
    ids=["three numbers", "empty", "no number", "no pixels"],
)
def test_what_is_no_box_is_refused(values: tuple[float, ...], size: tuple[int, int], message: str):
    with pytest.raises(CropError, match=message):
        CropBox(values, canvas_size=size)


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda box: pickle.loads(pickle.dumps(box)),
        lambda box: box.to(torch.float32),
        lambda box: box.to("cpu", copy=True),
        lambda box: box.cpu(),
        lambda box: box.clone(),
        lambda box: box.detach(),
        lambda box: CropBox.wrap(torch.tensor(box.tolist()), like=box),
        lambda box: v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32), v2.GaussianBlur(3)])(
            PIL.Image.new("RGB", (40, 30)), box
        )[1],
    ],
    ids=["copy", "deepcopy", "pickle", "to", "to copy", "cpu", "clone", "detach", "wrap", "transforms"],
)
def test_a_copy_keeps_everything(box: CropBox, copied: Callable[[CropBox], CropBox]):
    assert facts(copied(box)) == facts(box)


def test_a_cropped_box_is_copied_like_any_other(box: CropBox):
    crop = box.cropped(3, 4, 20, 10)
    for copied in (copy.copy(crop), copy.deepcopy(crop), pickle.loads(pickle.dumps(crop))):
        assert facts(copied) == facts(crop)
    copied.zero_()
    assert crop.sum() > 0


def test_sums_and_batches_are_ordinary_tensors(box: CropBox):
    assert [
        type(found) for found in (box + 1, box[0], torch.stack([box, box]), default_collate([box, box]))
    ] == [torch.Tensor] * 4
    with tv_tensors.set_return_type("TVTensor"):
        assert type(box * 2) is torch.Tensor


def test_boxes_come_out_of_worker_processes(box: CropBox):
    loader = DataLoader([box, box.cropped(0, 0, 5, 5)], batch_size=None, num_workers=1)  # type: ignore[arg-type]
    assert [facts(found) for found in loader] == [facts(box), facts(box.cropped(0, 0, 5, 5))]


def test_a_box_says_what_it_is(box: CropBox):
    assert repr(box) == (
        "CropBox([0.25, 0.125, 0.75, 0.5], canvas_size=(30, 40), is_hflipped=True, is_vflipped=True)"
    )


def test_the_example_runs():
    assert doctest.testmod(crops, raise_on_error=True).attempted > 0


def test_a_crop_of_a_crop_is_a_crop():
    box = CropBox.whole(100, 200).cropped(10, 20, 50, 100).resized(200, 200).cropped(100, 50, 100, 100)
    assert box.tolist() == pytest.approx([0.225, 0.35, 0.475, 0.6])


def test_a_crop_after_a_flip_is_taken_from_the_other_side():
    box = CropBox.whole(100, 100).hflipped().cropped(0, 0, 100, 25)
    assert box.tolist() == [0.75, 0.0, 1.0, 1.0]
    assert box.is_hflipped


def test_padding_leaves_the_image():
    assert CropBox.whole(10, 10).padded(1, 2, 3, 4).tolist() == pytest.approx([-0.1, -0.2, 1.3, 1.4])


def test_an_input_is_never_changed(box: CropBox):
    before = facts(box)
    for moved in (box.hflipped(), box.resized(5, 5), box.cropped(0, 0, 1, 1)):
        moved.zero_()
    assert facts(box) == before


@pytest.mark.parametrize("move", [lambda box: box.cropped(0, 0, 0, 5), lambda box: box.resized(3, 0)])
def test_nothing_left_is_refused(box: CropBox, move: Callable[[CropBox], CropBox]):
    with pytest.raises(CropError, match="pixel"):
        move(box)


SIDE = st.integers(8, 60)
MOVES = st.one_of(
    st.tuples(st.just(functional.crop), st.tuples(st.integers(-9, 40), st.integers(-9, 40), SIDE, SIDE)),
    st.tuples(st.just(functional.center_crop), st.tuples(st.lists(SIDE, min_size=1, max_size=2))),
    st.tuples(st.just(functional.pad), st.tuples(st.lists(st.integers(0, 9), min_size=4, max_size=4))),
    st.tuples(st.just(functional.pad), st.tuples(st.lists(st.integers(0, 9), min_size=2, max_size=2))),
    st.tuples(st.just(functional.pad), st.tuples(st.integers(0, 9))),
    st.tuples(st.just(functional.horizontal_flip), st.just(())),
    st.tuples(st.just(functional.vertical_flip), st.just(())),
)


@for_both_kinds
@given(height=st.integers(8, 90), width=st.integers(8, 90), moves=st.lists(MOVES, max_size=6))
def test_crops_pads_and_flips_are_exact_at_every_pixel(painted, off, height, width, moves):
    picture = painted(height, width)
    box = CropBox.of(picture)
    for moves_both, arguments in moves:
        picture, box = moves_both(picture, *arguments), moves_both(box, *arguments)
    assert off(picture, box, (height, width)).max(initial=0) < 1e-5


BILINEAR = {"interpolation": v2.InterpolationMode.BILINEAR, "antialias": False}
RESIZES = [
    v2.RandomResizedCrop(48, scale=(0.2, 1.0), **BILINEAR),
    v2.RandomResizedCrop((40, 64), scale=(0.2, 1.0), **BILINEAR),
    v2.Resize((50, 60), **BILINEAR),
    v2.Resize(44, **BILINEAR),
    v2.Resize(44, max_size=70, **BILINEAR),
    v2.Resize([64], **BILINEAR),
    v2.RandomResize(40, 80, **BILINEAR),
    v2.RandomShortestSize([40, 56], max_size=90, **BILINEAR),
    v2.ScaleJitter((64, 64), scale_range=(0.7, 1.3), **BILINEAR),
    v2.RandomChoice([v2.Resize((70, 60), **BILINEAR), v2.RandomVerticalFlip(1.0)]),
]
OTHERS = [
    v2.RandomHorizontalFlip(),
    v2.RandomVerticalFlip(),
    v2.CenterCrop(36),
    v2.CenterCrop((80, 30)),
    v2.RandomCrop(40, padding=4, pad_if_needed=True),
    v2.RandomCrop((50, 30), padding=[3, 1, 0, 2], pad_if_needed=True),
    v2.Pad([2, 5]),
    v2.RandomZoomOut(side_range=(1.0, 1.5), p=1.0),
    v2.RandomApply([v2.RandomHorizontalFlip(1.0), v2.CenterCrop(40)], p=0.5),
    v2.RandomOrder([v2.RandomHorizontalFlip(1.0), v2.CenterCrop((40, 30)), v2.Pad((1, 2, 3, 4))]),
    v2.Identity(),
]


@pytest.mark.filterwarnings("ignore:Anti-alias option is always applied for PIL")
@for_both_kinds
@given(
    size=st.tuples(st.integers(50, 110), st.integers(50, 110)),
    parts=st.lists(st.sampled_from(RESIZES + OTHERS), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_pipeline_shows_what_its_box_says(painted, off, size, parts, seed):
    assume(
        sum(part in RESIZES for part in parts) <= 2
    )  # what lies at an edge is clamped, and grows with each
    picture = painted(*size)
    torch.manual_seed(seed)
    picture, box = v2.Compose(parts)(picture, CropBox.of(picture))
    found = off(picture, box, size)
    assume(found.size > 100)
    assert np.median(found) < (1e-3 if isinstance(picture, torch.Tensor) else 0.01)


@pytest.mark.parametrize("size", [30, (30,), [20, 30]], ids=["int", "one", "two"])
@pytest.mark.parametrize("vertical", [None, False, True], ids=["five", "ten", "ten vertical"])
def test_five_and_ten_crops_give_a_box_each(painted, off, size: Any, vertical: bool | None):
    crop = v2.FiveCrop(size) if vertical is None else v2.TenCrop(size, vertical_flip=vertical)
    picture = painted(61, 75)
    pictures, boxes = crop(picture, CropBox.of(picture))
    assert len(boxes) == len(pictures) == (5 if vertical is None else 10)
    assert max(off(*both, (61, 75)).max() for both in zip(pictures, boxes, strict=True)) < 1e-5


@for_both_kinds
@given(
    canvas=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    size=st.one_of(st.none(), st.integers(1, 300), st.lists(st.integers(1, 300), min_size=1, max_size=2)),
    max_size=st.one_of(st.none(), st.integers(1, 400)),
)
def test_sizes_after_a_resize_are_torchvision_s(canvas, size, max_size):
    try:
        picture = functional.resize(torch.zeros(1, *canvas), size, max_size=max_size, antialias=False)
    except (ValueError, RuntimeError, TypeError):
        assume(False)
    assume(0 not in picture.shape)
    assert (
        functional.resize(CropBox.whole(*canvas), size, max_size=max_size).canvas_size == picture.shape[-2:]
    )


@pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
@pytest.mark.parametrize(
    "transform",
    [
        v2.AutoAugment(),
        v2.RandAugment(),
        v2.TrivialAugmentWide(),
        v2.AugMix(),
        v2.RandomAffine(20, (0.1, 0.1), (0.9, 1.1), 10),
        v2.RandomRotation(30),
        v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
        v2.RandomPhotometricDistort(p=1.0),
        v2.RandomGrayscale(1.0),
        v2.GaussianBlur(3),
        v2.JPEG((40, 60)),
        v2.RandomPosterize(4, 1.0),
        v2.RandomSolarize(100, 1.0),
        v2.RandomEqualize(1.0),
        v2.RandomInvert(1.0),
        v2.RandomAutocontrast(1.0),
        v2.RandomAdjustSharpness(2.0, 1.0),
        v2.RandomChannelPermutation(),
        v2.Compose([v2.RandomErasing(1.0), v2.ToDtype(torch.float32, scale=True)]),
        v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]),
        v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_colours_noise_and_small_turns_keep_the_region(box: CropBox, transform: v2.Transform):
    picture = tv_tensors.Image(torch.randint(0, 256, (3, 30, 40), dtype=torch.uint8))
    changed, kept = transform(picture, box)
    assert facts(kept) == facts(box)
    assert changed.shape[-2:] == (30, 40)


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (v2.RandomPerspective(p=1.0), "perspective: it bends the picture.*leave RandomPerspective out"),
        (v2.ElasticTransform(), "elastic: it bends the picture.*leave ElasticTransform out"),
        (v2.RandomRotation(30, expand=True), r"rotate\(expand=True\).*expected expand=False"),
    ],
    ids=["perspective", "elastic", "growing rotation"],
)
def test_what_no_box_can_follow_raises_with_the_reason(transform: v2.Transform, reason: str):
    picture = torch.zeros(3, 30, 40)
    with pytest.raises(CropError, match=reason):
        transform(picture, CropBox.of(picture))


def test_padding_of_three_numbers_is_refused(box: CropBox):
    with pytest.raises(CropError, match="found 3 numbers"):
        functional.pad(box, [1, 2, 3])


def test_a_kernel_of_one_s_own_moves_boxes_too():
    class Halve(v2.Transform):
        def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
            size = [side // 2 for side in functional.get_size(picture)]
            return self._call_kernel(functional.center_crop, inpt, size)

        _transform = transform  # the name before torchvision 0.21

    picture = torch.zeros(3, 40, 80)
    _, box = Halve()(picture, CropBox.of(picture))
    assert box.tolist() == [0.25, 0.25, 0.75, 0.75]

"""Any training pipeline as a function of picture and crop box: torchvision's v2 and v1, timm's, mixtures.

torchvision's v2 transforms take ``(image, box)`` themselves. The older kind, which
``timm.data.create_transform`` builds, takes a picture alone and draws inside its call. Here every such
transform still makes the picture with its own code, so the picture is the same to the byte under the
same seeds; we only look on. A crop tells what it drew through its own ``get_params``, a flip tells by
giving another picture back, and the rest follows from the sizes before and after.

Two other ways were looked at. A ``PIL.Image`` subclass that records its crops is lost at the first
``convert``, ``ImageOps`` or tensor, all of which make plain pictures, and the box would be wrong in
silence. Drawing here and calling the functional ourselves would repeat the body of every transform,
in every version of timm.

What is not known by its full name is refused when the pipeline is given, and the size of the picture is
compared with the box's after every step: neither a transform of tomorrow nor a changed one passes
unnoticed. Nothing here imports timm.

timm's loader
-------------
``create_loader`` sets ``dataset.transform = create_transform(...)``, to be handed to :func:`as_tracked`.
With ``use_prefetcher=True``, its default, pass ``collate_fn=torch.utils.data.default_collate``: timm's own
collation makes targets integers (1.0.19) or wants one tensor (1.0.31). The prefetcher moves them with
``target.to(device)``, so what the dataset gives beside the picture has to be one tensor either way.
``input_size_choices`` crops outside the dataset, where no box can follow. With ``num_aug_splits`` timm's
``AugMixDataset`` gives the dataset what crops and flips, and itself does what keeps the region.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
import torch
from torchvision.transforms import v2

from relabel_store.errors import CropError
from relabel_store.torch.crops import CropBox, padding_ltrb

_ARRAYS = (torch.Tensor, np.ndarray)

Picture: TypeAlias = Any  # PIL image, tensor or array: what the pipeline makes of it
Draws: TypeAlias = list[tuple[int, ...]]  # what get_params returned, once a call
Follow: TypeAlias = Callable[[Any, CropBox, Draws, tuple[int, int]], CropBox]

_V1 = "torchvision.transforms.transforms."
_V1_AUTO = "torchvision.transforms.autoaugment."
_V2 = "torchvision.transforms.v2."
_TIMM = "timm.data.transforms."


class TrackedTransform:
    """A pipeline as a function of picture and box.

    Parameters
    ----------
    transform
        A v2 transform; a v1 or timm transform of a known class; a ``Compose``, ``RandomApply``,
        ``RandomChoice`` or ``RandomOrder`` of these; or any callable of two arguments ``(image, box)``.
    keeps
        Classes of your own that take a picture and leave every pixel where it is.

    Raises
    ------
    CropError
        A transform that is not known, or one that no box can follow.

    Notes
    -----
    Calling it raises :class:`CropError` when the box does not belong to the picture, before or after.
    """

    def __init__(self, transform: Callable[..., Any], *, keeps: Iterable[type] = ()) -> None:
        self.transform = transform
        self._keeps = frozenset(_name_of(kind) for kind in keeps)
        for leaf in _leaves(transform):
            _require_known(leaf, self._keeps)

    def __call__(self, image: Picture, box: CropBox) -> tuple[Picture, CropBox]:
        """Return the transformed picture and the region of the original that it shows."""
        _require_box_of(image, box, None)
        walk = _Walk(box, self._keeps)
        image = walk.step(self.transform, image)
        return image, walk.box

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.transform!r})"


def as_tracked(transform: Callable[..., Any] | None, *, keeps: Iterable[type] = ()) -> TrackedTransform:
    """Return any training transform as a function ``(image, box) -> (image, box)``.

    Parameters
    ----------
    transform
        None, which does nothing; a :class:`TrackedTransform`, which is returned as it is; or what
        :class:`TrackedTransform` takes.
    keeps
        As there.

    Raises
    ------
    CropError
        It cannot be told what the transform does to the region.
    """
    if isinstance(transform, TrackedTransform):
        return transform
    if isinstance(transform, tuple | list):
        raise CropError(
            f"transform: found a {type(transform).__name__} of {len(transform)}, expected one transform; join them "
            "with Compose. Where they are timm's augmentation splits, hand create_loader "
            "timm.data.AugMixDataset(dataset, num_splits=...), which crops with the first"
        )
    return TrackedTransform(_do_nothing if transform is None else transform, keeps=keeps)


def _do_nothing(image: Picture, box: CropBox) -> tuple[Picture, CropBox]:
    return image, box


class _Walk:
    """One picture on its way through a pipeline, and the box that follows it."""

    def __init__(self, box: CropBox, keeps: frozenset[str]) -> None:
        self.box = box
        self.keeps = keeps

    def step(self, transform: Callable[..., Any], image: Picture) -> Picture:
        """Return what a transform makes of the picture, and move the box along."""
        name = _name_of(transform)
        if name in _SEQUENCES:
            for child in transform.transforms:  # type: ignore[attr-defined]
                image = self.step(child, image)
            return image
        if name in _CONTAINERS:
            # Its own code decides which of its transforms run, and in which order.
            children = [partial(self.step, child) for child in transform.transforms]  # type: ignore[attr-defined]
            return _copy_with(transform, "transforms", children)(image)
        if name in _FOLLOWS:
            image = self._follow(transform, _FOLLOWS[name], image)
        elif name in _KEEPS or name in self.keeps:
            image = transform(image)
        else:
            before = image, self.box
            image, self.box = transform(image, self.box)
            if isinstance(transform, v2.Transform) and not name.startswith(_V2):
                _require_moved_together(transform, before, (image, self.box))
        _require_box_of(image, self.box, transform)
        return image

    def _follow(self, transform: Any, follow: Follow, image: Picture) -> Picture:
        draws: Draws = []
        watched = transform
        if hasattr(transform, "get_params"):
            watched = _copy_with(transform, "get_params", partial(_draw, transform, draws))
        result = watched(image)
        if watched is not transform and len(draws) != 1:
            raise CropError(
                f"{_name_of(transform)}: it drew {len(draws)} crops through get_params, expected one; "
                "this version of its library cannot be followed"
            )
        size = _size_of(result)
        assert size is not None  # these transforms make pictures
        if result is not image:  # a flip that was not drawn, a resize to the same size
            self.box = follow(transform, self.box, draws, size)
        return result


def _draw(transform: Any, draws: Draws, *args: Any, **kwargs: Any) -> Any:
    drawn = transform.get_params(*args, **kwargs)
    draws.append(tuple(drawn))
    return drawn


def _copy_with(transform: Any, name: str, value: object) -> Any:
    """Return a shallow copy with one attribute changed: the pipeline itself stays fit for threads."""
    changed = copy.copy(transform)
    changed.__dict__[name] = value  # past nn.Module, which would look for modules
    return changed


def _follow_resized_crop(_: Any, box: CropBox, draws: Draws, size: tuple[int, int]) -> CropBox:
    top, left, height, width = draws[0]
    return box.cropped(top, left, height, width).resized(*size)


def _follow_random_crop(transform: Any, box: CropBox, draws: Draws, size: tuple[int, int]) -> CropBox:
    if transform.padding is not None:
        box = box.padded(*padding_ltrb(transform.padding))
    if transform.pad_if_needed:
        wanting = [max(side - have, 0) for side, have in zip(transform.size, box.canvas_size, strict=True)]
        box = box.padded(wanting[1], wanting[0], wanting[1], wanting[0])
    top, left, *_ = draws[0]
    return box.cropped(top, left, *size)


def _follow_crop_or_pad(_: Any, box: CropBox, draws: Draws, size: tuple[int, int]) -> CropBox:
    top, left = draws[0]
    return box.cropped(top, left, *size)


def _follow_random_pad(_: Any, box: CropBox, draws: Draws, __: tuple[int, int]) -> CropBox:
    left, top, right, bottom = draws[0]
    return box.padded(left, top, right, bottom)


def _follow_trim(transform: Any, box: CropBox, _: Draws, size: tuple[int, int]) -> CropBox:
    return box.cropped(transform.border_size, transform.border_size, *size)


def _follow_pad(transform: Any, box: CropBox, _: Draws, __: tuple[int, int]) -> CropBox:
    return box.padded(*padding_ltrb(transform.padding))


def _follow_center_crop(_: Any, box: CropBox, __: Draws, size: tuple[int, int]) -> CropBox:
    return box.center_cropped(*size)


def _follow_resize(_: Any, box: CropBox, __: Draws, size: tuple[int, int]) -> CropBox:
    return box.resized(*size)


def _follow_hflip(_: Any, box: CropBox, __: Draws, ___: tuple[int, int]) -> CropBox:
    return box.hflipped()


def _follow_vflip(_: Any, box: CropBox, __: Draws, ___: tuple[int, int]) -> CropBox:
    return box.vflipped()


_FOLLOWS: dict[str, Follow] = {
    _V1 + "CenterCrop": _follow_center_crop,
    _V1 + "Pad": _follow_pad,
    _V1 + "RandomCrop": _follow_random_crop,
    _V1 + "RandomHorizontalFlip": _follow_hflip,
    _V1 + "RandomResizedCrop": _follow_resized_crop,
    _V1 + "RandomVerticalFlip": _follow_vflip,
    _V1 + "Resize": _follow_resize,
    _V2 + "_geometry.RandomHorizontalFlip": _follow_hflip,
    _V2 + "_geometry.RandomVerticalFlip": _follow_vflip,
    _TIMM + "CenterCropOrPad": _follow_center_crop,
    _TIMM + "RandomCropOrPad": _follow_crop_or_pad,
    _TIMM + "RandomPad": _follow_random_pad,
    _TIMM + "RandomResizedCropAndInterpolation": _follow_resized_crop,
    _TIMM + "ResizeKeepRatio": _follow_resize,
    _TIMM + "TrimBorder": _follow_trim,
}

_SEQUENCES = frozenset({_V1 + "Compose", _V2 + "_container.Compose"})
_CONTAINERS = _SEQUENCES | {
    home + name
    for home in (_V1, _V2 + "_container.")
    for name in ("RandomApply", "RandomChoice", "RandomOrder")
}

# Colours, types and noise; and, as in the paper's recipe, the rotations and shears that keep the size. Those of v2
# would pass a box through by themselves, but take 15 us to do so; and one would strip it of its type.
_KEEPS = frozenset(
    {
        _V1 + "ColorJitter",
        _V1 + "ConvertImageDtype",
        _V1 + "GaussianBlur",
        _V1 + "Grayscale",
        _V1 + "Normalize",
        _V1 + "PILToTensor",
        _V1 + "RandomAdjustSharpness",
        _V1 + "RandomAffine",
        _V1 + "RandomAutocontrast",
        _V1 + "RandomEqualize",
        _V1 + "RandomErasing",
        _V1 + "RandomGrayscale",
        _V1 + "RandomInvert",
        _V1 + "RandomPosterize",
        _V1 + "RandomRotation",
        _V1 + "RandomSolarize",
        _V1 + "ToPILImage",
        _V1 + "ToTensor",
        _V1_AUTO + "AugMix",
        _V1_AUTO + "AutoAugment",
        _V1_AUTO + "RandAugment",
        _V1_AUTO + "TrivialAugmentWide",
        _V2 + "_augment.JPEG",
        _V2 + "_augment.RandomErasing",
        _V2 + "_auto_augment.AugMix",
        _V2 + "_auto_augment.AutoAugment",
        _V2 + "_auto_augment.RandAugment",
        _V2 + "_auto_augment.TrivialAugmentWide",
        _V2 + "_color.ColorJitter",
        _V2 + "_color.RandomGrayscale",
        _V2 + "_color.RGB",
        _V2 + "_misc.ConvertImageDtype",
        _V2 + "_misc.GaussianBlur",
        _V2 + "_misc.Normalize",
        _V2 + "_misc.ToDtype",
        _V2 + "_type_conversion.PILToTensor",
        _V2 + "_type_conversion.ToImage",
        _V2 + "_type_conversion.ToPILImage",
        _V2 + "_type_conversion.ToPureTensor",
        _TIMM + "MaybePILToTensor",
        _TIMM + "MaybeToTensor",
        _TIMM + "ToNumpy",
        _TIMM + "ToTensor",
        "timm.data.auto_augment.AugMixAugment",
        "timm.data.auto_augment.AutoAugment",
        "timm.data.auto_augment.RandAugment",
        "timm.data.random_erasing.RandomErasing",
    }
)

_BENDS = "it bends the picture, so no box is the region that is left; leave it out"
_MANY = "it makes several pictures of one, and a sample has one region; crop in separate passes"
_SEQUENCE = "NaFlex patches are no picture whose size could be checked; use the ordinary crops"
_REFUSED = {
    _V1 + "ElasticTransform": _BENDS,
    _V1 + "FiveCrop": _MANY,
    _V1 + "RandomPerspective": _BENDS,
    _V1 + "TenCrop": _MANY,
    _V2 + "_geometry.ElasticTransform": _BENDS,
    _V2 + "_geometry.FiveCrop": _MANY,
    _V2 + "_geometry.RandomPerspective": _BENDS,
    _V2 + "_geometry.TenCrop": _MANY,
    "timm.data.naflex_transforms.Patchify": _SEQUENCE,
    "timm.data.naflex_transforms.RandomResizedCropToSequence": _SEQUENCE,
    "timm.data.naflex_transforms.ResizeToSequence": _SEQUENCE,
}
_OWN_CODE = _V2 + "_misc.Lambda"  # a v2 transform in name only


def _name_of(transform: object) -> str:
    return _full_name(transform if isinstance(transform, type) else type(transform))


@cache
def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _leaves(transform: Any) -> Iterator[Any]:
    """Yield the transforms of a pipeline that are no containers."""
    if _name_of(transform) not in _CONTAINERS:
        yield transform
        return
    for child in transform.transforms:
        yield from _leaves(child)


def _require_known(transform: Any, keeps: frozenset[str]) -> None:
    name = _name_of(transform)
    if name in keeps:
        return
    if name in _REFUSED:
        raise CropError(f"{name}: {_REFUSED[name]}")
    if not (name in _FOLLOWS or name in _KEEPS or _takes_box(transform)):
        raise CropError(
            f"{name}: it is not known whether it moves pixels; name its class in keeps=(...) if it does not, "
            "or give a callable of two arguments, (image, box) -> (image, box)"
        )


def _takes_box(transform: Any) -> bool:
    """Tell whether a transform is called with picture and box."""
    name = _name_of(transform)
    if isinstance(transform, v2.Transform):
        return name != _OWN_CODE
    if name in _FOLLOWS or name in _KEEPS:
        return False
    called = transform.forward if isinstance(transform, torch.nn.Module) else transform
    try:
        parameters = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):  # not callable; or builtins without a signature
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    return len(required) == 2


def _size_of(image: Picture) -> tuple[int, int] | None:
    """Return height and width in pixels, or None of what is no picture."""
    if isinstance(image, PIL.Image.Image):
        return image.height, image.width
    if isinstance(image, _ARRAYS):
        shape = image.shape  # (..., height, width), timm's arrays as well
        return (int(shape[-2]), int(shape[-1])) if len(shape) >= 2 else None
    return None


def _require_box_of(image: Picture, box: object, transform: object) -> None:
    """Raise unless a box belongs to a picture of this size."""
    size = _size_of(image)
    if isinstance(box, CropBox) and (size is None or size == box.canvas_size):
        return
    when = "before the transforms" if transform is None else f"after {_called(transform)}"
    if not isinstance(box, CropBox):
        raise CropError(
            f"{when}: found a {type(box).__name__} in the place of the box, expected a CropBox; "
            "a transform that took it for an image has to leave it alone"
        )
    assert size is not None
    raise CropError(
        f"{when}: the picture has {size[0]} x {size[1]} pixels (height x width), its box says "
        f"{box.canvas_size[0]} x {box.canvas_size[1]}; something changed the picture and not the box"
    )


def _require_moved_together(
    transform: object, before: tuple[Picture, CropBox], after: tuple[Picture, CropBox]
) -> None:
    """Raise where someone's own v2 transform made another picture and passed the box through."""
    if after[0] is not before[0] and after[1] is before[1]:
        raise CropError(
            f"{_name_of(transform)}: it changed the picture and left the box alone; name its class in keeps=(...) if "
            "it moves no pixels, or move the box too: self._call_kernel(functional, inpt, ...) does for every input"
        )


def _called(transform: object) -> str:
    """Return the name of a function, or of a transform's class."""
    return getattr(transform, "__name__", type(transform).__name__)

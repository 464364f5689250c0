"""The region of an image that a crop shows, tracked through torchvision's v2 transforms.

A :class:`CropBox` goes through a pipeline beside its picture, ``image, box = transform(image, box)``,
and every functional that changes geometry has a kernel here that moves the box with the picture.
torchvision hands an input without a kernel through in silence, so the functionals that a box cannot
follow have one too: it raises.

Affine maps and rotations leave the region as it is, as the paper's training recipe does with
RandAugment (Yun et al., arXiv:2101.05022): the teacher's map cannot be turned, and the angles are small.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self, TypeVar

import torch
from torch._C import DisableTorchFunctionSubclass
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import TVTensor

from relabel_store.errors import CropError

# What gives the same box elsewhere; every other operation gives numbers that are no box.
_COPIES = frozenset(
    {
        torch.Tensor.clone,
        torch.Tensor.cpu,
        torch.Tensor.cuda,
        torch.Tensor.detach,
        torch.Tensor.pin_memory,
        torch.Tensor.requires_grad_,
        torch.Tensor.to,
    }
)


_WHOLE = torch.tensor((0.0, 0.0, 1.0, 1.0), dtype=torch.float32)


class CropBox(TVTensor):  # type: ignore[misc] # torchvision has no types
    """The region of the original image that a picture shows.

    float32 ``(4,)``, ``(x0, y0, x1, y1)`` with ``x0 < x1`` and ``y0 < y1``: fractions of the whole stored
    image, origin top left. Padding takes a box out of [0, 1]. Operations other than transforms, copies
    and moves between devices give an ordinary tensor, as with every ``TVTensor``.

    Parameters
    ----------
    box_xyxy
        Four numbers, or a tensor of them.
    canvas_size
        ``(height, width)`` in pixels of the picture that the box belongs to.
    is_hflipped, is_vflipped
        Whether that picture is mirrored left to right, or top to bottom. The region is given in the
        coordinates of the original either way.

    Raises
    ------
    CropError
        Not four numbers, an empty region, or a picture without pixels.

    Examples
    --------
    >>> from torchvision.transforms import v2
    >>> image = torch.zeros(3, 300, 400)
    >>> crop = v2.Compose([v2.CenterCrop((150, 100)), v2.Resize((224, 224)), v2.RandomHorizontalFlip(1.0)])
    >>> image, box = crop(image, CropBox.of(image))
    >>> box
    CropBox([0.375, 0.25, 0.625, 0.75], canvas_size=(224, 224), is_hflipped=True)
    """

    canvas_size: tuple[int, int]
    is_hflipped: bool
    is_vflipped: bool

    def __new__(  # noqa: D102 - the class says it
        cls,
        box_xyxy: torch.Tensor | Sequence[float],
        *,
        canvas_size: tuple[int, int],
        is_hflipped: bool = False,
        is_vflipped: bool = False,
    ) -> Self:
        values = torch.as_tensor(box_xyxy, dtype=torch.float32)
        if values.shape != (4,):
            raise CropError(f"crop box: found shape {tuple(values.shape)}, expected (4,) = x0, y0, x1, y1")
        x0, y0, x1, y1 = values.tolist()
        if not (x0 < x1 and y0 < y1):
            raise CropError(f"crop box {(x0, y0, x1, y1)}: the region is empty, expected x0 < x1 and y0 < y1")
        height, width = canvas_size
        if height < 1 or width < 1:
            raise CropError(
                f"crop box: found a picture of {height} x {width} pixels, expected one with pixels"
            )
        return _make(cls, values, (int(height), int(width)), is_hflipped, is_vflipped)

    @classmethod
    def whole(cls, height: int, width: int) -> Self:
        """Return the box of an image that nothing was done to yet; sizes in pixels."""
        return cls((0.0, 0.0, 1.0, 1.0), canvas_size=(height, width))

    @classmethod
    def of(cls, image: Any) -> Self:
        """Return the box of a PIL image or a ``(..., height, width)`` tensor that was not cropped yet."""
        height, width = functional.get_size(image)
        return _make(cls, _WHOLE.clone(), (height, width), False, False)

    def cropped(self, top: int, left: int, height: int, width: int) -> Self:
        """Return the box after cutting out a window, in pixels of the picture; it may leave the picture."""
        if height < 1 or width < 1:
            raise CropError(
                f"crop of {height} x {width} pixels: nothing is left to label, expected at least one pixel"
            )
        canvas_height, canvas_width = self.canvas_size
        with DisableTorchFunctionSubclass():  # a third of the time
            (x0, y0, x1, y1), is_cpu = self.tolist(), self.is_cpu
        x0, x1 = _cut(x0, x1, left / canvas_width, (left + width) / canvas_width, self.is_hflipped)
        y0, y1 = _cut(y0, y1, top / canvas_height, (top + height) / canvas_height, self.is_vflipped)
        # Between pixels of a photo, with cold caches, 9 us; torch.tensor takes 14.
        values = torch.frombuffer(array("f", (x0, y0, x1, y1)), dtype=torch.float32)
        if not is_cpu:
            values = values.to(self.device)
        return _make(type(self), values, (height, width), self.is_hflipped, self.is_vflipped)

    def center_cropped(self, height: int, width: int) -> Self:
        """Return the box after a central crop; a picture that is smaller is padded first, as torchvision does."""
        canvas_height, canvas_width = self.canvas_size
        return self.cropped(_center(canvas_height, height), _center(canvas_width, width), height, width)

    def padded(self, left: int, top: int, right: int, bottom: int) -> Self:
        """Return the box after adding (or, where negative, removing) pixels on each side."""
        height, width = self.canvas_size
        return self.cropped(-top, -left, height + top + bottom, width + left + right)

    def resized(self, height: int, width: int) -> Self:
        """Return the box after resizing the picture to a size in pixels: the same region."""
        if height < 1 or width < 1:
            raise CropError(f"resize to {height} x {width} pixels: expected a picture with pixels")
        return self._with((height, width), self.is_hflipped, self.is_vflipped)

    def hflipped(self) -> Self:
        """Return the box after mirroring the picture left to right: the same region."""
        return self._with(self.canvas_size, not self.is_hflipped, self.is_vflipped)

    def vflipped(self) -> Self:
        """Return the box after mirroring the picture top to bottom: the same region."""
        return self._with(self.canvas_size, self.is_hflipped, not self.is_vflipped)

    def _with(self, canvas_size: tuple[int, int], is_hflipped: bool, is_vflipped: bool) -> Self:
        with DisableTorchFunctionSubclass():
            values = self.clone()  # kernels never share memory with their input
        return _make(type(self), values, canvas_size, is_hflipped, is_vflipped)

    @classmethod
    def wrap(cls, tensor: torch.Tensor, like: CropBox, **_: Any) -> Self:
        """Return a tensor as a box with the facts of another: torchvision's ``tv_tensors.wrap``."""
        return _make(cls, tensor, like.canvas_size, like.is_hflipped, like.is_vflipped)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        with DisableTorchFunctionSubclass():
            output = func(*args, **(kwargs or {}))
            if func in _COPIES and isinstance(args[0], cls):
                return output if output is args[0] else cls.wrap(output, like=args[0])
            return output.as_subclass(torch.Tensor) if isinstance(output, cls) else output

    def __repr__(self, **_: Any) -> str:
        values = ", ".join(f"{value:.6g}" for value in self.tolist())
        flips = "".join(f", {name}=True" for name in ("is_hflipped", "is_vflipped") if getattr(self, name))
        return f"{type(self).__name__}([{values}], canvas_size={self.canvas_size}{flips})"


Size = int | Sequence[int] | None  # of a resize: one number is the shorter side, None leaves it to max_size
Box = TypeVar("Box", bound=CropBox)
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def _make(
    cls: type[Box], values: torch.Tensor, canvas_size: tuple[int, int], is_hflipped: bool, is_vflipped: bool
) -> Box:
    box: Box = values.as_subclass(cls)
    box.canvas_size = canvas_size
    box.is_hflipped = is_hflipped
    box.is_vflipped = is_vflipped
    return box


def _cut(low: float, high: float, start: float, stop: float, is_flipped: bool) -> tuple[float, float]:
    """Return the part of an interval between two fractions of the picture that shows it."""
    if is_flipped:
        start, stop = 1 - stop, 1 - start
    return low + (high - low) * start, low + (high - low) * stop


def _center(size: int, wanted: int) -> int:
    """Return where a central crop begins; negative, the padding, when the picture is smaller."""
    return -((wanted - size) // 2) if wanted > size else round((size - wanted) / 2.0)


def _kernel_of(moves: Callable[..., Any]) -> Callable[[Kernel], Kernel]:
    """Register what a functional does to a box; torchvision's own decorator, with types."""
    register: Callable[[Kernel], Kernel] = functional.register_kernel(moves, CropBox)
    return register


@_kernel_of(functional.crop)
def _crop(box: CropBox, top: int, left: int, height: int, width: int) -> CropBox:
    return box.cropped(top, left, height, width)


@_kernel_of(functional.resized_crop)
def _resized_crop(
    box: CropBox, top: int, left: int, height: int, width: int, size: Size, **_: Any
) -> CropBox:
    crop = box.cropped(top, left, height, width)
    crop.canvas_size = _resized_sides(crop.canvas_size, size, None)  # ours alone, so without another copy
    return crop


@_kernel_of(functional.center_crop)
def _center_crop(box: CropBox, output_size: int | Sequence[int]) -> CropBox:
    return box.center_cropped(*_sides(output_size))


@_kernel_of(functional.five_crop)
def _five_crop(box: CropBox, size: int | Sequence[int]) -> tuple[CropBox, ...]:
    height, width = _sides(size)
    bottom, right = box.canvas_size[0] - height, box.canvas_size[1] - width
    corners = ((0, 0), (0, right), (bottom, 0), (bottom, right))
    return (
        *(box.cropped(top, left, height, width) for top, left in corners),
        box.center_cropped(height, width),
    )


@_kernel_of(functional.ten_crop)
def _ten_crop(box: CropBox, size: int | Sequence[int], vertical_flip: bool = False) -> tuple[CropBox, ...]:
    mirrored = box.vflipped() if vertical_flip else box.hflipped()
    return (*_five_crop(box, size), *_five_crop(mirrored, size))


@_kernel_of(functional.pad)
def _pad(box: CropBox, padding: int | Sequence[int], *_: Any, **__: Any) -> CropBox:
    return box.padded(*padding_ltrb(padding))


@_kernel_of(functional.resize)
def _resize(box: CropBox, size: Size, *_: Any, max_size: int | None = None, **__: Any) -> CropBox:
    return box.resized(*_resized_sides(box.canvas_size, size, max_size))


@_kernel_of(functional.horizontal_flip)
def _horizontal_flip(box: CropBox) -> CropBox:
    return box.hflipped()


@_kernel_of(functional.vertical_flip)
def _vertical_flip(box: CropBox) -> CropBox:
    return box.vflipped()


@_kernel_of(functional.affine)
def _affine(box: CropBox, *_: Any, **__: Any) -> CropBox:
    return box


@_kernel_of(functional.rotate)
def _rotate(box: CropBox, *_: Any, expand: bool = False, **__: Any) -> CropBox:
    if expand:
        raise CropError(
            "rotate(expand=True): the picture grows with the angle, and a box has no angle; "
            "expected expand=False, which leaves the region as it is"
        )
    return box


@_kernel_of(functional.perspective)
def _perspective(*_: Any, **__: Any) -> NoReturn:
    _refuse("perspective", "RandomPerspective")


@_kernel_of(functional.elastic)
def _elastic(*_: Any, **__: Any) -> NoReturn:
    _refuse("elastic", "ElasticTransform")


def _refuse(functional_name: str, transform: str) -> NoReturn:
    raise CropError(
        f"{functional_name}: it bends the picture, so no box is the region that is left; "
        f"leave {transform} out of a pipeline that trains on label maps"
    )


def padding_ltrb(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """Return padding as torchvision takes it, one, two or four numbers, as left, top, right, bottom."""
    sides = [padding] if isinstance(padding, int) else list(padding)
    if len(sides) not in (1, 2, 4):
        raise CropError(f"padding: found {len(sides)} numbers, expected 1, 2 or 4")
    left, top, right, bottom = (sides * 4)[:4]
    return left, top, right, bottom


def _sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Return a size of one or two numbers as height and width; one means a square."""
    sides = [size] if isinstance(size, int) else list(size)
    return sides[0], sides[-1]


def _resized_sides(canvas_size: tuple[int, int], size: Size, max_size: int | None) -> tuple[int, int]:
    """Return the height and width that torchvision resizes to; one number is the shorter side."""
    if size is not None and not isinstance(size, int) and len(size) == 2:
        return size[0], size[1]
    short, long = sorted(canvas_size)
    if size is None:
        assert max_size is not None  # torchvision has refused it for the picture
        short, long = int(max_size * short / long), max_size
    else:
        new_short = size if isinstance(size, int) else size[0]
        short, long = new_short, int(new_short * long / short)
        if max_size is not None and long > max_size:
            short, long = int(max_size * short / long), max_size
    return (long, short) if canvas_size[1] <= canvas_size[0] else (short, long)

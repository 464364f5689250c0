"""The teacher: what the build asks of a model, and the models of timm that answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from relabel_store.errors import IdentityError, TeacherError
from relabel_store.generate.decode import Interpolation
from relabel_store.generate.dense import DenseClassifier, DenseKind, Variant, identity_error, make_dense
from relabel_store.generate.precision import Precision
from relabel_store.manifest import Classes, Weights

# DESIGN of the format: float32, relative to the standard deviation of the logits.
IDENTITY_TOLERANCE = 1e-4
_PROBE_IMAGES = 2
_PROBE_SEED = 2101_05022


@dataclass(frozen=True)
class TeacherInput:
    """What a teacher wants to be shown.

    Parameters
    ----------
    size
        ``(height, width)`` in pixels; the whole image is squashed to it.
    mean, std
        Of each RGB channel, on a scale of 0 to 1.
    """

    size: tuple[int, int]
    interpolation: Interpolation = Interpolation.BICUBIC
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if not all(side >= 1 for side in self.size):
            raise TeacherError(f"input size: {self.size}, expected at least 1 x 1 pixels")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(std > 0 for std in self.std):
            raise TeacherError(f"mean {self.mean}, std {self.std}: expected three numbers each, std above 0")

    def normalize(self, pixels: Tensor) -> Tensor:
        """Return uint8 ``(n, height, width, 3)`` as float32 ``(n, 3, height, width)``, channels last."""
        scale = torch.tensor(self.std, device=pixels.device) * 255
        shift = torch.tensor(self.mean, device=pixels.device) * 255
        return pixels.float().sub_(shift).div_(scale).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class TeacherFacts:
    """What the manifest says of a teacher.

    Parameters
    ----------
    architecture, tag
        In timm; None for a teacher that is not timm's.
    dense_kind
        ``exact``, ``per-location`` or ``unknown``.
    dense_head
        ``replay`` or ``linearized``: how a head that is not linear scores a cell.
    """

    name: str
    input: TeacherInput
    num_classes: int
    classes: Classes
    weights: Weights
    architecture: str | None = None
    tag: str | None = None
    dense_kind: str = "unknown"
    dense_head: str = Variant.REPLAY.value

    def __post_init__(self) -> None:
        for what, listed in (("ids", self.classes.ids), ("names", self.classes.names)):
            if listed is not None and len(listed) != self.num_classes:
                raise TeacherError(
                    f"teacher {self.name!r}: {len(listed)} class {what}, expected {self.num_classes}, its class count"
                )


@runtime_checkable
class Teacher(Protocol):
    """A model that scores each class in each cell of a grid over the image.

    Any object with these members will do: implement it to label with a model that is not timm's, and
    give it to `relabel_store.build`, or name a function that returns it as ``module:factory``.
    """

    @property
    def facts(self) -> TeacherFacts:
        """What the manifest says of the teacher."""

    def to(self, device: torch.device) -> object:
        """Move the model to a device, where its images will come."""

    def dense_logits(self, images: Tensor, precision: Precision) -> Tensor:
        """Return the score before softmax of each class in each cell.

        Parameters
        ----------
        images
            float32 ``(n, 3, height, width)``, squashed to `TeacherInput.size` and normalised.

        Returns
        -------
        Tensor
            float32 ``(n, num_classes, n_rows, n_cols)``, row 0 on top, without gradient.
        """

    def identity_error(self, images: Tensor) -> float | None:
        """Return how far the mean of the dense logits is from the model's own, None where that means nothing."""


class TimmTeacher:
    """A timm classifier as a teacher, made dense by head replay.

    Parameters
    ----------
    model
        Any classifier with ``forward_features`` and ``forward_head``; it is put into eval mode.
    facts
        ``dense_kind`` is found out here, and ``dense_head`` is replay where that makes no difference.

    Raises
    ------
    NoDenseMapError
        The architecture has no dense map.
    """

    def __init__(self, model: nn.Module, facts: TeacherFacts) -> None:
        self._dense: DenseClassifier = make_dense(
            model, input_size=facts.input.size, variant=Variant(facts.dense_head)
        )
        self.facts = replace(facts, dense_kind=self._dense.kind.value, dense_head=self._dense.variant.value)
        if self._dense.num_classes != facts.num_classes:
            raise TeacherError(
                f"teacher {facts.name!r}: {self._dense.num_classes} classes, expected {facts.num_classes}"
            )

    @property
    def model(self) -> nn.Module:
        """The classifier, as it was given."""
        return self._dense.model

    @property
    def grid(self) -> tuple[int, int]:
        """``(n_rows, n_cols)``."""
        return self._dense.grid

    def to(self, device: torch.device) -> None:
        """Move the model to a device, weights of convolutions in channels-last order."""
        self._dense.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def compile(self) -> None:
        """Compile the model's features with ``torch.compile``, at the first batch of each size."""
        model = self._dense.model
        model.forward_features = torch.compile(model.forward_features, dynamic=False)  # type: ignore[assignment,arg-type]

    def dense_logits(self, images: Tensor, precision: Precision) -> Tensor:
        """Return the score of each class in each cell: float32 ``(n, num_classes, n_rows, n_cols)``."""
        return self._dense.logits(images, autocast=precision.autocast)

    def identity_error(self, images: Tensor) -> float:
        """Return how far the mean of the dense logits is from the model's own logits.

        The largest difference in standard deviations of the model's logits, in float32.
        """
        return identity_error(self._dense, images)


def compile_teacher(teacher: Teacher, device: torch.device, precision: Precision, batch_size: int) -> None:
    """Compile a teacher that knows how to be, one of timm's or one with a method ``compile``, for one batch size.

    Raises
    ------
    TeacherError
        It does not, or what it is made of cannot be compiled here.
    """
    compile_it = getattr(teacher, "compile", None)
    if not callable(compile_it):
        raise TeacherError(
            f"teacher {teacher.facts.name!r}: has no method compile(), which --compile calls; leave the option out"
        )
    from torch._dynamo.exc import TorchDynamoException  # two seconds, for those who compile

    compile_it()
    pixels = torch.zeros((batch_size, *teacher.facts.input.size, 3), dtype=torch.uint8, device=device)
    try:
        with torch.inference_mode():
            teacher.dense_logits(teacher.facts.input.normalize(pixels), precision)
    except TorchDynamoException as error:
        reason = " ".join(str(error).split("\n\n")[0].split())
        raise TeacherError(
            f"teacher {teacher.facts.name!r}: torch.compile gave up ({reason}); leave --compile out"
        ) from error


def check_identity(teacher: Teacher, device: torch.device) -> float | None:
    """Run the identity check of a teacher on its device and return the error.

    Notes
    -----
    On noise from a fixed seed, so that every process and every resume of a build sees the same images.

    Raises
    ------
    IdentityError
        The head is exact or linearized, and the mean of the dense logits is not the model's own logits.
    """
    facts = teacher.facts
    generator = torch.Generator().manual_seed(_PROBE_SEED)
    images = torch.randn((_PROBE_IMAGES, 3, *facts.input.size), generator=generator)
    error = teacher.identity_error(images.to(device).contiguous(memory_format=torch.channels_last))
    shall_hold = facts.dense_kind == DenseKind.EXACT.value or facts.dense_head == Variant.LINEARIZED.value
    if shall_hold and not (error is not None and error <= IDENTITY_TOLERANCE):
        found = "an unknown number of" if error is None else f"{error:.2g}"
        raise IdentityError(
            f"teacher {facts.name!r}: mean of the dense logits is {found} standard deviations from the model's "
            f"own logits, expected at most {IDENTITY_TOLERANCE:g}; its dense map cannot be trusted"
        )
    # JSON has no infinity; a teacher that overflows on noise is stopped where it overflows on images.
    return error if error is not None and math.isfinite(error) else None


def probe_grid(teacher: Teacher, device: torch.device) -> tuple[int, int]:
    """Return ``(n_rows, n_cols)`` of a teacher's maps, after checking what it gives for one black image.

    Raises
    ------
    TeacherError
        It gives something else than its protocol says.
    """
    if isinstance(teacher, TimmTeacher):
        return teacher.grid  # seen while it was made dense; a large teacher takes seconds an image on a CPU
    facts = teacher.facts
    with torch.inference_mode():
        images = torch.zeros((1, 3, *facts.input.size), device=device)
        logits = teacher.dense_logits(images, Precision.FP32)
    found = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
    if (
        not isinstance(logits, Tensor)
        or logits.ndim != 4
        or tuple(logits.shape[:2]) != (1, facts.num_classes)
    ):
        raise TeacherError(
            f"teacher {facts.name!r}: dense_logits gave {found} for one image, "
            f"expected float32 (1, {facts.num_classes}, n_rows, n_cols)"
        )
    return int(logits.shape[2]), int(logits.shape[3])

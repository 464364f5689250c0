"""The head of a timm classifier, as a function of features."""

from __future__ import annotations

import enum
import math
import warnings
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from relabel_store.errors import NoDenseMapError
from relabel_store.generate.dense.features import Features, Layout
from relabel_store.generate.dense.float32 import autocast_to

# Cells that go through the head at once. tf_efficientnet_lite0 at 475 px, batch 8, two cores: 22 ms a batch
# with 64 cells, 17 with 256, 14 with 1,024 or more, of which the matrix product takes 13; the features take
# 600 or more. The widest head in timm (5,504 channels) then holds 45 MB.
REPLAY_CELLS = 2048

# What a head raises when it cannot work on a single cell: wrong sizes, its own asserts, a missing token.
HEAD_FAILURES = (RuntimeError, AssertionError, ValueError, IndexError)


class Classifier(Protocol):
    """What replaying a head needs of a model."""

    training: bool
    num_features: int

    def __call__(self, images: Tensor, /) -> object:
        """Return the logits."""

    def forward_features(self, images: Tensor, /) -> object:
        """Return the features."""

    def forward_head(self, features: Tensor, /) -> object:
        """Return the logits of features."""


class Variant(enum.StrEnum):
    """How a head that is not linear scores a single cell. Of a linear one both are the same."""

    REPLAY = "replay"
    """As if every cell of the image were this one: the head, on the cell alone."""
    LINEARIZED = "linearized"
    """As a small change of the image's average: the head's tangent at the average, followed to the cell. The mean
    over the cells is the model's own logits again."""


@dataclass(frozen=True)
class Head:
    """The model's head as a function of features, in float32."""

    model: Classifier
    layout: Layout
    works_in_place: bool = True

    def logits(self, features: Features) -> Tensor:
        """Return the model's logits for whole maps: float32, ``(n, num_classes)``."""
        joined = self.layout.join(features)
        return head_logits(self.model, joined.clone() if self.works_in_place else joined)

    def of_cells(self, features: Features, num_classes: int, variant: Variant = Variant.REPLAY) -> Tensor:
        """Return the logits of each cell: float32, ``(n, n_cells, num_classes)``."""
        n, n_cells, width = features.cells.shape
        cells = features.cells.reshape(n * n_cells, 1, width)
        means = features.mean_cell().cells
        out = cells.new_empty((n * n_cells, num_classes))
        for start in range(0, n * n_cells, REPLAY_CELLS):
            part = cells[start : start + REPLAY_CELLS]
            image = torch.arange(start, start + len(part), device=cells.device) // n_cells
            prefix = features.prefix[image]
            if variant is Variant.REPLAY:
                alone = self.logits(Features(prefix, part, (1, 1)))
            else:
                alone = self._from_mean(prefix, means[image], part)
            if alone.shape != (len(part), num_classes):
                raise ValueError(f"shape {tuple(alone.shape)} for {len(part)} cells")
            out[start : start + len(part)] = alone
        return out.reshape(n, n_cells, num_classes)

    def _from_mean(self, prefix: Tensor, means: Tensor, cells: Tensor) -> Tensor:
        """Return logits at the means, and what their derivative makes of the way from there to the cells."""
        jvp: Any = torch.func.jvp
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what PyTorch itself imports for it
            logits, change = jvp(
                lambda one_cell: self.logits(Features(prefix, one_cell, (1, 1))), (means,), (cells - means,)
            )
        return cast(Tensor, logits + change)


def require_classifier(model: nn.Module) -> Classifier:
    """Return the model as one whose head can be replayed.

    Raises
    ------
    NoDenseMapError
        It has not timm's methods, or no classifier.
    """
    for name in ("forward_features", "forward_head"):
        if not callable(getattr(model, name, None)):
            raise no_map(model, f"no method {name!r}, expected timm's forward_features and forward_head")
    if not isinstance(getattr(model, "num_features", None), int):
        raise no_map(model, "no integer 'num_features', expected the number of channels of its features")
    if getattr(model, "num_classes", None) == 0:
        raise no_map(model, "num_classes is 0, expected a model with its classifier")
    return cast(Classifier, model)


def forward_features(model: Classifier, images: Tensor, autocast: torch.dtype | None) -> Tensor:
    """Return the features of images as float32, computed in float32 or under autocast."""
    with autocast_to(images.device, autocast):
        features = model.forward_features(images)
    if not isinstance(features, Tensor):
        found = type(features).__name__
        raise no_map(model, f"forward_features gives a {found}, expected one tensor")
    return features.float()


def head_logits(model: Classifier, features: Tensor) -> Tensor:
    """Return the logits of features as float32, computed in float32."""
    with autocast_to(features.device, None):
        return averaged(model.forward_head(features), model).float()


def averaged(logits: object, model: object) -> Tensor:
    """Return the mean of several heads, as distilled models combine theirs, or the only one."""
    if isinstance(logits, Tensor):
        return logits
    if isinstance(logits, (tuple, list)) and logits and all(isinstance(one, Tensor) for one in logits):
        shapes = {tuple(one.shape) for one in logits}
        if len(shapes) == 1:
            return torch.stack(list(logits)).mean(dim=0)
        raise no_map(model, f"heads of shapes {sorted(shapes)}, expected several of one shape")
    raise no_map(model, f"the head gives a {type(logits).__name__}, expected a tensor or a tuple of them")


def distance(found: Tensor, expected: Tensor, *, scale: Tensor | None = None) -> float:
    """Return the largest difference as a fraction of the scale; infinity where it is not a number."""
    scale = expected.std(correction=0) if scale is None else scale
    difference = (found - expected).abs().max()
    distance = float(difference / scale) if float(difference) != 0 else 0.0
    return distance if math.isfinite(distance) else math.inf


def name_of(model: object) -> str:
    """Return what to call a model in a message."""
    return type(model).__name__


def no_map(model: object, found: str) -> NoDenseMapError:
    """Return the error that says what a model has instead of a dense map."""
    return NoDenseMapError(f"teacher {name_of(model)} has no dense map: {found}")

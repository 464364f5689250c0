"""A timm classifier made dense, and the identity that proves it.

Most classifiers end in ``linear(mean(features))``. The mean and the linear layer may be swapped, which turns
the same weights into a score for each class in each cell of the feature map. Nothing is taken apart for that:
the model's own ``forward_head`` is *replayed* on each cell, as if the cell were a feature map of one cell.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from relabel_store.errors import NonFiniteLogitsError, TeacherError
from relabel_store.generate.dense.float32 import autocast_to, full_float32
from relabel_store.generate.dense.head import (
    HEAD_FAILURES,
    Classifier,
    Head,
    Variant,
    averaged,
    distance,
    forward_features,
    head_logits,
    name_of,
    no_map,
    require_classifier,
)
from relabel_store.generate.dense.kind import EXACT_TOLERANCE, DenseKind, find_kind, require_tangent
from relabel_store.generate.dense.layout import find_layout

PROBE_SEED = 20210113


@dataclass(frozen=True, eq=False)
class DenseClassifier:
    """A classifier that gives logits for each cell of a grid over the image; made by `make_dense`.

    Attributes
    ----------
    model
        The model as it was given, in eval mode. Its parameters are neither copied nor changed.
    kind
        How the dense logits relate to the model's own.
    grid
        ``(n_rows, n_cols)``, row 0 on top.
    num_classes
        Length of the class axis.
    input_size
        ``(height, width)`` in pixels of the images it takes.
    variant
        How the head scores a cell; always replay where `kind` is exact, because there is no difference.
    """

    model: nn.Module = field(repr=False)
    kind: DenseKind
    grid: tuple[int, int]
    num_classes: int
    input_size: tuple[int, int]
    _head: Head = field(repr=False)
    variant: Variant = Variant.REPLAY

    def logits(self, images: Tensor, *, autocast: torch.dtype | None = None) -> Tensor:
        """Return the logits of each cell.

        Parameters
        ----------
        images
            float32, ``(n, 3, height, width)``, normalised, on the model's device, in any memory format.
        autocast
            A dtype such as ``torch.bfloat16`` computes the features under autocast; None computes them in
            float32, even where the caller has switched autocast on. The head is replayed in float32.

        Returns
        -------
        Tensor
            float32, ``(n, num_classes, n_rows, n_cols)``, without gradient. The classes of a cell lie next to
            each other in memory: it is a view of ``(n, n_rows, n_cols, num_classes)``.

        Raises
        ------
        TeacherError
            Images of another size or dtype, or a model that was put back into training mode.
        """
        self._require_images(images)
        if self.model.training:
            raise TeacherError(
                f"teacher {name_of(self.model)}: in training mode, expected eval mode; call model.eval()"
            )
        with torch.no_grad():
            features = forward_features(self._head.model, images, autocast)
            cells = self._score(features)  # (n, n_rows * n_cols, num_classes)
        return cells.reshape(len(images), *self.grid, self.num_classes).movedim(-1, 1)

    def _score(self, features: Tensor) -> Tensor:
        with full_float32(features.device):
            if self.variant is Variant.REPLAY:
                return self._head.of_cells(self._head.layout.split(features), self.num_classes)
            # Inference mode has no derivatives, of tensors made in it neither; leaving it switches gradients on.
            with torch.inference_mode(mode=False), torch.no_grad():
                split = self._head.layout.split(features.clone())
                return self._head.of_cells(split, self.num_classes, self.variant)

    def _require_images(self, images: Tensor) -> None:
        if images.ndim != 4 or tuple(images.shape[2:]) != self.input_size or images.dtype != torch.float32:
            height, width = self.input_size
            raise TeacherError(
                f"images for {name_of(self.model)}: {images.dtype} of shape {tuple(images.shape)}, expected "
                f"torch.float32 of shape (n, 3, {height}, {width}), the size it was made dense for"
            )


def make_dense(
    model: nn.Module, *, input_size: tuple[int, int], variant: Variant = Variant.REPLAY
) -> DenseClassifier:
    """Return the model as a classifier of cells, or say why its head has no dense map.

    The model is put into eval mode and asked once with a random image; all else is asked of its head. Random
    numbers come from a generator of its own.

    Parameters
    ----------
    model
        Float32, on any device, with timm's ``forward_features``, ``forward_head`` and ``num_features``.
    input_size
        ``(height, width)`` of the images to come, in pixels.
    variant
        How a head that is not linear scores a cell.

    Raises
    ------
    NoDenseMapError
        The logits do not come from an average over the cells of a feature map. The message says what was
        found instead: a class token, attention or max pooling, prefix tokens mixed into the average, features
        that are no tensor, a head that needs the whole map.
    NonFiniteLogitsError
        NaN or infinity in the logits of the random image.
    TeacherError
        Parameters that are not float32, images of a size that the model does not take, or a head that cannot be
        linearized.

    Notes
    -----
    A class token is looked for first: replay answers it with a map of equal cells, whose mean is right.
    Exactness is tested on features with noise of twice their own deviation. On features as they are, cells
    can be so alike that layers after the average hardly show (hiera: 0.003 of the deviation of the logits
    there, 2.0 with noise).
    """
    model.eval()
    classifier = require_classifier(model)
    device = _require_float32(model)
    generator = torch.Generator().manual_seed(PROBE_SEED)
    height, width = input_size
    images = torch.randn((1, 3, height, width), generator=generator).to(device)
    with torch.no_grad(), full_float32(device):
        features = _probe_features(classifier, images)
        num_classes = _require_same_logits(classifier, images, features)
        layout = find_layout(classifier, features, (height, width), generator)
        head = Head(classifier, layout, works_in_place=_works_in_place(classifier, features))
        kind = find_kind(head, layout.split(features), num_classes, generator)
        if kind is DenseKind.EXACT:
            variant = Variant.REPLAY
        elif variant is Variant.LINEARIZED:
            require_tangent(head, layout.split(features), num_classes, generator)
    return DenseClassifier(model, kind, layout.grid, num_classes, (height, width), head, variant)


def identity_error(dense: DenseClassifier, images: Tensor) -> float:
    """Return how far the mean of the dense logits is from the model's logits.

    The largest absolute difference over images and classes, as a fraction of the standard deviation of the
    model's logits; computed in float32 without autocast. It is about 1e-6 for `DenseKind.EXACT`. Infinite
    when a logit is not finite.
    """
    with full_float32(images.device):
        means = dense.logits(images.clone()).mean(dim=(2, 3))
        with torch.no_grad(), autocast_to(images.device, None):
            logits = averaged(dense.model(images.clone()), dense.model).float()
    return distance(means, logits, scale=logits.std(correction=0))


def _require_float32(model: nn.Module) -> torch.device:
    """Return the model's device."""
    device = torch.device("cpu")
    for buffer in model.buffers():
        device = buffer.device
    for name, parameter in model.named_parameters():
        device = parameter.device
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise TeacherError(
                f"teacher {name_of(model)}: {name!r} is {parameter.dtype}, expected torch.float32; convert it "
                "with model.float() and ask for a lower precision through autocast"
            )
    return device


def _probe_features(model: Classifier, images: Tensor) -> Tensor:
    try:
        features = forward_features(model, images.clone(), None)
    except (torch.OutOfMemoryError, TeacherError):
        raise
    except HEAD_FAILURES as error:
        height, width = images.shape[2:]
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TeacherError(
            f"teacher {name_of(model)}: takes no images of {height} x {width} pixels ({reason}); "
            "choose another --input-size, or leave it out"
        ) from error
    if features.ndim not in (3, 4):
        raise no_map(
            model,
            f"features of shape {tuple(features.shape)}, expected (n, c, rows, cols), (n, rows, cols, c) or "
            "(n, tokens, c)",
        )
    if float(features.std(correction=0)) == 0:
        height, width = images.shape[2:]
        raise TeacherError(
            f"teacher {name_of(model)}: sees nothing in images of {height} x {width} pixels, all its features are "
            "equal; choose a larger --input-size, or look at its weights"
        )
    return features


def _require_same_logits(model: Classifier, images: Tensor, features: Tensor) -> int:
    """Return the number of classes, having seen that the head on the features is all of the model."""
    try:
        logits = head_logits(model, features.clone())
    except NotImplementedError as error:
        raise no_map(model, "forward_head is not implemented, expected a classifier") from error
    with autocast_to(images.device, None):
        expected = averaged(model(images.clone()), model).float()
    if logits.ndim != 2 or len(logits) != 1:
        raise no_map(
            model,
            f"the head gives shape {tuple(logits.shape)} for one image, expected (1, num_classes); "
            "a model made without pooling has no logits of its own to compare with",
        )
    if not bool(expected.isfinite().all()):
        raise NonFiniteLogitsError(
            f"teacher {name_of(model)}: NaN or infinity in the logits of a random image, expected finite "
            "numbers; look at its weights"
        )
    if logits.shape != expected.shape or distance(logits, expected) > EXACT_TOLERANCE:
        raise no_map(
            model, "forward() is not forward_head(forward_features()), so replaying the head is not the model"
        )
    return logits.shape[1]


def _works_in_place(model: Classifier, features: Tensor) -> bool:
    given = features.clone()
    head_logits(model, given)
    return not torch.equal(given, features)

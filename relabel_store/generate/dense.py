"""A timm classifier made dense, and the identity that proves it.

Most classifiers end in ``linear(mean(features))``. The mean and the linear layer may be swapped, which turns
the same weights into a score for each class in each cell of the feature map. Nothing is taken apart for that:
the model's own ``forward_head`` is *replayed* on each cell, as if the cell were a feature map of one cell.

Whether the result is a label map is found out by asking the head questions, never by looking at its class:
what it answers to shuffled, randomised, noisy and averaged features tells a mean followed by a linear layer
from a class token, from attention and from layers that bend what was averaged.
"""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from relabel_store.errors import NoDenseMapError, NonFiniteLogitsError, TeacherError

__all__ = ["DenseClassifier", "DenseKind", "identity_error", "make_dense"]

# Cells that go through the head at once. tf_efficientnet_lite0 at 475 px, batch 8, two cores: 22 ms a batch
# with 64 cells, 17 with 256, 14 with 1,024 or more, of which the matrix product takes 13; the features take
# 600 or more. The widest head in timm (5,504 channels) then holds 45 MB.
REPLAY_CELLS = 2048

PROBE_SEED = 20210113
# Of the logits' standard deviation. Linear heads stay under 1e-5 on noisy features, the least bent one that
# timm has is off by more than 1e-2.
EXACT_TOLERANCE = 1e-4
# Of the change that random features make. A head that does not read something answers the same to the bit.
UNCHANGED_TOLERANCE = 1e-5
MAX_PREFIX_TOKENS = 16  # class tokens and registers of a model that does not declare them

# What a head raises when it cannot work on a single cell: wrong sizes, its own asserts, a missing token.
_HEAD_FAILURES = (RuntimeError, AssertionError, ValueError, IndexError)


class DenseKind(enum.Enum):
    """How the dense logits relate to the logits of the model."""

    EXACT = "exact"
    """Their mean over the cells is the model's logits."""
    PER_LOCATION = "per-location"
    """The head averages the cells and then bends the average: each cell's logits are what the model would
    say if every cell looked like this one, and their mean is near the model's logits, not equal to them."""


class _Classifier(Protocol):
    """What replaying a head needs of a model."""

    training: bool
    num_features: int

    def __call__(self, images: Tensor, /) -> object: ...
    def forward_features(self, images: Tensor, /) -> object: ...
    def forward_head(self, features: Tensor, /) -> object: ...


class _Axes(enum.Enum):
    NCHW = "NCHW"
    NHWC = "NHWC"
    TOKENS = "tokens"


@dataclass(frozen=True)
class _Layout:
    """Where prefix tokens, cells and channels are in a feature tensor."""

    axes: _Axes
    grid: tuple[int, int]
    n_prefix: int = 0

    def split(self, features: Tensor) -> _Features:
        if self.axes is _Axes.NCHW:
            features = features.movedim(1, -1)
        tokens = features.flatten(1, -2)  # (n, n_prefix + n_rows * n_cols, c)
        return _Features(tokens[:, : self.n_prefix], tokens[:, self.n_prefix :], self.grid)

    def join(self, features: _Features) -> Tensor:
        if self.axes is _Axes.TOKENS:
            tokens = [features.prefix, features.cells]
            return torch.cat(tokens, dim=1) if self.n_prefix else features.cells
        n, _, width = features.cells.shape
        cells = features.cells.reshape(n, *features.grid, width)
        # Contiguous, because heads may use view().
        return cells.movedim(-1, 1).contiguous() if self.axes is _Axes.NCHW else cells.contiguous()


@dataclass(frozen=True)
class _Features:
    """Features in one order whatever the model's: prefix ``(n, n_prefix, c)``, cells ``(n, n_cells, c)``."""

    prefix: Tensor
    cells: Tensor
    grid: tuple[int, int]

    def one_cell_each(self) -> _Features:
        """Return ``n * n_cells`` maps of one cell, each with the prefix tokens of its image."""
        n, n_cells, width = self.cells.shape
        prefix = self.prefix.repeat_interleave(n_cells, dim=0)
        return _Features(prefix, self.cells.reshape(n * n_cells, 1, width), (1, 1))

    def mean_cell(self) -> _Features:
        return _Features(self.prefix, self.cells.mean(dim=1, keepdim=True), (1, 1))

    def shuffled(self, generator: torch.Generator) -> _Features:
        order = torch.randperm(self.cells.shape[1], generator=generator)
        return _Features(self.prefix, self.cells[:, order.to(self.cells.device)], self.grid)


@dataclass(frozen=True)
class _Head:
    """The model's head as a function of features, in float32."""

    model: _Classifier
    layout: _Layout
    works_in_place: bool = True

    def logits(self, features: _Features) -> Tensor:
        """Return the model's logits for whole maps: float32, ``(n, num_classes)``."""
        joined = self.layout.join(features)
        return _head_logits(self.model, joined.clone() if self.works_in_place else joined)

    def replay(self, features: _Features, num_classes: int) -> Tensor:
        """Return the logits of each cell taken alone: float32, ``(n, n_cells, num_classes)``."""
        n, n_cells, width = features.cells.shape
        cells = features.cells.reshape(n * n_cells, 1, width)
        out = cells.new_empty((n * n_cells, num_classes))
        for start in range(0, n * n_cells, REPLAY_CELLS):
            part = cells[start : start + REPLAY_CELLS]
            image = torch.arange(start, start + len(part), device=cells.device) // n_cells
            alone = self.logits(_Features(features.prefix[image], part, (1, 1)))
            if alone.shape != (len(part), num_classes):
                raise ValueError(f"shape {tuple(alone.shape)} for {len(part)} cells")
            out[start : start + len(part)] = alone
        return out.reshape(n, n_cells, num_classes)


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
    """

    model: nn.Module = field(repr=False)
    kind: DenseKind
    grid: tuple[int, int]
    num_classes: int
    input_size: tuple[int, int]
    _head: _Head = field(repr=False)

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
                f"teacher {_name(self.model)}: in training mode, expected eval mode; call model.eval()"
            )
        with torch.no_grad():
            features = _forward_features(self._head.model, images, autocast)
            split = self._head.layout.split(features)
            with _full_float32(images.device):
                cells = self._head.replay(split, self.num_classes)  # (n, n_rows * n_cols, num_classes)
        return cells.reshape(len(images), *self.grid, self.num_classes).movedim(-1, 1)

    def _require_images(self, images: Tensor) -> None:
        if images.ndim != 4 or tuple(images.shape[2:]) != self.input_size or images.dtype != torch.float32:
            height, width = self.input_size
            raise TeacherError(
                f"images for {_name(self.model)}: {images.dtype} of shape {tuple(images.shape)}, expected "
                f"torch.float32 of shape (n, 3, {height}, {width}), the size it was made dense for"
            )


def make_dense(model: nn.Module, *, input_size: tuple[int, int]) -> DenseClassifier:
    """Return the model as a classifier of cells, or say why its head has no dense map.

    The model is put into eval mode and asked once with a random image; all else is asked of its head. Random
    numbers come from a generator of its own.

    Parameters
    ----------
    model
        Float32, on any device, with timm's ``forward_features``, ``forward_head`` and ``num_features``.
    input_size
        ``(height, width)`` of the images to come, in pixels.

    Raises
    ------
    NoDenseMapError
        The logits do not come from an average over the cells of a feature map. The message says what was
        found instead: a class token, attention or max pooling, prefix tokens mixed into the average, features
        that are no tensor, a head that needs the whole map.
    NonFiniteLogitsError
        NaN or infinity in the logits of the random image.
    TeacherError
        Parameters that are not float32.

    Notes
    -----
    A class token is looked for first: replay answers it with a map of equal cells, whose mean is right.
    Exactness is tested on features with noise of twice their own deviation. On features as they are, cells
    can be so alike that layers after the average hardly show (hiera: 0.003 of the deviation of the logits
    there, 2.0 with noise).
    """
    model.eval()
    classifier = _require_classifier(model)
    device = _require_float32(model)
    generator = torch.Generator().manual_seed(PROBE_SEED)
    height, width = input_size
    images = torch.randn((1, 3, height, width), generator=generator).to(device)
    with torch.no_grad(), _full_float32(device):
        features = _probe_features(classifier, images)
        num_classes = _require_same_logits(classifier, images, features)
        layout = _find_layout(classifier, features, (height, width), generator)
        head = _Head(classifier, layout, works_in_place=_works_in_place(classifier, features))
        kind = _find_kind(head, layout.split(features), num_classes, generator)
    return DenseClassifier(model, kind, layout.grid, num_classes, (height, width), head)


def identity_error(dense: DenseClassifier, images: Tensor) -> float:
    """Return how far the mean of the dense logits is from the model's logits.

    The largest absolute difference over images and classes, as a fraction of the standard deviation of the
    model's logits; computed in float32 without autocast. It is about 1e-6 for `DenseKind.EXACT`. Infinite
    when a logit is not finite.
    """
    with _full_float32(images.device):
        means = dense.logits(images.clone()).mean(dim=(2, 3))
        with torch.no_grad(), _autocast(images.device, None):
            logits = _averaged(dense.model(images.clone()), dense.model).float()
    return _distance(means, logits, scale=logits.std(correction=0))


def _require_classifier(model: nn.Module) -> _Classifier:
    for name in ("forward_features", "forward_head"):
        if not callable(getattr(model, name, None)):
            raise _no_map(model, f"no method {name!r}, expected timm's forward_features and forward_head")
    if not isinstance(getattr(model, "num_features", None), int):
        raise _no_map(model, "no integer 'num_features', expected the number of channels of its features")
    if getattr(model, "num_classes", None) == 0:
        raise _no_map(model, "num_classes is 0, expected a model with its classifier")
    return cast(_Classifier, model)


def _require_float32(model: nn.Module) -> torch.device:
    """Return the model's device."""
    device = torch.device("cpu")
    for buffer in model.buffers():
        device = buffer.device
    for name, parameter in model.named_parameters():
        device = parameter.device
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise TeacherError(
                f"teacher {_name(model)}: {name!r} is {parameter.dtype}, expected torch.float32; convert it "
                "with model.float() and ask for a lower precision through autocast"
            )
    return device


def _probe_features(model: _Classifier, images: Tensor) -> Tensor:
    try:
        features = _forward_features(model, images.clone(), None)
    except _HEAD_FAILURES as error:
        height, width = images.shape[2:]
        error.add_note(f"in forward_features of {_name(model)}, image of {height} x {width} pixels")
        raise
    if features.ndim not in (3, 4):
        raise _no_map(
            model,
            f"features of shape {tuple(features.shape)}, expected (n, c, rows, cols), (n, rows, cols, c) or "
            "(n, tokens, c)",
        )
    return features


def _forward_features(model: _Classifier, images: Tensor, autocast: torch.dtype | None) -> Tensor:
    with _autocast(images.device, autocast):
        features = model.forward_features(images)
    if not isinstance(features, Tensor):
        found = type(features).__name__
        raise _no_map(model, f"forward_features gives a {found}, expected one tensor")
    return features.float()


def _head_logits(model: _Classifier, features: Tensor) -> Tensor:
    with _autocast(features.device, None):
        return _averaged(model.forward_head(features), model).float()


def _averaged(logits: object, model: object) -> Tensor:
    """Return the mean of several heads, as distilled models combine theirs, or the only one."""
    if isinstance(logits, Tensor):
        return logits
    if isinstance(logits, (tuple, list)) and logits and all(isinstance(one, Tensor) for one in logits):
        shapes = {tuple(one.shape) for one in logits}
        if len(shapes) == 1:
            return torch.stack(list(logits)).mean(dim=0)
        raise _no_map(model, f"heads of shapes {sorted(shapes)}, expected several of one shape")
    raise _no_map(model, f"the head gives a {type(logits).__name__}, expected a tensor or a tuple of them")


def _require_same_logits(model: _Classifier, images: Tensor, features: Tensor) -> int:
    """Return the number of classes, having seen that the head on the features is all of the model."""
    try:
        logits = _head_logits(model, features.clone())
    except NotImplementedError as error:
        raise _no_map(model, "forward_head is not implemented, expected a classifier") from error
    with _autocast(images.device, None):
        expected = _averaged(model(images.clone()), model).float()
    if logits.ndim != 2 or len(logits) != 1:
        raise _no_map(
            model,
            f"the head gives shape {tuple(logits.shape)} for one image, expected (1, num_classes); "
            "a model made without pooling has no logits of its own to compare with",
        )
    if not bool(expected.isfinite().all()):
        raise NonFiniteLogitsError(
            f"teacher {_name(model)}: NaN or infinity in the logits of a random image, expected finite "
            "numbers; look at its weights"
        )
    if logits.shape != expected.shape or _distance(logits, expected) > EXACT_TOLERANCE:
        raise _no_map(
            model, "forward() is not forward_head(forward_features()), so replaying the head is not the model"
        )
    return logits.shape[1]


def _works_in_place(model: _Classifier, features: Tensor) -> bool:
    given = features.clone()
    _head_logits(model, given)
    return not torch.equal(given, features)


def _find_layout(
    model: _Classifier, features: Tensor, input_size: tuple[int, int], generator: torch.Generator
) -> _Layout:
    candidates = (
        _map_layouts(features, model.num_features)
        if features.ndim == 4
        else _token_layouts(model, features, input_size)
    )
    if not candidates:
        raise _no_map(
            model,
            f"features of shape {tuple(features.shape)} for an image of {input_size[0]} x {input_size[1]} "
            f"pixels, expected {model.num_features} channels and a grid in the proportions of the image",
        )
    if len(candidates) == 1:
        return candidates[0]
    # As many channels as columns: a head that averages cells does not mind their order, but that of channels.
    fitting = [layout for layout in candidates if _ignores_order(model, layout, features, generator)]
    return (fitting or candidates)[0]


def _map_layouts(features: Tensor, width: int) -> list[_Layout]:
    _, first, second, third = features.shape
    layouts = []
    if first == width:
        layouts.append(_Layout(_Axes.NCHW, (second, third)))
    if third == width:
        layouts.append(_Layout(_Axes.NHWC, (first, second)))
    return layouts


def _token_layouts(model: _Classifier, features: Tensor, input_size: tuple[int, int]) -> list[_Layout]:
    _, n_tokens, width = features.shape
    if width != model.num_features:
        return []
    declared = getattr(model, "num_prefix_tokens", None)
    if isinstance(declared, int) and n_tokens <= declared:
        raise _no_map(model, f"a class token: its features are {n_tokens} prefix tokens and no cells")
    counts = [declared] if isinstance(declared, int) else []
    for n_prefix in [*counts, *range(MAX_PREFIX_TOKENS + 1)]:
        grid = _token_grid(n_tokens - n_prefix, input_size)
        if grid is not None:
            return [_Layout(_Axes.TOKENS, grid, n_prefix)]
    return []


def _token_grid(n_cells: int, input_size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the grid of so many cells that a common stride makes of the input, rounding up or down."""
    height, width = input_size
    grids = []
    for n_rows in range(1, n_cells + 1):
        n_cols, rest = divmod(n_cells, n_rows)
        smallest = max(height / (n_rows + 1), width / (n_cols + 1))
        largest = min(height / max(n_rows - 1, 1e-9), width / max(n_cols - 1, 1e-9))
        is_square_enough = height != width or n_rows == n_cols
        if rest == 0 and smallest < largest and is_square_enough:
            skew = abs(math.log(n_rows * width / (n_cols * height)))
            grids.append((skew, n_rows, n_cols))
    return min(grids)[1:] if grids else None


def _ignores_order(model: _Classifier, layout: _Layout, features: Tensor, generator: torch.Generator) -> bool:
    head = _Head(model, layout)
    split = layout.split(features)
    logits = head.logits(split)
    return _distance(head.logits(split.shuffled(generator)), logits) < EXACT_TOLERANCE


def _find_kind(head: _Head, features: _Features, num_classes: int, generator: torch.Generator) -> DenseKind:
    features = _for_tests(features)
    _require_cells_matter(head, features, generator)
    noisy = _with_noise(features, generator)
    logits = _ask(head, "a noisy feature map", lambda: head.logits(noisy))
    replayed = _ask(head, "a single cell", lambda: head.replay(noisy, num_classes))
    if _distance(replayed.mean(dim=1), logits) < EXACT_TOLERANCE:
        return DenseKind.EXACT
    if _distance(head.logits(noisy.mean_cell()), logits) < EXACT_TOLERANCE:
        return DenseKind.PER_LOCATION
    if _sees_only_an_average(head, noisy, _with_noise(features, generator)):
        return DenseKind.PER_LOCATION
    if _distance(head.logits(noisy.shuffled(generator)), logits) > EXACT_TOLERANCE:
        raise _no_map(
            head.model,
            "a spatial head (a convolution, or attention with positions), whose logits change when cells "
            "change places, expected an average over the cells",
        )
    raise _no_map(head.model, "max or attention pooling, expected an average over the cells")


def _for_tests(features: _Features) -> _Features:
    """Return two maps of at least four cells: on one cell every pooling looks like an average."""
    cells, (n_rows, n_cols) = features.cells, features.grid
    repeats = 1 if cells.shape[1] >= 4 else 4
    return _Features(features.prefix.repeat(2, 1, 1), cells.repeat(2, repeats, 1), (repeats * n_rows, n_cols))


def _require_cells_matter(head: _Head, features: _Features, generator: torch.Generator) -> None:
    """Require that the logits depend on all cells, and not on prefix tokens."""
    prefix, cells, grid = features.prefix, features.cells, features.grid
    other_prefix, other_cells = _noisy(prefix, generator), _noisy(cells, generator)
    # Two cells stay, in case a model hands on class tokens without saying that they are prefix tokens.
    some_cells = torch.cat([cells[:, :2], other_cells[:, 2:]], dim=1)
    logits = _ask(head, "its own features", lambda: head.logits(features))

    def change(prefix: Tensor, cells: Tensor) -> float:
        return float((head.logits(_Features(prefix, cells, grid)) - logits).abs().max())

    largest = change(other_prefix, other_cells)
    if largest <= 1e-6 * float(logits.abs().max()):
        raise _no_map(
            head.model, "logits that do not depend on the image, as of a classifier that was never trained"
        )
    if change(prefix, some_cells) < UNCHANGED_TOLERANCE * largest:
        raise _no_map(
            head.model,
            "a class token, from which alone the logits come, expected an average over the cells; "
            "take a teacher with average pooling",
        )
    if change(other_prefix, cells) > UNCHANGED_TOLERANCE * largest:
        raise _no_map(
            head.model,
            "prefix tokens mixed into the logits, by attention pooling or by averaging over them too, "
            "expected an average over the cells only",
        )


def _with_noise(features: _Features, generator: torch.Generator) -> _Features:
    return _Features(features.prefix, _noisy(features.cells, generator), features.grid)


def _noisy(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if tensor.numel() == 0:
        return tensor
    noise = torch.randn(tensor.shape, generator=generator).to(tensor.device)
    return tensor + 2 * tensor.std(correction=0) * noise


def _ask(head: _Head, what: str, question: Callable[[], Tensor]) -> Tensor:
    try:
        return question()
    except (torch.cuda.OutOfMemoryError, TeacherError):
        raise
    except _HEAD_FAILURES as error:
        raise _no_map(head.model, f"a spatial head, which cannot work on {what}: {error}") from error


def _sees_only_an_average(head: _Head, features: _Features, others: _Features) -> bool:
    """Say whether the head averages something over the cells and reads nothing else.

    Such a head may work on each cell before it averages (efficientvit_mit), so the mean of the features says
    nothing. Instead each average that it takes is watched: it is the one if averages of single cells average
    to it, and if a head that works on other features, but gets this average, gives the logits of these.
    """
    with _AverageTap() as whole:
        logits = head.logits(features)
    with _AverageTap() as alone:
        head.logits(features.one_cell_each())
    n = len(features.cells)
    for index, (average, parts) in enumerate(zip(whole.averages, alone.averages, strict=False)):
        if average.shape[0] != n or parts.numel() != average.numel() * features.cells.shape[1]:
            continue
        mean = parts.reshape(n, -1, average[0].numel()).mean(dim=1)
        if _distance(mean, average.flatten(1)) > EXACT_TOLERANCE:
            continue
        with _AverageTap({index: average}):
            swapped = head.logits(others)
        if _distance(swapped, logits) < EXACT_TOLERANCE:
            return True
    return False


class _AverageTap(TorchFunctionMode):
    """Keeps the averages that a head takes, and hands it others in their place."""

    averaging = frozenset(
        {
            torch.mean,
            Tensor.mean,
            functional.adaptive_avg_pool1d,
            functional.adaptive_avg_pool2d,
            functional.avg_pool2d,
        }
    )

    def __init__(self, replacements: dict[int, Tensor] | None = None) -> None:
        super().__init__()
        self.averages: list[Tensor] = []
        self.replacements = replacements or {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in self.averaging:
            result = self.replacements.get(len(self.averages), result)
            self.averages.append(result.clone())  # the layer after it may work in place
        return result


def _distance(found: Tensor, expected: Tensor, *, scale: Tensor | None = None) -> float:
    """Return the largest difference as a fraction of the scale; infinity where it is not a number."""
    scale = expected.std(correction=0) if scale is None else scale
    difference = (found - expected).abs().max()
    distance = float(difference / scale) if float(difference) != 0 else 0.0
    return distance if math.isfinite(distance) else math.inf


def _autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextlib.contextmanager
def _full_float32(device: torch.device) -> Iterator[None]:
    """Switch off the shortened float32 (TF32, bfloat16) that matrix products and convolutions may use.

    Convolutions on CUDA use TF32 unless told otherwise, and some heads are convolutions: the identity would
    then hold to 1e-3 only.
    """
    backends: Any = torch.backends
    if not hasattr(backends.cudnn, "conv"):  # torch before 2.9
        with _legacy_full_float32():
            yield
        return
    settings = (
        (backends.cuda.matmul, backends.cudnn.conv)
        if device.type == "cuda"
        else (backends.mkldnn.matmul, backends.mkldnn.conv)
    )
    found = [(setting, setting.fp32_precision) for setting in settings]
    shortened = [(setting, precision) for setting, precision in found if precision not in ("none", "ieee")]
    try:
        for setting, _ in shortened:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, precision in shortened:
            setting.fp32_precision = precision


@contextlib.contextmanager
def _legacy_full_float32() -> Iterator[None]:
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution


def _name(model: object) -> str:
    return type(model).__name__


def _no_map(model: object, found: str) -> NoDenseMapError:
    return NoDenseMapError(f"teacher {_name(model)} has no dense map: {found}")

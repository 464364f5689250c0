"""What a head does with its cells, found out by asking it.

What it answers to shuffled, randomised, noisy and averaged features tells a mean followed by a linear layer from a
class token, from attention and from layers that bend what was averaged. Its class is never looked at.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from relabel_store.errors import TeacherError
from relabel_store.generate.dense.features import Features
from relabel_store.generate.dense.head import HEAD_FAILURES, Head, Variant, distance, name_of, no_map

# Of the logits' standard deviation. Linear heads stay under 1e-5 on noisy features, the least bent one that
# timm has is off by more than 1e-2.
EXACT_TOLERANCE = 1e-4
# Of the change that random features make. A head that does not read something answers the same to the bit.
UNCHANGED_TOLERANCE = 1e-5


class DenseKind(enum.Enum):
    """How the dense logits relate to the logits of the model."""

    EXACT = "exact"
    """Their mean over the cells is the model's logits."""
    PER_LOCATION = "per-location"
    """The head averages the cells and then bends the average: each cell's logits are what the model would
    say if every cell looked like this one, and their mean is near the model's logits, not equal to them."""


def find_kind(head: Head, features: Features, num_classes: int, generator: torch.Generator) -> DenseKind:
    """Return how the cells of a head relate to its logits.

    Raises
    ------
    NoDenseMapError
        The logits do not come from an average over the cells; the message says what was found instead.
    """
    features = _for_tests(features)
    _require_cells_matter(head, features, generator)
    noisy = _with_noise(features, generator)
    logits = _ask(head, "a noisy feature map", lambda: head.logits(noisy))
    replayed = _ask(head, "a single cell", lambda: head.of_cells(noisy, num_classes))
    if distance(replayed.mean(dim=1), logits) < EXACT_TOLERANCE:
        return DenseKind.EXACT
    if distance(head.logits(noisy.mean_cell()), logits) < EXACT_TOLERANCE:
        return DenseKind.PER_LOCATION
    if _sees_only_an_average(head, noisy, _with_noise(features, generator)):
        return DenseKind.PER_LOCATION
    if distance(head.logits(noisy.shuffled(generator)), logits) > EXACT_TOLERANCE:
        raise no_map(
            head.model,
            "a spatial head (a convolution, or attention with positions), whose logits change when cells "
            "change places, expected an average over the cells",
        )
    raise no_map(head.model, "max or attention pooling, expected an average over the cells")


def _for_tests(features: Features) -> Features:
    """Return two maps of at least four cells: on one cell every pooling looks like an average."""
    cells, (n_rows, n_cols) = features.cells, features.grid
    repeats = 1 if cells.shape[1] >= 4 else 4
    return Features(features.prefix.repeat(2, 1, 1), cells.repeat(2, repeats, 1), (repeats * n_rows, n_cols))


def _require_cells_matter(head: Head, features: Features, generator: torch.Generator) -> None:
    """Require that the logits depend on all cells, and not on prefix tokens."""
    prefix, cells, grid = features.prefix, features.cells, features.grid
    other_prefix, other_cells = _noisy(prefix, generator), _noisy(cells, generator)
    # Two cells stay, in case a model hands on class tokens without saying that they are prefix tokens.
    some_cells = torch.cat([cells[:, :2], other_cells[:, 2:]], dim=1)
    logits = _ask(head, "its own features", lambda: head.logits(features))

    def change(prefix: Tensor, cells: Tensor) -> float:
        return float((head.logits(Features(prefix, cells, grid)) - logits).abs().max())

    largest = change(other_prefix, other_cells)
    if largest <= 1e-6 * float(logits.abs().max()):
        raise no_map(
            head.model, "logits that do not depend on the image, as of a classifier that was never trained"
        )
    if change(prefix, some_cells) < UNCHANGED_TOLERANCE * largest:
        raise no_map(
            head.model,
            "a class token, from which alone the logits come, expected an average over the cells; "
            "take a teacher with average pooling",
        )
    if change(other_prefix, cells) > UNCHANGED_TOLERANCE * largest:
        raise no_map(
            head.model,
            "prefix tokens mixed into the logits, by attention pooling or by averaging over them too, "
            "expected an average over the cells only",
        )


def _with_noise(features: Features, generator: torch.Generator) -> Features:
    return Features(features.prefix, _noisy(features.cells, generator), features.grid)


def _noisy(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if tensor.numel() == 0:
        return tensor
    noise = torch.randn(tensor.shape, generator=generator).to(tensor.device)
    return tensor + 2 * tensor.std(correction=0) * noise


def _ask(head: Head, what: str, question: Callable[[], Tensor]) -> Tensor:
    try:
        return question()
    except (torch.cuda.OutOfMemoryError, TeacherError):
        raise
    except HEAD_FAILURES as error:
        raise no_map(head.model, f"a spatial head, which cannot work on {what}: {error}") from error


def _sees_only_an_average(head: Head, features: Features, others: Features) -> bool:
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
        if distance(mean, average.flatten(1)) > EXACT_TOLERANCE:
            continue
        with _AverageTap({index: average}):
            swapped = head.logits(others)
        if distance(swapped, logits) < EXACT_TOLERANCE:
            return True
    return False


def require_tangent(head: Head, features: Features, num_classes: int, generator: torch.Generator) -> None:
    """Check that following a head's tangent from the average gives the head's logits in the mean.

    Raises
    ------
    TeacherError
        It does not, as of heads that bend each cell before they average, or the head has no derivative.
    """
    noisy = _with_noise(_for_tests(features), generator)
    try:
        found = head.of_cells(noisy, num_classes, Variant.LINEARIZED).mean(dim=1)
    except (NotImplementedError, *HEAD_FAILURES) as error:
        raise TeacherError(
            f"teacher {name_of(head.model)}: its head cannot be linearized ({error}); use --head replay"
        ) from error
    error_found = distance(found, head.logits(noisy))
    if error_found > EXACT_TOLERANCE:
        raise TeacherError(
            f"teacher {name_of(head.model)}: the mean of its linearized head is {error_found:.2g} standard deviations "
            "from its logits, because the head works on cells before it averages them; use --head replay"
        )


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

"""Where cells and channels are in the features of a model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from relabel_store.generate.dense.features import Axes, Layout
from relabel_store.generate.dense.head import Classifier, Head, distance, no_map
from relabel_store.generate.dense.kind import EXACT_TOLERANCE

MAX_PREFIX_TOKENS = 16  # class tokens and registers of a model that does not declare them


def find_layout(
    model: Classifier, features: Tensor, input_size: tuple[int, int], generator: torch.Generator
) -> Layout:
    """Return where the cells are, by the shape of the features, the image's proportions, and the head itself.

    Raises
    ------
    NoDenseMapError
        There is no grid of cells in them.
    """
    candidates = (
        _map_layouts(features, model.num_features)
        if features.ndim == 4
        else _token_layouts(model, features, input_size)
    )
    if not candidates:
        raise no_map(
            model,
            f"features of shape {tuple(features.shape)} for an image of {input_size[0]} x {input_size[1]} "
            f"pixels, expected {model.num_features} channels and a grid in the proportions of the image",
        )
    if len(candidates) == 1:
        return candidates[0]
    # As many channels as columns: a head that averages cells does not mind their order, but that of channels.
    fitting = [layout for layout in candidates if _ignores_order(model, layout, features, generator)]
    return (fitting or candidates)[0]


def _map_layouts(features: Tensor, width: int) -> list[Layout]:
    _, first, second, third = features.shape
    layouts = []
    if first == width:
        layouts.append(Layout(Axes.NCHW, (second, third)))
    if third == width:
        layouts.append(Layout(Axes.NHWC, (first, second)))
    return layouts


def _token_layouts(model: Classifier, features: Tensor, input_size: tuple[int, int]) -> list[Layout]:
    _, n_tokens, width = features.shape
    if width != model.num_features:
        return []
    declared = getattr(model, "num_prefix_tokens", None)
    if isinstance(declared, int) and n_tokens <= declared:
        raise no_map(model, f"a class token: its features are {n_tokens} prefix tokens and no cells")
    counts = [declared] if isinstance(declared, int) else []
    for n_prefix in [*counts, *range(MAX_PREFIX_TOKENS + 1)]:
        grid = _token_grid(n_tokens - n_prefix, input_size)
        if grid is not None:
            return [Layout(Axes.TOKENS, grid, n_prefix)]
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


def _ignores_order(model: Classifier, layout: Layout, features: Tensor, generator: torch.Generator) -> bool:
    head = Head(model, layout)
    split = layout.split(features)
    logits = head.logits(split)
    return distance(head.logits(split.shuffled(generator)), logits) < EXACT_TOLERANCE

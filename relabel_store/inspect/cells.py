"""Cells that belong together: what each shows, the borders between them, the room inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relabel_store.inspect.areas import ClassArea


def group_cells(winners: NDArray[np.integer[Any]], named: Sequence[ClassArea]) -> NDArray[np.intp]:
    """Return the position of each winner among ``named``, ``len(named)`` where it is another class."""
    groups = np.full(winners.shape, len(named), dtype=np.intp)
    for position, area in enumerate(named):
        groups[winners == area.class_index] = position
    return groups


def borders(groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the edges between cells of different groups, ``(n, 2, 2)``: ends, then x and y in cells."""
    row, col = np.nonzero(groups[:, 1:] != groups[:, :-1])
    upright = np.stack([np.stack([col + 1, row], -1), np.stack([col + 1, row + 1], -1)], axis=1)
    row, col = np.nonzero(groups[1:] != groups[:-1])
    level = np.stack([np.stack([col, row + 1], -1), np.stack([col + 1, row + 1], -1)], axis=1)
    return np.concatenate([upright, level]).astype(np.float64)


def largest_block(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return (row, col, size) of a largest square of cells inside ``mask``, which is not empty."""
    size, corners = 1, mask
    # A square of n + 1 cells is four overlapping squares of n cells.
    while (larger := corners[:-1, :-1] & corners[:-1, 1:] & corners[1:, :-1] & corners[1:, 1:]).any():
        size, corners = size + 1, larger
    found = np.argwhere(corners)
    row, col = found[len(found) // 2]
    return int(row), int(col), size

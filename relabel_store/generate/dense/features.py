"""Features of a model in one order, whatever the model's own: prefix tokens, cells, channels."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import torch
from torch import Tensor


class Axes(enum.Enum):
    """The order of the axes of a feature tensor, the batch being the first."""

    NCHW = "NCHW"
    NHWC = "NHWC"
    TOKENS = "tokens"


@dataclass(frozen=True)
class Layout:
    """Where prefix tokens, cells and channels are in a feature tensor."""

    axes: Axes
    grid: tuple[int, int]
    n_prefix: int = 0

    def split(self, features: Tensor) -> Features:
        """Return features of the model in our order."""
        if self.axes is Axes.NCHW:
            features = features.movedim(1, -1)
        tokens = features.flatten(1, -2)  # (n, n_prefix + n_rows * n_cols, c)
        return Features(tokens[:, : self.n_prefix], tokens[:, self.n_prefix :], self.grid)

    def join(self, features: Features) -> Tensor:
        """Return features in the order of the model; the inverse of `split`."""
        if self.axes is Axes.TOKENS:
            tokens = [features.prefix, features.cells]
            return torch.cat(tokens, dim=1) if self.n_prefix else features.cells
        n, _, width = features.cells.shape
        cells = features.cells.reshape(n, *features.grid, width)
        # Contiguous, because heads may use view().
        return cells.movedim(-1, 1).contiguous() if self.axes is Axes.NCHW else cells.contiguous()


@dataclass(frozen=True)
class Features:
    """Features in one order whatever the model's: prefix ``(n, n_prefix, c)``, cells ``(n, n_cells, c)``."""

    prefix: Tensor
    cells: Tensor
    grid: tuple[int, int]

    def one_cell_each(self) -> Features:
        """Return ``n * n_cells`` maps of one cell, each with the prefix tokens of its image."""
        n, n_cells, width = self.cells.shape
        prefix = self.prefix.repeat_interleave(n_cells, dim=0)
        return Features(prefix, self.cells.reshape(n * n_cells, 1, width), (1, 1))

    def mean_cell(self) -> Features:
        """Return maps of one cell, the mean of all."""
        return Features(self.prefix, self.cells.mean(dim=1, keepdim=True), (1, 1))

    def shuffled(self, generator: torch.Generator) -> Features:
        """Return the same cells in another order, the same for every image."""
        order = torch.randperm(self.cells.shape[1], generator=generator)
        return Features(self.prefix, self.cells[:, order.to(self.cells.device)], self.grid)

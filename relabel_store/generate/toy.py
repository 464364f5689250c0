"""A teacher that tells colours apart: no weights, no download, for tests and for trying a build."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from relabel_store.generate.build import build
from relabel_store.generate.build_report import BuildReport
from relabel_store.generate.precision import Precision
from relabel_store.generate.teacher import TeacherFacts, TeacherInput
from relabel_store.manifest import Classes, Weights

CELL = 32  # pixels a side
COLOURS = {
    "red": (1.0, -1.0, -1.0),
    "green": (-1.0, 1.0, -1.0),
    "blue": (-1.0, -1.0, 1.0),
    "yellow": (1.0, 1.0, -1.0),
    "white": (1.0, 1.0, 1.0),
    "black": (-1.0, -1.0, -1.0),
}


class ColourTeacher:
    """Scores the mean colour of each cell against six colours; every score is above 0.

    Parameters
    ----------
    grid
        ``(n_rows, n_cols)``; the input is 32 pixels a cell.
    offset
        Added to every score.
    """

    def __init__(self, grid: tuple[int, int] = (3, 3), offset: float = 10.0) -> None:
        self.facts = TeacherFacts(
            name="colours",
            input=TeacherInput((grid[0] * CELL, grid[1] * CELL), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
            num_classes=len(COLOURS),
            classes=Classes.of(None, list(COLOURS), "made up"),
            weights=Weights("made up", None),
            dense_kind="exact",
        )
        self._head = nn.Conv2d(3, len(COLOURS), 1)
        with torch.no_grad():
            self._head.weight.copy_(torch.tensor(list(COLOURS.values()))[:, :, None, None])
            self._head.bias.fill_(offset)  # type: ignore[union-attr]  # a Conv2d has a bias unless told otherwise

    def to(self, device: torch.device) -> None:
        """Move the weights to a device."""
        self._head.to(device)

    def dense_logits(self, images: Tensor, precision: Precision) -> Tensor:  # noqa: ARG002 - float32 whatever is asked
        """Return the score of each colour in each cell: float32 ``(n, 6, n_rows, n_cols)``."""
        with torch.no_grad():
            scores: Tensor = self._head(nn.functional.avg_pool2d(images, CELL))
        return scores

    def identity_error(self, images: Tensor) -> float:
        """Return how far the mean over the cells is from the score of the mean colour."""
        with torch.no_grad():
            own = self._head(images.mean(dim=(2, 3), keepdim=True))[:, :, 0, 0]
        difference = (self.dense_logits(images, Precision.FP32).mean(dim=(2, 3)) - own).abs().max()
        return float(difference / own.std())


def make_colour_teacher() -> ColourTeacher:
    """Return the teacher; on the command line ``--teacher relabel_store.generate.toy:make_colour_teacher``."""
    return ColourTeacher()


def build_colours(images: str | os.PathLike[str], out: str | os.PathLike[str], **options: Any) -> BuildReport:
    """Label images with a teacher of six colours, on the CPU, in parts of four images and batches of three.

    Parameters
    ----------
    options
        Of `relabel_store.build`, besides or instead of these.
    """
    usual = {
        "teacher": ColourTeacher(),
        "batch_size": 3,
        "shard_rows": 4,
        "top_k": 3,
        "workers": 0,
        "device": "cpu",
    }
    return build(images=images, out=out, **{**usual, **options})

"""Pictures that say where each of their pixels comes from; a small store and the images that it labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray
from torchvision.datasets import ImageFolder

from relabel_store.store.reader import LabelStore, open_store
from relabel_store.testing import make_sample_ids, make_store
from relabel_store.torch import CropBox

N_SAMPLES = 8
Picture = torch.Tensor | PIL.Image.Image


def paint(height: int, width: int) -> torch.Tensor:
    """Return float32 ``(3, height, width)``: x and y of each pixel's centre as fractions, and 1."""
    y, x = torch.meshgrid(
        (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
    )
    return torch.stack([x, y, torch.ones(height, width)])


def paint_pil(height: int, width: int) -> PIL.Image.Image:
    """Return the same as RGB of 8 bits: twice the column, twice the row, and 255."""
    rows, columns = np.indices((height, width))
    assert max(height, width) <= 128
    return PIL.Image.fromarray(
        np.stack([2 * columns, 2 * rows, np.full_like(rows, 255)], -1).astype(np.uint8)
    )


def errors(picture: Picture, box: CropBox, size: tuple[int, int]) -> NDArray[np.float64]:
    """Return how far each pixel that is no padding lies from where the box says, as fractions of the original."""
    if isinstance(picture, PIL.Image.Image):
        pixels = np.moveaxis(np.asarray(picture, dtype=np.float64), -1, 0)
        found_y, found_x = ((pixels[axis] / 2 + 0.5) / side for axis, side in zip((1, 0), size, strict=True))
        is_picture = pixels[2] == 255
    else:
        found_x, found_y = picture[0].double().numpy(), picture[1].double().numpy()
        is_picture = (picture[2] > 1 - 1e-6).numpy()
    height, width = found_x.shape
    assert box.canvas_size == (height, width)
    x0, y0, x1, y1 = box.tolist()
    across, down = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    across = 1 - across if box.is_hflipped else across
    down = 1 - down if box.is_vflipped else down
    off_x = np.abs(found_x - (x0 + (x1 - x0) * across)[None, :])
    off_y = np.abs(found_y - (y0 + (y1 - y0) * down)[:, None])
    return np.maximum(off_x, off_y)[is_picture]


@pytest.fixture(params=["tensor", "PIL"])
def painted(request: pytest.FixtureRequest) -> Callable[[int, int], Picture]:
    """Return pictures of coordinates, of either kind."""
    return paint if request.param == "tensor" else paint_pil


@pytest.fixture
def off() -> Callable[[Picture, CropBox, tuple[int, int]], NDArray[np.float64]]:
    """Return what measures how far a box is off."""
    return errors


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator) -> LabelStore:
    """Eight samples, 3 x 3 cells, the best 2 of 5 classes."""
    make_store(tmp_path / "labels.zarr", rng)
    return open_store(tmp_path / "labels.zarr")


@pytest.fixture
def image_root(tmp_path: Path, rng: np.random.Generator) -> Path:
    """The images of the store, resized to 40 x 30 pixels, each of its own colour."""
    root = tmp_path / "images"
    for sample_id in make_sample_ids(N_SAMPLES):
        path = root / f"{sample_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (40, 30), tuple(rng.integers(0, 256, 3).tolist())).save(path)
    return root


@pytest.fixture
def images(image_root: Path) -> ImageFolder:
    """The images as torchvision reads them."""
    return ImageFolder(image_root)

"""Pictures of made-up label maps, and what can be seen in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels from the lower left


def make_photo(width: int = 40, height: int = 30) -> Image.Image:
    ramp = np.add.outer(np.arange(height), np.arange(width)) % 256
    return Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2], axis=-1).astype(np.uint8))


def make_winners(n_rows: int, n_cols: int, n_classes: int) -> NDArray[np.intp]:
    """Return winners that change from cell to cell, class 0 the most frequent."""
    winners = 3 * np.add.outer(np.arange(n_rows) * 5, np.arange(n_cols)) % (2 * n_classes)
    return np.where(winners < n_classes, winners, 0)


@dataclass(frozen=True)
class Picture:
    """A figure of `draw_label_map`, and what is on it."""

    figure: Any

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width, height = self.figure.bbox.size
        return round(width), round(height)

    @property
    def texts(self) -> list[Any]:
        from matplotlib.text import Text

        return [one for one in self.figure.artists if isinstance(one, Text) and one.get_text()]

    @property
    def strings(self) -> list[str]:
        return [text.get_text() for text in self.texts]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """What is seen once it is drawn, ``(height, width, 3)``."""
        self.figure.canvas.draw()
        return np.asarray(self.figure.canvas.buffer_rgba())[..., :3].copy()

    @property
    def boxes(self) -> list[tuple[str, Box]]:
        """Each text with its extent."""
        renderer = self.figure.canvas.get_renderer()
        return [(text.get_text(), text.get_window_extent(renderer).extents) for text in self.texts]

    @property
    def panels(self) -> list[Box]:
        """The extents of the three panels and of the colour bar."""
        return [tuple(axes.get_window_extent().extents) for axes in self.figure.axes]


@pytest.fixture
def draw() -> Callable[..., Picture]:
    """Draw the map of some winning classes, or of a grid with so many; of a photo, or of one so wide and high."""
    pytest.importorskip("matplotlib")
    from relabel_store.inspect.picture import draw_label_map

    def draw_it(
        winners: Any = None,
        *,
        grid: tuple[int, int] = (7, 7),
        n_classes: int = 12,
        photo: Image.Image | tuple[int, int] = (40, 30),
        k: int = 2,
        num_classes: int = 1000,
        value: float = 8.0,
        **others: Any,
    ) -> Picture:
        winners = make_winners(*grid, n_classes) if winners is None else np.asarray(winners)
        indices = (winners + np.arange(k)[:, None, None]) % num_classes
        values = np.broadcast_to(value - np.arange(k)[:, None, None], indices.shape)
        usual: dict[str, Any] = {"title": "n01440764/n01440764_0001", "subtitle": "a teacher · a dataset"}
        figure = draw_label_map(
            make_photo(*photo) if isinstance(photo, tuple) else photo,
            indices.astype(np.uint16),
            values.astype(np.float16),
            num_classes=num_classes,
            **usual | others,
        )
        return Picture(figure)

    return draw_it


@pytest.fixture
def png_of(draw: Callable[..., Picture]) -> Callable[..., bytes]:
    """Draw into a file of a folder; return its bytes."""
    from relabel_store.inspect.png import save_picture

    def draw_into(folder: Path, name: str = "a.png", **options: Any) -> bytes:
        save_picture(draw(**options).figure, folder / name)
        return (folder / name).read_bytes()

    return draw_into

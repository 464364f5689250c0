from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from relabel_store.errors import FormatError

pytest.importorskip("matplotlib")

from matplotlib import colormaps

from relabel_store.inspect.picture import draw_label_map

Draw = Callable[..., Any]


def test_each_class_has_one_colour_that_the_others_lack(draw: Draw) -> None:
    winners = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1], [2, 3, 4, 5], [6, 7, 0, 1]])
    photo = Image.new("RGB", (400, 300), "white")
    picture = draw(winners, photo=photo)
    pixels = picture.pixels
    x0, y0, x1, y1 = picture.panels[1]
    colours: dict[int, set[tuple[int, ...]]] = {}
    for (row, col), winner in np.ndenumerate(winners):
        # A quarter into the cell: its centre may hold a number.
        x = int(x0 + (col + 0.25) * (x1 - x0) / 4)
        y = int(len(pixels) - y1 + (row + 0.25) * (y1 - y0) / 5)
        colours.setdefault(min(int(winner), 8), set()).add(tuple(pixels[y, x].tolist()))
    assert all(len(found) == 1 for found in colours.values())
    assert len({colour for found in colours.values() for colour in found}) == 9
    (grey,) = colours[8]
    assert max(grey) - min(grey) <= 1
    assert grey[0] == pytest.approx(0.45 * 0x8C + 0.55 * 255, abs=1)


def test_confidence_has_the_same_colours_in_every_picture(draw: Draw) -> None:
    for value in (0.0, 4.0, 9.0):
        picture = draw([[0, 1]], k=1, num_classes=50, value=value)
        confidence = np.exp(value) / (np.exp(value) + 49)
        x0, y0, x1, y1 = picture.panels[2]
        pixels = picture.pixels
        found = pixels[int(len(pixels) - (y0 + y1) / 2), int((x0 + x1) / 2)]
        expected = 255 * np.array(colormaps["viridis"](confidence)[:3])
        np.testing.assert_allclose(found, expected, atol=1)
        assert f"mean {confidence:.2f}" in picture.strings


def test_rest_lowers_the_confidence(draw: Draw) -> None:
    rest = np.full((1, 1), 4.0, dtype=np.float16)
    assert "mean 0.50" in draw([[0]], k=1, num_classes=50, value=4.0, rest=rest).strings


def test_photo_is_drawn_in_its_own_colours(draw: Draw) -> None:
    picture = draw([[0]], photo=Image.new("RGB", (40, 30), (10, 200, 90)))
    x0, _, x1, y1 = picture.panels[0]
    pixels = picture.pixels
    assert pixels[len(pixels) - int(y1) + 20, int((x0 + x1) / 2)].tolist() == [10, 200, 90]


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK"])
def test_photos_of_other_modes_are_drawn(draw: Draw, mode: str) -> None:
    photo = Image.new("RGB", (40, 30), (10, 200, 90)).convert(mode)
    assert draw([[0, 1]], photo=photo).pixels.shape[1] == 1600


def test_white_photo_makes_no_colour_overflow(draw: Draw, caplog: pytest.LogCaptureFixture) -> None:
    photo = Image.new("RGB", (40, 30), "white")
    assert draw(grid=(5, 5), photo=photo).pixels.any()
    assert not caplog.records


def test_damaged_map_is_refused() -> None:
    with pytest.raises(FormatError, match="class index 5, expected 0 to 4"):
        draw_label_map(
            Image.new("RGB", (9, 9)), np.full((1, 1, 1), 5), np.ones((1, 1, 1)), num_classes=5, title="a"
        )

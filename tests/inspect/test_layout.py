from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

Draw = Callable[..., Any]
PANEL_TITLES = {"Photo", "Winning class", "Confidence"}


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    # A pixel of slack: extents are those of the font, ink is smaller.
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width > 1 and height > 1


SHAPES = {
    "landscape": ((40, 30), (15, 15)),
    "square": ((30, 30), (15, 15)),
    "portrait": ((30, 40), (15, 15)),
    "portrait-keys-as-close-as-they-get": ((30, 40), (17, 17)),
    "wide": ((400, 40), (15, 15)),
    "wider": ((4000, 4), (15, 15)),
    "tall": ((40, 400), (15, 15)),
    "taller": ((4, 4000), (15, 15)),
    "one-pixel": ((1, 1), (7, 7)),
    "one-cell": ((40, 30), (1, 1)),
    "more-rows": ((40, 30), (20, 3)),
    "more-columns": ((40, 30), (3, 20)),
    "more-cells-than-pixels": ((400, 40), (200, 60)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_classes", [1, 2, 8, 9, 30])
def test_nothing_overlaps_or_leaves_the_picture(
    draw: Draw, shape: str, n_classes: int, caplog: pytest.LogCaptureFixture
) -> None:
    photo_size, grid = SHAPES[shape]
    names = [f"American Staffordshire terrier of the {i}th kind, pit bull" for i in range(1000)]
    picture = draw(grid=grid, n_classes=n_classes, photo=photo_size, class_names=names, title="W" * 300)
    width, height = picture.size
    if n_classes == 9:  # as many as there are colours; the others take as long and show nothing new
        assert picture.pixels.shape == (height, width, 3)
    assert width == 1600
    assert 300 < height < 1800
    boxes = picture.boxes
    assert {name for name, _ in boxes} >= PANEL_TITLES
    for _, (x0, y0, x1, y1) in boxes:
        assert x0 >= 40
        assert y0 >= 30
        assert x1 <= width - 40
        assert y1 <= height - 30
    for one, other in itertools.combinations(boxes, 2):
        assert not overlap(one[1], other[1]), (one, other)
    for one_panel, other_panel in itertools.combinations(picture.panels, 2):
        assert not overlap(one_panel, other_panel)
    for (name, box), panel in itertools.product(boxes, picture.panels):
        assert name in "12345678" or not overlap(box, panel)
    assert not caplog.records


def test_three_panels_have_the_shape_of_the_photo(draw: Draw) -> None:
    for size in ((40, 30), (30, 40), (80, 20)):
        picture = draw(grid=(3, 3), n_classes=4, photo=size)
        panels = picture.panels[:3]
        sizes = {(round(x1 - x0), round(y1 - y0)) for x0, y0, x1, y1 in panels}
        assert len(sizes) == 1
        width, height = sizes.pop()
        assert width / height == pytest.approx(size[0] / size[1], rel=0.01)


def test_without_subtitle_the_picture_is_lower(draw: Draw) -> None:
    assert draw([[0]], subtitle="").size[1] < draw([[0]]).size[1]

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from relabel_store.errors import BoxError
from relabel_store.labels.boxes import boxes_from_ijhw, middle_square, require_boxes


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ([0.5, 0.1, 0.2, 0.9], "x0 < x1"),
        ([0.1, 0.5, 0.9, 0.5], "y0 < y1"),
        ([0.1, 0.5, 0.9, np.nan], "finite"),
        ([0.1, -np.inf, 0.9, 1], "finite"),
        ([10, 20, 200, 180], "not pixels"),
        ([-2.5, 0, 0.5, 1], "not pixels"),
    ],
    ids=["mirrored", "flat", "nan", "infinite", "pixels", "far left"],
)
def test_a_box_that_cannot_be_is_named(box: Any, said: str) -> None:
    with pytest.raises(BoxError, match=f"crop box 1 .*{said}"):
        require_boxes([[0, 0, 1, 1], box])


@pytest.mark.parametrize(
    "boxes", [np.zeros(4), np.zeros((2, 3)), np.array([["a"] * 4])], ids=["1-d", "3", "text"]
)
def test_another_shape_is_refused(boxes: Any) -> None:
    with pytest.raises(BoxError, match=r"expected numbers \(n, 4\)"):
        require_boxes(boxes)


def test_boxes_may_leave_the_image() -> None:
    boxes = require_boxes([[-0.5, -0.25, 1.5, 1.25]])
    assert boxes.dtype == np.float32
    np.testing.assert_array_equal(boxes, [[-0.5, -0.25, 1.5, 1.25]])


def test_no_boxes_are_no_boxes() -> None:
    assert require_boxes(np.zeros((0, 4))).shape == (0, 4)


def test_top_left_height_width_become_fractions() -> None:
    boxes = boxes_from_ijhw([[75, 100, 150, 200]], (375, 500))
    np.testing.assert_allclose(boxes, [[0.2, 0.2, 0.6, 0.6]], atol=1e-7)


def test_every_image_has_its_own_size() -> None:
    boxes = boxes_from_ijhw([[0, 0, 10, 10], [0, 0, 10, 10]], [[20, 40], [10, 10]])
    np.testing.assert_allclose(boxes, [[0, 0, 0.25, 0.5], [0, 0, 1, 1]], atol=1e-7)


@pytest.mark.parametrize(
    ("size", "box"), [((500, 375), (62, 0, 437, 375)), ((3, 8), (0, 2, 3, 5)), ((4, 4), (0, 0, 4, 4))]
)
def test_the_middle_square_is_the_largest(size, box) -> None:
    assert middle_square(*size) == box

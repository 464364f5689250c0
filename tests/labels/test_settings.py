from __future__ import annotations

import numpy as np
import pytest

from relabel_store.labels.boxes import MAX_EDGE
from relabel_store.labels.pooling import soft_targets
from relabel_store.labels.settings import most_points, require_selection, require_settings, require_shapes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 0}, "num_classes: 0, expected at least 1"),
        ({"output_size": (0, 1)}, r"output_size: \(0, 1\), expected two sizes of at least 1"),
        ({"output_size": (1, 1, 1)}, r"output_size: \(1, 1, 1\), expected two sizes"),
        ({"temperature": 0.0}, "temperature: 0.0, expected a positive number"),
        ({"temperature": float("nan")}, "temperature: nan, expected a positive number"),
        ({"temperature": float("inf")}, "temperature: inf, expected a positive number"),
    ],
    ids=["no classes", "no rows", "three sizes", "temperature 0", "NaN", "infinite"],
)
def test_a_setting_out_of_range_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_settings(**{"num_classes": 3, **settings})  # type: ignore[arg-type]


def test_sizes_come_back_as_integers() -> None:
    sizes = require_settings(3, (np.int64(2), np.int64(3)))  # type: ignore[arg-type]
    assert (sizes, {type(size) for size in sizes}) == ((2, 3), {int})


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "expected at least one, each from 0 to 4"),
        ([0, 5], "expected at least one, each from 0 to 4"),
        ([-1], "expected at least one, each from 0 to 4"),
        ([1, 2, 1], "one is named twice"),
    ],
    ids=["none", "too large", "negative", "twice"],
)
def test_a_selection_that_cannot_be_is_refused(classes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_selection(classes, 5)
    maps = np.zeros((1, 1, 1, 1), np.uint16)
    with pytest.raises(ValueError, match=message):
        soft_targets(maps, maps.astype(np.float32), [[0, 0, 1, 1]], num_classes=5, classes=classes)


def test_a_selection_keeps_its_order() -> None:
    assert require_selection((4, 0, 2), 5).tolist() == [4, 0, 2]


MAPS = (3, 2, 4, 5)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"values": (3, 2, 4, 4)}, r"values \(3, 2, 4, 4\), expected both \(n, k, n_rows, n_cols\)"),
        ({"indices": (2, 4, 5), "values": (2, 4, 5)}, r"indices \(2, 4, 5\)"),
        ({"boxes_xyxy": (2, 4)}, r"crop boxes: \(2, 4\), expected \(3, 4\)"),
        ({"boxes_xyxy": (4,)}, r"crop boxes: \(4,\), expected \(3, 4\)"),
        ({"rest": (3, 5, 4)}, r"rest: \(3, 5, 4\), expected \(3, 4, 5\)"),
    ],
    ids=["values", "no batch", "other batch", "one box", "rest"],
)
def test_shapes_that_do_not_fit_are_refused(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    fitting = {"indices": MAPS, "values": MAPS, "boxes_xyxy": (3, 4), "rest": (3, 4, 5)}
    require_shapes(**fitting)
    with pytest.raises(ValueError, match=message):
        require_shapes(**{**fitting, **shapes})


def test_a_size_that_is_not_known_yet_fits_any() -> None:
    require_shapes((None, 2, 4, 5), (3, 2, 4, 5), (None, 4))


@pytest.mark.parametrize(("n_cells", "n_bins"), [(15, 1), (15, 14), (1, 3), (7, 2)])
def test_the_widest_legal_box_has_most_points(n_cells: int, n_bins: int) -> None:
    widest = np.float32(MAX_EDGE * n_cells - 0.5) - np.float32(-MAX_EDGE * n_cells - 0.5)
    assert most_points(n_cells, n_bins) == np.ceil(widest / n_bins)

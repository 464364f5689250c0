from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Draw = Callable[..., Any]


def test_legend_names_eight_classes_by_area_and_counts_the_others(draw: Draw) -> None:
    winners = np.repeat(np.arange(100, 112), np.arange(12, 0, -1))  # class 100 in 12 cells, 111 in 1
    picture = draw(winners.reshape(6, 13))
    strings = picture.strings
    names = [string for string in strings if string.startswith("class ")]
    assert names == [f"class {index}" for index in range(100, 108)]
    assert "4 other classes" in strings
    assert [string for string in strings if string.endswith(" %")] == [
        f"{share} %" for share in (15, 14, 13, 12, 10, 9, 8, 6, 13)
    ]


def test_one_class_more_than_named_is_counted_in_the_singular(draw: Draw) -> None:
    assert "1 other class" in draw(np.arange(9).reshape(3, 3)).strings


def test_names_are_cut_to_the_first_synonym(draw: Draw) -> None:
    names = ["electric ray, crampfish, numbfish, torpedo", " ", ""]
    picture = draw([[0, 1, 2]], num_classes=3, class_names=names)
    assert {"electric ray", "class 1", "class 2"} <= set(picture.strings)


def test_equal_names_are_told_apart_by_class_index(draw: Draw) -> None:
    names = ["crane, bird", "tench", "crane"]
    picture = draw([[0, 1, 2]], num_classes=3, class_names=names)
    assert {"crane (0)", "crane (2)", "tench"} <= set(picture.strings)


@pytest.mark.parametrize(
    ("n_cells", "shares"),
    [
        pytest.param((225,), ["100 %"], id="all"),
        pytest.param((224, 1), [">99 %", "<1 %"], id="nearly-all"),
        pytest.param((150, 75), ["67 %", "33 %"], id="thirds"),
    ],
)
def test_shares_are_whole_percent_and_never_round_to_none_or_all(
    draw: Draw, n_cells: tuple[int, ...], shares: list[str]
) -> None:
    winners = np.repeat(np.arange(len(n_cells)), n_cells).reshape(15, 15)
    strings = draw(winners, num_classes=2, k=1).strings
    assert [string for string in strings if string.endswith("%")] == shares

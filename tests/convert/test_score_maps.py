from __future__ import annotations

import numpy as np
import pytest

from relabel_store.convert.score_maps import negative_fraction, reasons_against, require_logits
from relabel_store.errors import LabelSourceError
from relabel_store.labels.values import ValueStep

STEP = ValueStep(0.125)


@pytest.fixture
def maps(rng: np.random.Generator):
    indices = np.argsort(rng.random((4, 20, 2, 3)), axis=1)[:, :3].astype(np.float32)
    return indices, rng.normal(3, 2, indices.shape).astype(np.float32)


def reasons(maps, dtype: str = "float32", num_classes: int = 20, step: ValueStep = STEP):
    return reasons_against(*maps, [dtype] * len(maps[0]), num_classes=num_classes, value_step=step)


def test_sound_maps_have_nothing_against_them(maps) -> None:
    assert reasons(maps) == [None] * 4


@pytest.mark.parametrize(
    ("plane", "value", "reason"),
    [
        (1, np.nan, "its scores hold NaN or infinity"),
        (1, -np.inf, "its scores hold NaN or infinity"),
        (0, np.nan, "its class indices hold NaN or infinity"),
        (0, np.inf, "its class indices hold NaN or infinity"),
        (0, 1.5, "its class indices are no whole numbers from 0 up"),
        (0, -1, "its class indices are no whole numbers from 0 up"),
        (1, 256.5, "a score past 256, which value step 0.125 cannot hold; try --value-step exact"),
    ],
)
def test_what_is_wrong_with_a_map_is_said_of_it_alone(maps, plane: int, value: float, reason: str) -> None:
    maps[plane][2, 1, 0, 1] = value
    assert reasons(maps) == [None, None, reason, None]


def test_a_class_that_is_twice_in_a_cell_is_found(maps) -> None:
    maps[0][3, 0, 1, 2] = maps[0][3, 2, 1, 2]
    assert reasons(maps) == [None, None, None, "a class is twice in a cell"]


@pytest.mark.parametrize(
    ("dtype", "index", "num_classes", "reason"),
    [
        ("float32", 20, 20, "class index 20, expected less than 20, .*give --num-classes"),
        ("float16", 2048, 21_841, "2048 as float16, expected less than 2048: past it float16 cannot tell"),
        ("bfloat16", 256, 1000, "256 as bfloat16"),
        ("float16", 2048, 1000, "2048 as float16"),
    ],
)
def test_classes_that_cannot_be_are_refused_for_all(maps, dtype, index, num_classes, reason) -> None:
    maps[0][1, 0, 0, 0] = index
    with pytest.raises(LabelSourceError, match=reason):
        reasons(maps, dtype, num_classes)


def test_a_large_class_of_a_damaged_map_says_nothing_of_the_others(maps) -> None:
    maps[0][1, 0, 0, 0], maps[1][1] = 999, np.nan
    assert reasons(maps) == [None, "its scores hold NaN or infinity", None, None]


def test_classes_below_what_a_dtype_can_name_are_fine(maps) -> None:
    maps[0][0, 0, 0, 0] = 2047
    assert reasons(maps, "float16", 21_841) == [None] * 4


def test_probabilities_are_refused_and_logits_are_not(maps) -> None:
    scores = np.exp(maps[1]) / (np.exp(maps[1]).sum(axis=1, keepdims=True) + 0.1)
    with pytest.raises(LabelSourceError, match="so probabilities, expected scores before softmax"):
        require_logits(scores)
    require_logits(maps[1])
    require_logits(np.clip(scores + 0.5, 0, 1))  # within 0 and 1, but adding up to more
    require_logits(scores[:0])


def test_the_share_of_negative_scores_is_counted() -> None:
    assert negative_fraction(np.array([[-1.0, 0.0], [2.0, -0.5]])) == 0.5
    assert negative_fraction(np.zeros((0, 1))) == 0

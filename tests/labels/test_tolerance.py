from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel_store.labels.tolerance import MapDifference, Tolerance, compare_maps
from relabel_store.labels.topk import top_k

EXACT = Tolerance(0.0, 0.1)
Map = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def make_map(rng: np.random.Generator, classes: int = 9, k: int = 3, side: int = 4) -> tuple[np.ndarray, Map]:
    """Return dense scores, and the map of their best classes with the rest."""
    scores = rng.normal(5, 3, (classes, side, side)).astype(np.float32)
    return scores, of_scores(scores, k)


def of_scores(scores: np.ndarray, k: int = 3) -> Map:
    indices, values = top_k(scores[None], k)
    left = np.exp(scores.astype(np.float64))
    np.put_along_axis(left, indices[0].astype(np.int64), 0, axis=0)
    with np.errstate(divide="ignore"):  # where every class is kept nothing is left
        return indices[0], values[0], np.log(left.sum(axis=0))


def compare(stored: Map, made: Map, tolerance: Tolerance = EXACT) -> MapDifference:
    return compare_maps(stored, made, num_classes=9, tolerance=tolerance)


def test_a_map_is_its_own(rng: np.random.Generator) -> None:
    _, made = make_map(rng)
    difference = compare(made, made)
    assert (difference.cells, difference.of, difference.largest, difference.is_other) == (0, 16, 0.0, False)


def test_noise_below_the_tolerance_is_forgiven_also_where_it_exchanges_classes(
    rng: np.random.Generator,
) -> None:
    scores, made = make_map(rng)
    scores[0] = made[1][-1] - 0.01  # near the last one kept, in every cell
    noisy = scores + rng.uniform(-0.04, 0.04, scores.shape).astype(np.float32)
    stored = of_scores(noisy)
    assert (np.sort(stored[0], axis=0) != np.sort(made[0], axis=0)).any()
    assert compare((*stored[:2], None), (*of_scores(scores)[:2], None)).cells == 0


def test_the_map_of_another_image_is_another(rng: np.random.Generator) -> None:
    assert compare(make_map(rng)[1], make_map(rng)[1]).is_other


def test_one_cell_that_is_far_off_is_enough_where_a_near_one_is_not(rng: np.random.Generator) -> None:
    scores = rng.normal(5, 3, (9, 15, 15)).astype(np.float32)
    made = of_scores(scores)
    for shift, is_other in ((0.15, False), (5.0, True)):
        values = made[1].copy()
        values[0, 3, 3] += shift
        difference = compare((made[0], values, made[2]), made)
        assert (difference.cells, difference.is_other) == (1, is_other)
        assert difference.largest == pytest.approx(shift, abs=1e-4)


def test_the_rest_counts_where_the_classes_are_the_same(rng: np.random.Generator) -> None:
    _, made = make_map(rng)
    assert made[2] is not None
    assert compare((made[0], made[1], made[2] + 1), made).cells == 16
    nothing = np.full_like(made[2], -np.inf)  # every class is kept
    assert compare((made[0], made[1], nothing), (made[0], made[1], nothing)).cells == 0


def test_the_tolerance_grows_with_the_arithmetic_and_the_step() -> None:
    tolerances = [
        Tolerance.of("fp32", "cpu", "exact"),
        Tolerance.of("fp32", "cpu", 0.125),
        Tolerance.of("fp32", "cuda", 0.125),
        Tolerance.of("bf16", "cuda", 0.125),
    ]
    allowed = [tolerance.within(np.array([-20.0, 10.0])) for tolerance in tolerances]
    assert allowed == sorted(allowed)
    assert allowed[0] < 0.02
    assert 0.0625 < allowed[1] < 0.08


def slow_differences(stored: Map, made: Map) -> list[float]:
    """Return the largest difference of each cell, class by class."""
    found = []
    for row in range(stored[0].shape[1]):
        for col in range(stored[0].shape[2]):
            one, other = (
                dict(zip(kept[0][:, row, col].tolist(), kept[1][:, row, col].tolist(), strict=True))
                for kept in (stored, made)
            )
            worst = 0.0
            for mine, yours in ((one, other), (other, one)):
                for of, value in mine.items():
                    worst = max(worst, abs(value - yours[of]) if of in yours else value - min(yours.values()))
            found.append(worst)
    return found


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(0, 3))
@settings(max_examples=50)
def test_cells_are_counted_as_class_by_class(seed: int, k: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(5, 3, (9, 3, 3))
    stored, made = of_scores(scores + rng.normal(0, noise, scores.shape), k), of_scores(scores, k)
    expected = slow_differences(stored, made)
    difference = compare((*stored[:2], None), (*made[:2], None))
    assert difference.cells == sum(one > 0.1 for one in expected)
    assert difference.largest == pytest.approx(max(expected))

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from relabel_store.labels.topk import has_repeated_classes, is_sorted, sort_ranks, top_k


def loop_top_k(scores: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
    n, num_classes, n_rows, n_cols = scores.shape
    indices = np.empty((n, k, n_rows, n_cols), np.int64)
    values = np.empty((n, k, n_rows, n_cols), scores.dtype)
    for sample in range(n):
        for row in range(n_rows):
            for col in range(n_cols):
                cell = scores[sample, :, row, col]
                best = sorted(range(num_classes), key=lambda index: (-cell[index], index))[:k]
                indices[sample, :, row, col] = best
                values[sample, :, row, col] = [cell[index] for index in best]
    return indices, values


def loop_sort(indices: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    sorted_indices, sorted_values = indices.copy(), values.copy()
    n, _, n_rows, n_cols = indices.shape
    for sample in range(n):
        for row in range(n_rows):
            for col in range(n_cols):
                at = (sample, slice(None), row, col)
                pairs = sorted(zip(-values[at], indices[at], strict=True))
                sorted_values[at] = [-value for value, _ in pairs]
                sorted_indices[at] = [index for _, index in pairs]
    return sorted_indices, sorted_values


@st.composite
def unsorted_ranks(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[Any]]:
    """Distinct classes in any order with values on a coarse step, so that many of them tie."""
    n, k, n_rows, n_cols = (draw(st.integers(1, most)) for most in (3, 5, 3, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cells = n * n_rows * n_cols
    indices = np.stack([rng.permutation(k + 3)[:k] for _ in range(cells)])
    values = rng.integers(-2, 3, (cells, k)) / 8
    shape = (n, n_rows, n_cols, k)
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    return (
        indices.reshape(shape).transpose(0, 3, 1, 2).astype(np.uint16),
        values.reshape(shape).transpose(0, 3, 1, 2).astype(dtype),
    )


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3)),
    data=st.data(),
)
def test_top_k_is_what_a_plain_loop_finds(seed: int, shape: tuple[int, ...], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, shape[1]))
    scores = np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)  # few values: many ties
    found, expected = top_k(scores, k), loop_top_k(scores, k)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_top_k_keeps_the_lower_class_of_equal_scores() -> None:
    scores = np.array([1.0, 3.0, 3.0, 3.0], np.float32).reshape(1, 4, 1, 1)
    assert top_k(scores, 2)[0].ravel().tolist() == [1, 2]


def test_top_k_of_all_classes_keeps_every_class(rng: np.random.Generator) -> None:
    indices, _ = top_k(rng.normal(size=(2, 5, 3, 3)), 5)
    assert np.all(np.sort(indices, axis=1) == np.arange(5)[:, None, None])


def test_top_k_leaves_the_dtype_of_the_scores(rng: np.random.Generator) -> None:
    assert top_k(rng.normal(size=(1, 5, 3, 3)).astype(np.float32), 2)[1].dtype == np.float32


@pytest.mark.parametrize("k", [0, -1, 6], ids=["none", "negative", "more than classes"])
def test_top_k_refuses_a_k_that_no_cell_has(rng: np.random.Generator, k: int) -> None:
    with pytest.raises(ValueError, match=rf"k: {k}, expected 1 to 5"):
        top_k(rng.normal(size=(1, 5, 3, 3)), k)


@given(unsorted_ranks())
def test_sorted_ranks_fall_in_value_and_rise_in_class_where_values_tie(
    ranks: tuple[NDArray[Any], NDArray[Any]],
) -> None:
    found, expected = sort_ranks(*ranks), loop_sort(*ranks)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@given(unsorted_ranks())
def test_sorting_twice_is_sorting_once(ranks: tuple[NDArray[Any], NDArray[Any]]) -> None:
    once = sort_ranks(*ranks)
    twice = sort_ranks(*once)
    np.testing.assert_array_equal(twice[0], once[0])
    np.testing.assert_array_equal(twice[1], once[1])


@given(unsorted_ranks())
def test_sorting_keeps_each_class_with_its_value(ranks: tuple[NDArray[Any], NDArray[Any]]) -> None:
    indices, values = sort_ranks(*ranks)
    before = np.sort(ranks[0] + 1j * ranks[1], axis=1)
    np.testing.assert_array_equal(np.sort(indices + 1j * values, axis=1), before)


@given(unsorted_ranks())
def test_what_was_sorted_is_sorted(ranks: tuple[NDArray[Any], NDArray[Any]]) -> None:
    assert is_sorted(*sort_ranks(*ranks)).all()


def test_sorting_leaves_its_arguments_alone(rng: np.random.Generator) -> None:
    indices = rng.permutation(8).astype(np.uint16).reshape(1, 8, 1, 1)
    values = rng.normal(size=(1, 8, 1, 1)).astype(np.float16)
    before = indices.copy(), values.copy()
    sort_ranks(indices, values)
    np.testing.assert_array_equal(indices, before[0])
    np.testing.assert_array_equal(values, before[1])


def test_sorting_leaves_the_dtypes_alone(rng: np.random.Generator) -> None:
    indices, values = sort_ranks(
        np.array([2, 1], np.uint16).reshape(1, 2, 1, 1), np.array([1, 2], np.float16).reshape(1, 2, 1, 1)
    )
    assert (indices.dtype, values.dtype) == (np.uint16, np.float16)


SOUND = [(4, 2.0), (1, 1.0), (3, 1.0)]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        pytest.param(SOUND, True, id="in order"),
        pytest.param([(4, 1.0), (1, 2.0), (3, 0.0)], False, id="rising value"),
        pytest.param([(4, 2.0), (3, 1.0), (1, 1.0)], False, id="falling class where values tie"),
        pytest.param([(4, 2.0), (1, 1.0), (1, 1.0)], False, id="same class twice"),
        pytest.param([(4, 2.0), (1, float("nan")), (3, 1.0)], False, id="not a number"),
        pytest.param([(1, 0.0), (3, -0.0), (4, -1.0)], True, id="both zeros are one value"),
    ],
)
def test_order_is_told_from_disorder(pairs: list[tuple[int, float]], expected: bool) -> None:
    indices = np.array([index for index, _ in pairs], np.uint16).reshape(1, 3, 1, 1)
    values = np.array([value for _, value in pairs], np.float16).reshape(1, 3, 1, 1)
    assert is_sorted(indices, values).tolist() == [expected]


def test_one_cell_out_of_order_condemns_its_sample_only() -> None:
    indices = np.tile(np.array([0, 1], np.uint16)[None, :, None, None], (3, 1, 2, 2))
    values = np.zeros((3, 2, 2, 2), np.float16)
    indices[1, :, 1, 0] = [1, 0]
    assert is_sorted(indices, values).tolist() == [True, False, True]


def test_a_single_rank_is_always_in_order(rng: np.random.Generator) -> None:
    indices = rng.integers(0, 5, (3, 1, 2, 2)).astype(np.uint16)
    assert is_sorted(indices, rng.normal(size=(3, 1, 2, 2))).tolist() == [True] * 3


@settings(max_examples=60)
@given(
    dtype=st.sampled_from([np.uint16, np.uint32]),
    step=st.sampled_from([0.125, 1.0, None]),
    has_negative_zero=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_ranks_as_stored_are_sorted_as_two_keys_are(dtype, step, has_negative_zero: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    indices = rng.permuted(np.tile(np.arange(7) * 9000, (4, 2, 3, 1)), axis=-1).transpose(0, 3, 1, 2)
    indices = indices.astype(dtype) + (np.iinfo(dtype).max - 54_000 if rng.random() < 0.5 else 0)
    scores = rng.normal(0, 2, indices.shape)
    values = (scores if step is None else np.rint(scores / step) * step + 0.0).astype(np.float16)
    values[0, 0, 0, 0] = -0.0 if has_negative_zero else 65504
    values[0, 1, 0, 0], values[0, 2, 0, 0] = 0, -65504
    order = np.lexsort((indices, -values.astype(np.float32)), axis=1)
    found = sort_ranks(indices, values)
    np.testing.assert_array_equal(found[0], np.take_along_axis(indices, order, axis=1))
    expected = np.take_along_axis(values, order, axis=1)
    np.testing.assert_array_equal(found[1].view(np.uint16), expected.view(np.uint16))
    assert (found[0].dtype, found[1].dtype) == (dtype, np.float16)


@settings(max_examples=60)
@given(
    k=st.integers(1, 20),
    dtype=st.sampled_from([np.uint16, np.uint32, np.float32]),
    seed=st.integers(0, 2**16),
)
def test_classes_that_are_twice_in_a_cell_are_found(k: int, dtype, seed: int) -> None:
    rng = np.random.default_rng(seed)
    indices = (
        rng.permuted(np.tile(np.arange(30), (5, 2, 3, 1)), axis=-1).transpose(0, 3, 1, 2)[:, :k].astype(dtype)
    )
    for sample in range(3) if k > 1 else ():
        one, other = rng.choice(k, 2, replace=False)
        indices[sample, one, 1, 2] = indices[sample, other, 1, 2]
    expected = [any(len(set(cell)) < k for cell in sample.reshape(k, -1).T.tolist()) for sample in indices]
    assert has_repeated_classes(indices).tolist() == expected


@settings(max_examples=60)
@given(is_half=st.booleans(), seed=st.integers(0, 2**16))
def test_order_is_told_cell_by_cell(is_half: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (6, 3, 1, 2)
    indices = rng.integers(0, 4, shape).astype(np.uint16)
    values = rng.choice([-2.0, -0.0, 0.0, 1.0, np.inf, np.nan], shape).astype(
        np.float16 if is_half else np.float32
    )
    indices[:2], values[:2] = sort_ranks(*top_k(rng.normal(0, 1, (2, 5, 1, 2)).astype(values.dtype), 3))
    expected = [
        all(
            v[rank, 0, cell] > v[rank + 1, 0, cell]
            or (v[rank, 0, cell] == v[rank + 1, 0, cell] and i[rank, 0, cell] < i[rank + 1, 0, cell])
            for cell in range(2)
            for rank in range(2)
        )
        for v, i in zip(values, indices, strict=True)
    ]
    assert is_sorted(indices, values).tolist() == expected

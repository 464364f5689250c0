from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from relabel_store.labels.pooling import pool_image
from relabel_store.labels.topk import top_k


def loop_pool(indices: NDArray[Any], values: NDArray[Any], rest: Any, num_classes: int) -> NDArray[Any]:
    """The dense map of each sample, then its mean over the cells."""
    n, k, n_rows, n_cols = indices.shape
    pooled = np.zeros((n, num_classes))
    for sample in range(n):
        dense = np.zeros((num_classes, n_rows, n_cols))
        for row in range(n_rows):
            for col in range(n_cols):
                if rest is not None and k < num_classes:
                    dense[:, row, col] = float(rest[sample, row, col]) - math.log(num_classes - k)
                for rank in range(k):
                    dense[indices[sample, rank, row, col], row, col] = values[sample, rank, row, col]
        pooled[sample] = dense.mean(axis=(1, 2))
    return pooled


@st.composite
def label_maps(draw: st.DrawFn, *, with_rest: bool) -> tuple[NDArray[Any], NDArray[Any], Any, int]:
    num_classes = draw(st.integers(1, 7))
    k = draw(st.integers(1, num_classes))
    n, n_rows, n_cols = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    indices, values = top_k(rng.normal(3, 4, (n, num_classes, n_rows, n_cols)).astype(np.float32), k)
    rest = rng.normal(0, 2, (n, n_rows, n_cols)).astype(np.float16) if with_rest else None
    return indices.astype(np.uint16), values.astype(np.float16), rest, num_classes


@settings(deadline=None)
@given(label_maps(with_rest=False))
def test_absent_classes_count_as_zero(case: tuple[NDArray[Any], NDArray[Any], Any, int]) -> None:
    indices, values, _, num_classes = case
    pooled = pool_image(indices, values, num_classes=num_classes)
    np.testing.assert_allclose(pooled, loop_pool(indices, values, None, num_classes), rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(label_maps(with_rest=True))
def test_absent_classes_share_the_rest_evenly(case: tuple[NDArray[Any], NDArray[Any], Any, int]) -> None:
    indices, values, rest, num_classes = case
    pooled = pool_image(indices, values, num_classes=num_classes, rest=rest)
    np.testing.assert_allclose(pooled, loop_pool(indices, values, rest, num_classes), rtol=1e-6, atol=1e-6)


def test_nothing_is_shared_where_every_class_is_kept(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(2, 4, 3, 3)).astype(np.float32)
    indices, values = top_k(scores, 4)
    rest = np.full((2, 3, 3), -np.inf, np.float16)  # the log of no share at all
    pooled = pool_image(indices, values, num_classes=4, rest=rest)
    np.testing.assert_allclose(pooled, scores.mean(axis=(2, 3)), rtol=1e-6)


def test_pooling_all_classes_is_the_mean_of_the_scores(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(3, 5, 2, 4)).astype(np.float32)
    pooled = pool_image(*top_k(scores, 5), num_classes=5)
    np.testing.assert_allclose(pooled, scores.mean(axis=(2, 3)), rtol=1e-6)


@pytest.mark.parametrize(
    "dtype", [np.uint16, np.uint32, np.int32, np.int64], ids=lambda dtype: dtype.__name__
)
def test_any_integer_dtype_of_the_indices_gives_float32(rng: np.random.Generator, dtype: type) -> None:
    indices, values = top_k(rng.normal(size=(2, 5, 3, 3)).astype(np.float32), 2)
    pooled = pool_image(indices.astype(dtype), values, num_classes=5)
    np.testing.assert_array_equal(pooled, pool_image(indices, values, num_classes=5))
    assert pooled.dtype == np.float32


@pytest.mark.parametrize("with_rest", [False, True], ids=["zero", "rest"])
def test_pooling_no_samples_gives_no_rows(with_rest: bool) -> None:
    empty = np.zeros((0, 2, 3, 3))
    rest = np.zeros((0, 3, 3)) if with_rest else None
    assert pool_image(empty.astype(np.uint16), empty, num_classes=5, rest=rest).shape == (0, 5)

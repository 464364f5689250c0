from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from relabel_store.labels.pooling import Variant, pool_image, pool_labels, soft_targets
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


@given(label_maps(with_rest=False))
def test_absent_classes_count_as_zero(case: tuple[NDArray[Any], NDArray[Any], Any, int]) -> None:
    indices, values, _, num_classes = case
    pooled = pool_image(indices, values, num_classes=num_classes)
    np.testing.assert_allclose(pooled, loop_pool(indices, values, None, num_classes), rtol=1e-6, atol=1e-6)


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


def loop_roi_align(dense: NDArray[Any], box: NDArray[Any], output_size: tuple[int, int]) -> NDArray[Any]:
    """RoIAlign of one dense map, a sample point at a time, as the paper on Mask R-CNN describes it."""
    num_classes, n_rows, n_cols = dense.shape
    x0, y0, x1, y1 = (
        np.float32(edge) * np.float32(cells) - np.float32(0.5)
        for edge, cells in zip(box, (n_cols, n_rows, n_cols, n_rows), strict=True)
    )
    bin_h = max(y1 - y0, np.float32(1)) / np.float32(output_size[0])
    bin_w = max(x1 - x0, np.float32(1)) / np.float32(output_size[1])
    points_h, points_w = math.ceil(bin_h), math.ceil(bin_w)
    pooled = np.zeros((num_classes, *output_size))
    for i, j, a, b in np.ndindex(*output_size, points_h, points_w):
        y = y0 + i * bin_h + (a + np.float32(0.5)) * bin_h / np.float32(points_h)
        x = x0 + j * bin_w + (b + np.float32(0.5)) * bin_w / np.float32(points_w)
        if y < -1 or y > n_rows or x < -1 or x > n_cols:
            continue
        y, x = min(max(y, 0), n_rows - 1), min(max(x, 0), n_cols - 1)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, n_rows - 1), min(left + 1, n_cols - 1)
        dy, dx = y - top, x - left
        pooled[:, i, j] += (
            dense[:, top, left] * (1 - dy) * (1 - dx)
            + dense[:, top, right] * (1 - dy) * dx
            + dense[:, bottom, left] * dy * (1 - dx)
            + dense[:, bottom, right] * dy * dx
        ) / (points_h * points_w)
    return pooled


def loop_dense(indices: NDArray[Any], values: NDArray[Any], rest: Any, num_classes: int) -> NDArray[Any]:
    k, n_rows, n_cols = indices.shape
    dense = np.zeros((num_classes, n_rows, n_cols))
    if rest is not None and k < num_classes:
        dense += rest.astype(np.float64) - math.log(num_classes - k)
    for rank, row, col in np.ndindex(k, n_rows, n_cols):
        dense[indices[rank, row, col], row, col] = values[rank, row, col]
    return dense


def random_boxes(rng: np.random.Generator, n: int) -> NDArray[Any]:
    """Boxes inside the image, smaller than a cell, touching its border, and leaving it."""
    sizes = rng.choice([0.01, 0.2, 0.6, 1.0, 1.5], (n, 2)) * rng.uniform(0.5, 1, (n, 2))
    corners = rng.uniform(-0.4, 1.0, (n, 2))
    corners = np.where(rng.random((n, 2)) < 0.2, np.round(corners), corners)
    return np.concatenate([corners, np.minimum(corners + sizes, 2)], axis=1)


@pytest.mark.parametrize("output_size", [(1, 1), (2, 3)], ids=str)
@settings(max_examples=60)
@given(label_maps(with_rest=True), st.integers(0, 2**32 - 1), st.booleans())
def test_pooling_is_roi_align_of_the_dense_map(
    output_size: tuple[int, int],
    case: tuple[NDArray[Any], NDArray[Any], Any, int],
    seed: int,
    has_rest: bool,
) -> None:
    indices, values, rest, num_classes = case
    rest = rest if has_rest else None
    boxes = random_boxes(np.random.default_rng(seed), len(indices)).astype(np.float32)
    pooled = pool_labels(indices, values, boxes, num_classes=num_classes, rest=rest, output_size=output_size)
    for sample, box in enumerate(boxes):
        left = None if rest is None else rest[sample]
        dense = loop_dense(indices[sample], values[sample], left, num_classes)
        expected = loop_roi_align(dense, box, output_size).reshape(pooled[sample].shape)
        np.testing.assert_allclose(pooled[sample], expected, rtol=1e-4, atol=1e-4)


def test_full_box_pools_to_mean(rng: np.random.Generator) -> None:
    indices, values = top_k(rng.normal(3, 4, (3, 9, 4, 5)).astype(np.float32), 4)
    whole = np.tile([0.0, 0.0, 1.0, 1.0], (3, 1))
    np.testing.assert_allclose(
        pool_labels(indices, values, whole, num_classes=9),
        pool_image(indices, values, num_classes=9),
        atol=1e-5,
    )


@pytest.mark.parametrize("variant", list(Variant), ids=str)
def test_targets_sum_to_one(variant: Variant, rng: np.random.Generator) -> None:
    indices, values = top_k(rng.normal(3, 4, (6, 9, 4, 4)).astype(np.float32), 4)
    targets = soft_targets(
        indices, values, random_boxes(rng, 6), num_classes=9, variant=variant, output_size=(2, 2)
    )
    assert targets.shape == (6, 9, 2, 2)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    assert set(np.unique(targets)) == {0, 1} or not variant.is_single


def test_global_variants_do_not_depend_on_the_box(rng: np.random.Generator) -> None:
    indices, values = top_k(rng.normal(3, 4, (2, 9, 4, 4)).astype(np.float32), 4)
    for variant in (Variant.GLOBAL_MULTI, Variant.GLOBAL_SINGLE):
        first, second = (
            soft_targets(indices, values, [box] * 2, num_classes=9, variant=variant)
            for box in ([0, 0, 0.2, 0.2], [0.5, 0.5, 1, 1])
        )
        np.testing.assert_array_equal(first, second)


def test_a_high_temperature_makes_targets_even(rng: np.random.Generator) -> None:
    indices, values = top_k(rng.normal(3, 4, (2, 5, 3, 3)).astype(np.float32), 5)
    targets = soft_targets(indices, values, [[0, 0, 1, 1]] * 2, num_classes=5, temperature=1e6)
    np.testing.assert_allclose(targets, 0.2, atol=1e-5)

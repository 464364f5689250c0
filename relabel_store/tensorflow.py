"""LabelPooling in TensorFlow: label maps and crop boxes to soft targets, eagerly and in graphs.

What `relabel_store.labels.pooling` says slowly. It goes into ``tf.function``, ``Dataset.map`` and XLA
(``jit_compile=True``); only the number of samples may be unknown beforehand, and the dense map of all classes
``(n, num_classes, n_rows, n_cols)`` is never made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from relabel_store.labels.boxes import MAX_EDGE, require_boxes
from relabel_store.labels.pooling import Variant, require_classes
from relabel_store.labels.settings import (
    most_points,
    require_integers,
    require_selection,
    require_settings,
    require_shapes,
)

__all__ = ["Variant", "pool_labels", "soft_targets"]

_Tensor: TypeAlias = Any  # TensorFlow has no types
_Input: TypeAlias = _Tensor | ArrayLike


def pool_labels(
    indices: _Input,
    values: _Input,
    boxes_xyxy: _Input,
    *,
    num_classes: int,
    rest: _Input | None = None,
    output_size: tuple[int, int] = (1, 1),
    hflip: _Input | None = None,
    vflip: _Input | None = None,
    legacy_xy_swap: bool = False,
) -> _Tensor:
    """Return the mean score of each class inside crop boxes, before softmax.

    Parameters
    ----------
    indices, values
        ``(n, k, n_rows, n_cols)``, of any integer and any floating dtype. In a graph all but n have to be
        known: ``tensor.set_shape`` or ``tf.ensure_shape`` says them.
    boxes_xyxy
        ``(n, 4)``: ``(x0, y0, x1, y1)``, fractions of the full image, origin top left.
    num_classes
        Length of the class axis of the result.
    rest
        ``(n, n_rows, n_cols)``: log-sum-exp of the classes not kept, which share it evenly. Without
        it a class outside the top k counts as 0.
    output_size
        ``(rows, columns)`` of the result.
    hflip, vflip
        Bool ``(n,)``: crops that were mirrored after cropping, left to right and top to bottom.
    legacy_xy_swap
        Pool the mirror image of the box across the diagonal, as published code does that gives boxes with y
        first to ``roi_align``, which reads x first.

    Returns
    -------
    Tensor
        float32 ``(n, num_classes, *output_size)``; ``(n, num_classes)`` for one cell. Of tensors, which are not
        looked at: NaN for a box that encloses nothing, is not finite or has an edge past 2, and for a sample
        with a class index that is not the teacher's.

    Raises
    ------
    BoxError, ValueError
        Of NumPy arrays: such a box, or such a class index.
    ValueError
        Shapes that do not fit together, or are not known.
    """
    size = require_settings(num_classes, output_size)
    maps = _require_sound(indices, values, boxes_xyxy, rest, num_classes)
    pooled = _pool(*maps, hflip, vflip, num_classes=num_classes, output_size=size, xy_swap=legacy_xy_swap)
    return _class_second(pooled, size)


def soft_targets(
    indices: _Input,
    values: _Input,
    boxes_xyxy: _Input,
    *,
    num_classes: int,
    rest: _Input | None = None,
    output_size: tuple[int, int] = (1, 1),
    temperature: float = 1.0,
    variant: Variant | str = Variant.LOCALIZED_MULTI,
    classes: Sequence[int] | None = None,
    hflip: _Input | None = None,
    vflip: _Input | None = None,
    legacy_xy_swap: bool = False,
) -> _Tensor:
    """Return the targets of crops: LabelPooling.

    Parameters
    ----------
    indices, values, boxes_xyxy, num_classes, rest, output_size, hflip, vflip, legacy_xy_swap
        As for `pool_labels`.
    temperature
        Divides the pooled scores before softmax.
    variant
        Which of the paper's four kinds of target to make.
    classes
        The teacher's class index of each class of a student that knows only some, in the student's
        order. The softmax is over these. None: all, in the teacher's order.

    Returns
    -------
    Tensor
        float32 ``(n, num_classes)``, or ``(n, num_classes, *output_size)`` where there is more than one
        cell; sums to 1 over the classes, which are as many as `classes` where these are given. NaN as for
        `pool_labels`.

    Raises
    ------
    BoxError, ValueError
        As for `pool_labels`.
    """
    size = require_settings(num_classes, output_size, temperature)
    variant = Variant(variant)
    if not variant.is_localized:
        boxes_xyxy = tf.tile([[0.0, 0.0, 1.0, 1.0]], [tf.shape(indices)[0], 1])
    maps = _require_sound(indices, values, boxes_xyxy, rest, num_classes)
    pooled = _pool(
        *maps,
        hflip,
        vflip,
        num_classes=num_classes,
        output_size=size if variant.is_localized else (1, 1),
        xy_swap=legacy_xy_swap,
    )
    if classes is not None:
        pooled = tf.gather(pooled, require_selection(classes, num_classes), axis=-1)
    if variant.is_single:
        targets = tf.one_hot(tf.argmax(pooled, axis=-1), pooled.shape[-1])
        targets += 0 * tf.reduce_sum(pooled, axis=-1, keepdims=True)  # keeps NaN
    else:
        targets = tf.nn.softmax(pooled / temperature, axis=-1)
    return _class_second(targets, size)


def _require_sound(
    indices: _Input, values: _Input, boxes_xyxy: _Input, rest: _Input | None, num_classes: int
) -> tuple[_Tensor, _Tensor, _Tensor, _Tensor | None]:
    """Return tensors after checking shapes, and what is no tensor yet."""
    if not tf.is_tensor(indices):
        indices = np.asarray(indices)
        require_classes(indices, num_classes)
    if not tf.is_tensor(boxes_xyxy):
        boxes_xyxy = require_boxes(boxes_xyxy)
    indices, values, boxes_xyxy = map(tf.convert_to_tensor, (indices, values, boxes_xyxy))
    rest = None if rest is None else tf.convert_to_tensor(rest)
    require_integers(indices.dtype.as_numpy_dtype)
    shapes = [part.shape for part in (indices, values, boxes_xyxy, rest) if part is not None]
    if any(shape.rank is None for shape in shapes) or None in shapes[0][1:]:
        raise ValueError(
            f"label maps: indices {shapes[0]}, values {shapes[1]}, boxes {shapes[2]} in a graph, expected shapes of "
            "which all but the number of samples are known; say them with tf.ensure_shape"
        )
    require_shapes(*(shape.as_list() for shape in shapes))
    return indices, values, boxes_xyxy, rest


def _class_second(pooled: _Tensor, output_size: tuple[int, int]) -> _Tensor:
    """Return ``(n, classes, *output_size)`` of ``(n, rows, columns, classes)``; "global": one cell stands for all."""
    if output_size == (1, 1):
        return pooled[:, 0, 0]
    shape = [tf.shape(pooled)[0], *output_size, pooled.shape[-1]]
    return tf.transpose(tf.broadcast_to(pooled, shape), [0, 3, 1, 2])


def _pool(
    indices: _Tensor,
    values: _Tensor,
    boxes_xyxy: _Tensor,
    rest: _Tensor | None,
    hflip: _Input | None,
    vflip: _Input | None,
    *,
    num_classes: int,
    output_size: tuple[int, int],
    xy_swap: bool,
) -> _Tensor:
    """Return pooled scores, float32 ``(n, rows, columns, num_classes)``: softmax is over the last axis."""
    _, k, n_rows, n_cols = indices.shape
    boxes = tf.cast(boxes_xyxy, tf.float32)
    starts, stops = boxes[:, :2], boxes[:, 2:]
    is_box = tf.reduce_all((starts < stops) & (starts >= -MAX_EDGE) & (stops <= MAX_EDGE), axis=1)
    starts, stops = (tf.where(is_box[:, None], edges, 0.0) for edges in (starts, stops))
    x, y = (1, 0) if xy_swap else (0, 1)
    rows = axis_weights(starts[:, y], stops[:, y], n_cells=n_rows, n_bins=output_size[0])
    columns = axis_weights(starts[:, x], stops[:, x], n_cells=n_cols, n_bins=output_size[1])
    rows, columns = _flipped(rows, vflip), _flipped(columns, hflip)

    wide = tf.cast(indices, tf.int64)
    is_class = (wide >= 0) & (wide < num_classes)
    scores, absent = tf.cast(values, tf.float32), None
    if rest is not None and k < num_classes:
        absent = tf.cast(rest, tf.float32) - math.log(num_classes - k)  # (n, n_rows, n_cols)
        scores = scores - absent[:, None]
    pooled = _sum_by_class(tf.where(is_class, wide, 0), scores, rows, columns, num_classes)
    if absent is not None:
        # By hand: a product of matrices would be made in TensorFloat-32 where the device can.
        over_rows = tf.reduce_sum(rows[..., None] * absent[:, None], axis=2)  # (n, n_row_bins, n_cols)
        pooled += tf.reduce_sum(over_rows[:, :, None] * columns[:, None], axis=3)[..., None]
    is_sound = is_box & tf.reduce_all(is_class, axis=[1, 2, 3])
    return tf.where(is_sound[:, None, None, None], pooled, math.nan)


def _flipped(weights: _Tensor, flip: _Input | None) -> _Tensor:
    """Return the weights of an axis ``(n, n_bins, n_cells)`` with the bins of some boxes in reverse order."""
    if flip is None:
        return weights
    return tf.where(tf.cast(flip, tf.bool)[:, None, None], weights[:, ::-1], weights)


def _sum_by_class(
    classes: _Tensor, scores: _Tensor, rows: _Tensor, columns: _Tensor, num_classes: int
) -> _Tensor:
    """Return the sum of each class over cells and ranks, ``(n, rows, columns, num_classes)``.

    `classes` and `scores` are ``(n, k, n_rows, n_cols)``, `rows` and `columns` the weights of each bin.
    """
    n, bins = tf.shape(rows, tf.int64)[0], (rows.shape[1], columns.shape[1])
    if bins == (1, 1):
        at, weighted = classes, scores * (rows[:, 0, :, None] * columns[:, 0, None, :])[:, None]
    else:
        at, weighted = _in_windows(classes, scores, rows, columns, num_classes)
    n_sums = bins[0] * bins[1] * num_classes
    at += tf.reshape(tf.range(n) * n_sums, [-1] + [1] * (len(at.shape) - 1))
    sums = tf.math.unsorted_segment_sum(tf.reshape(weighted, [-1]), tf.reshape(at, [-1]), n * n_sums)
    return tf.reshape(sums, [-1, *bins, num_classes])


def _in_windows(
    classes: _Tensor, scores: _Tensor, rows: _Tensor, columns: _Tensor, num_classes: int
) -> tuple[_Tensor, _Tensor]:
    """Return where in a sample's sums, and how much, the cells add that several bins can touch."""
    k, n_cells = classes.shape[1], classes.shape[2] * classes.shape[3]
    row_at, row_weights = _window(rows)  # (n, n_bins, width)
    column_at, column_weights = _window(columns)
    cells = row_at[:, :, None, :, None] * columns.shape[2] + column_at[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    bins = np.arange(rows.shape[1] * columns.shape[1]).reshape(rows.shape[1], columns.shape[1], 1, 1)
    at, found = (
        tf.gather(tf.reshape(part, [-1, k, n_cells]), cells, axis=2, batch_dims=1)  # (n, k, *bins, *window)
        for part in (classes, scores)
    )
    return bins * num_classes + at, found * weights[:, None]


def _window(weights: _Tensor) -> tuple[_Tensor, _Tensor]:
    """Return the cells that each bin touches, neighbours all, and their weights: ``(n, n_bins, width)``."""
    _, n_bins, n_cells = weights.shape
    width = min(n_cells, most_points(n_cells, n_bins) + 2)
    touches = tf.cast(weights != 0, tf.int32)
    first = tf.minimum(tf.argmax(touches, axis=2), n_cells - width)
    at = first[..., None] + np.arange(width)
    return at, tf.gather(weights, at, axis=2, batch_dims=2)


def axis_weights(starts: _Tensor, stops: _Tensor, *, n_cells: int, n_bins: int) -> _Tensor:
    """Return by how much each cell of an axis counts in each bin of a box: float32 ``(n, n_bins, n_cells)``.

    As `relabel_store.labels.pooling.axis_weights`, which see.
    """
    first = _times(starts, n_cells) - 0.5
    size = tf.maximum(_times(stops, n_cells) - 0.5 - first, 1.0)[:, None]
    steps = np.arange(most_points(n_cells, n_bins), dtype=np.float32)
    exists = (
        size > steps * n_bins
    )  # counted so, their number is ceil(size / n_bins) without a rounded quotient
    n_points = tf.reduce_sum(tf.cast(exists, tf.float32), axis=1, keepdims=True)
    bin_size = size / n_bins
    bins = first[:, None] + np.arange(n_bins, dtype=np.float32) * bin_size
    points = bins[:, :, None] + ((steps + 0.5) * bin_size / n_points)[:, None]  # (n, n_bins, most points)
    counts = (points >= -1) & (points <= n_cells) & exists[:, None]
    nearest = tf.clip_by_value(points, 0, n_cells - 1)
    tents = tf.maximum(1 - tf.abs(nearest[..., None] - np.arange(n_cells, dtype=np.float32)), 0)
    return tf.reduce_sum(tents * tf.cast(counts, tf.float32)[..., None], axis=2) / n_points[..., None]


def _times(x: _Tensor, n: int) -> _Tensor:
    """Return the product, rounded to float32 before anything else is done with it.

    XLA contracts ``x * n - 0.5`` to one rounding, and where a box is a whole number of cells wide the number of
    sample points hangs on the last bit. In float64 the product is exact, and the cast rounds it.
    """
    return tf.cast(tf.cast(x, tf.float64) * n, tf.float32)

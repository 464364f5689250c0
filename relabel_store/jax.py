"""LabelPooling in JAX: label maps and crop boxes to soft targets, inside ``jit`` or outside.

What `relabel_store.labels.pooling` says slowly. Every shape follows from those of the arguments, each sample is
computed alone, so that a batch sharded over devices stays where it is, and the dense map of all classes
``(n, num_classes, n_rows, n_cols)`` is never made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
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

_Input: TypeAlias = Array | ArrayLike


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
) -> Array:
    """Return the mean score of each class inside crop boxes, before softmax.

    Parameters
    ----------
    indices, values
        ``(n, k, n_rows, n_cols)``, of any integer and any floating dtype.
    boxes_xyxy
        ``(n, 4)``: ``(x0, y0, x1, y1)``, fractions of the full image, origin top left.
    num_classes
        Length of the class axis of the result; static under ``jit``, like all that is no array.
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
    Array
        float32 ``(n, num_classes, *output_size)``; ``(n, num_classes)`` for one cell. Of JAX arrays, which are
        not looked at: NaN for a box that encloses nothing, is not finite or has an edge past 2, and for a
        sample with a class index that is not the teacher's.

    Raises
    ------
    BoxError, ValueError
        Of NumPy arrays: such a box, or such a class index.
    ValueError
        Shapes that do not fit together.
    """
    size = require_settings(num_classes, output_size)
    maps = _require_sound(indices, values, boxes_xyxy, rest, num_classes)
    pooled: Array = _pool_labels(
        *maps, hflip, vflip, num_classes=num_classes, output_size=size, xy_swap=legacy_xy_swap
    )
    return pooled


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
) -> Array:
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
    Array
        float32 ``(n, num_classes)``, or ``(n, num_classes, *output_size)`` where there is more than one
        cell; sums to 1 over the classes, which are as many as `classes` where these are given. NaN as for
        `pool_labels`.

    Raises
    ------
    BoxError, ValueError
        As for `pool_labels`.

    Examples
    --------
    >>> import numpy as np
    >>> indices = np.array([[[[0, 2]]]], np.uint16)  # one sample, k = 1, a row of two cells
    >>> values = np.full((1, 1, 1, 2), 4.0, np.float16)
    >>> int(soft_targets(indices, values, [[0.5, 0.0, 1.0, 1.0]], num_classes=3).argmax())
    2
    """
    size = require_settings(num_classes, output_size, temperature)
    variant = Variant(variant)
    chosen = None if classes is None else tuple(require_selection(classes, num_classes).tolist())
    if not variant.is_localized:
        boxes_xyxy = np.tile([0.0, 0.0, 1.0, 1.0], (np.shape(indices)[0], 1))
    maps = _require_sound(indices, values, boxes_xyxy, rest, num_classes)
    targets: Array = _soft_targets(
        *maps,
        hflip,
        vflip,
        temperature,
        num_classes=num_classes,
        output_size=size,
        xy_swap=legacy_xy_swap,
        variant=variant,
        classes=chosen,
    )
    return targets


def _require_sound(
    indices: _Input, values: _Input, boxes_xyxy: _Input, rest: _Input | None, num_classes: int
) -> tuple[_Input, _Input, _Input, _Input | None]:
    """Check shapes, and what is no JAX array, looking at which would wait for a device."""
    if not isinstance(indices, Array):
        indices = np.asarray(indices)
        require_classes(indices, num_classes)
    if not isinstance(boxes_xyxy, Array):
        boxes_xyxy = require_boxes(boxes_xyxy)
    require_integers(indices.dtype)
    require_shapes(
        np.shape(indices), np.shape(values), np.shape(boxes_xyxy), None if rest is None else np.shape(rest)
    )
    return indices, values, boxes_xyxy, rest


@partial(jax.jit, static_argnames=("num_classes", "output_size", "xy_swap"))
def _pool_labels(
    indices: Array,
    values: Array,
    boxes_xyxy: Array,
    rest: Array | None,
    hflip: Array | None,
    vflip: Array | None,
    *,
    num_classes: int,
    output_size: tuple[int, int],
    xy_swap: bool,
) -> Array:
    one = partial(_pool_one, num_classes=num_classes, output_size=output_size, xy_swap=xy_swap)
    return _class_second(jax.vmap(one)(indices, values, boxes_xyxy, rest, hflip, vflip), output_size)


@partial(jax.jit, static_argnames=("num_classes", "output_size", "xy_swap", "variant", "classes"))
def _soft_targets(
    indices: Array,
    values: Array,
    boxes_xyxy: Array,
    rest: Array | None,
    hflip: Array | None,
    vflip: Array | None,
    temperature: Array,
    *,
    num_classes: int,
    output_size: tuple[int, int],
    xy_swap: bool,
    variant: Variant,
    classes: tuple[int, ...] | None,
) -> Array:
    n_out = output_size if variant.is_localized else (1, 1)
    one = partial(_pool_one, num_classes=num_classes, output_size=n_out, xy_swap=xy_swap)
    pooled = jax.vmap(one)(indices, values, boxes_xyxy, rest, hflip, vflip)
    if classes is not None:
        pooled = pooled[..., np.array(classes)]
    if variant.is_single:
        targets = jax.nn.one_hot(pooled.argmax(axis=-1), pooled.shape[-1], dtype=jnp.float32)
        targets += 0 * pooled.sum(axis=-1, keepdims=True)  # keeps NaN
    else:
        targets = jax.nn.softmax(pooled / jnp.float32(temperature), axis=-1)
    return _class_second(targets, output_size)


def _class_second(pooled: Array, output_size: tuple[int, int]) -> Array:
    """Return ``(n, classes, *output_size)`` of ``(n, rows, columns, classes)``; "global": one cell stands for all."""
    if output_size == (1, 1):
        return pooled[:, 0, 0]
    n, _, _, num_targets = pooled.shape
    return jnp.moveaxis(jnp.broadcast_to(pooled, (n, *output_size, num_targets)), -1, 1)


def _pool_one(
    indices: Array,
    values: Array,
    box: Array,
    rest: Array | None,
    hflip: Array | None,
    vflip: Array | None,
    *,
    num_classes: int,
    output_size: tuple[int, int],
    xy_swap: bool,
) -> Array:
    """Return the pooled scores of one sample, float32 ``(rows, columns, num_classes)``: softmax likes classes last."""
    k, n_rows, n_cols = indices.shape
    x0, y0, x1, y1 = box.astype(jnp.float32)
    if xy_swap:
        x0, y0, x1, y1 = y0, x0, y1, x1
    is_box = (x0 < x1) & (y0 < y1) & (jnp.minimum(x0, y0) >= -MAX_EDGE) & (jnp.maximum(x1, y1) <= MAX_EDGE)
    rows = axis_weights(y0, y1, n_cells=n_rows, n_bins=output_size[0])
    columns = axis_weights(x0, x1, n_cells=n_cols, n_bins=output_size[1])
    rows = rows if vflip is None else jnp.where(vflip, rows[::-1], rows)
    columns = columns if hflip is None else jnp.where(hflip, columns[::-1], columns)

    # Of 32 bits or fewer as int32: where a uint32 does not fit it is negative, and no class.
    wide = indices if indices.dtype.itemsize > 4 else indices.astype(jnp.int32)
    is_class = (wide >= 0) & (wide < num_classes)
    scores, absent = values.astype(jnp.float32), None
    if rest is not None and k < num_classes:
        absent = rest.astype(jnp.float32) - math.log(num_classes - k)  # (n_rows, n_cols)
        scores = scores - absent
    pooled = _sum_by_class(jnp.where(is_class, wide, 0), scores, rows, columns, num_classes)
    if absent is not None:
        exact = lax.Precision.HIGHEST  # where a device would multiply in fewer bits
        pooled += jnp.einsum("ir,rc,jc->ij", rows, absent, columns, precision=exact)[:, :, None]
    return jnp.where(is_box & is_class.all(), pooled, jnp.nan)


def _sum_by_class(classes: Array, scores: Array, rows: Array, columns: Array, num_classes: int) -> Array:
    """Return the sum of each class over cells and ranks, ``(rows, columns, num_classes)``.

    `classes` and `scores` are ``(k, n_rows, n_cols)``, `rows` and `columns` the weights of each bin.
    """
    bins = len(rows), len(columns)
    if bins == (1, 1):
        at, weighted = classes, scores * rows[0][:, None] * columns[0]
    else:
        at, weighted = _in_windows(classes, scores, rows, columns, num_classes)
    sums = jnp.zeros(bins[0] * bins[1] * num_classes, jnp.float32)
    sums = sums.at[at.reshape(-1)].add(weighted.reshape(-1), mode="promise_in_bounds")
    return sums.reshape(*bins, num_classes)


def _in_windows(
    classes: Array, scores: Array, rows: Array, columns: Array, num_classes: int
) -> tuple[Array, Array]:
    """Return where in the sums, and how much, the cells add that several bins can touch."""
    row_at, row_weights = _window(rows)  # (n_bins, width)
    column_at, column_weights = _window(columns)
    cells = row_at[:, None, :, None] * columns.shape[1] + column_at[None, :, None, :]
    weights = row_weights[:, None, :, None] * column_weights[None, :, None, :]
    bins = jnp.arange(len(rows) * len(columns)).reshape(len(rows), len(columns), 1, 1)
    k = len(classes)
    at = bins * num_classes + classes.reshape(k, -1)[:, cells]  # (k, *bins, *window)
    return at, scores.reshape(k, -1)[:, cells] * weights


def _window(weights: Array) -> tuple[Array, Array]:
    """Return the cells that each bin touches, neighbours all, and their weights: ``(n_bins, width)``."""
    n_bins, n_cells = weights.shape
    width = min(n_cells, most_points(n_cells, n_bins) + 2)
    first = jnp.minimum((weights != 0).argmax(axis=1), n_cells - width)
    at = first[:, None] + jnp.arange(width)
    return at, jnp.take_along_axis(weights, at, axis=1)


def axis_weights(start: Array, stop: Array, *, n_cells: int, n_bins: int) -> Array:
    """Return by how much each cell of an axis counts in each bin of a box: float32 ``(n_bins, n_cells)``.

    As `relabel_store.labels.pooling.axis_weights`, which see, of one box: float32 ``start`` and ``stop``.
    """
    first = _times(start, n_cells) - 0.5
    size = jnp.maximum(_times(stop, n_cells) - 0.5 - first, 1)
    steps = np.arange(most_points(n_cells, n_bins), dtype=np.float32)
    exists = (
        size > steps * n_bins
    )  # counted so, their number is ceil(size / n_bins) without a rounded quotient
    n_points = exists.sum(dtype=jnp.float32)
    bin_size = size / n_bins
    bins = first + np.arange(n_bins, dtype=np.float32) * bin_size
    points = bins[:, None] + (steps + np.float32(0.5)) * bin_size / n_points  # (n_bins, most points)
    counts = (points >= -1) & (points <= n_cells) & exists
    nearest = jnp.clip(points, 0, n_cells - 1)
    tents = jnp.maximum(1 - jnp.abs(nearest[..., None] - np.arange(n_cells, dtype=np.float32)), 0)
    return (tents * counts[..., None]).sum(axis=1) / n_points


def _times(x: Array, n: int) -> Array:
    """Return the product, rounded to float32 before anything else is done with it.

    XLA contracts ``x * n - 0.5`` to one rounding, and where a box is a whole number of cells wide the number of
    sample points hangs on the last bit. Both parts here are products without rounding (n has 12 bits, the first
    part of x has 12), so that contracting them changes nothing.
    """
    head = lax.bitcast_convert_type(x, jnp.uint32) & np.uint32(0xFFFFF000)
    high = lax.bitcast_convert_type(head, jnp.float32)
    return high * n + (x - high) * n

"""LabelPooling in NumPy: the reference.

RoIAlign of a label map over crop boxes, as torchvision computes it with ``aligned=False`` and adaptive
sampling on boxes shifted by half a cell. The weight of a cell is a product of one number for its row and one
for its column, so the dense map of all classes is never made: each kept value is added, weighted, to its class.

Yun et al., "Re-labeling ImageNet", CVPR 2021, arXiv:2101.05022; He et al., "Mask R-CNN", arXiv:1703.06870.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relabel_store.labels.boxes import require_boxes
from relabel_store.labels.settings import require_selection
from relabel_store.labels.topk import FloatArray, IndexArray

Targets = NDArray[np.float32]


class Variant(StrEnum):
    """What becomes of a label map: the rows of the paper's factor analysis (its Table 4).

    With p the pooled logits of the crop and g those of the whole image.
    """

    LOCALIZED_MULTI = "localized-multi"
    """softmax(p)"""
    LOCALIZED_SINGLE = "localized-single"
    """one-hot(argmax p)"""
    GLOBAL_MULTI = "global-multi"
    """softmax(g)"""
    GLOBAL_SINGLE = "global-single"
    """one-hot(argmax g)"""

    @property
    def is_localized(self) -> bool:
        """Whether the target depends on the crop."""
        return self in (Variant.LOCALIZED_MULTI, Variant.LOCALIZED_SINGLE)

    @property
    def is_single(self) -> bool:
        """Whether the target is one class."""
        return self in (Variant.LOCALIZED_SINGLE, Variant.GLOBAL_SINGLE)


def axis_weights(
    starts: NDArray[np.float32], stops: NDArray[np.float32], *, n_cells: int, n_bins: int = 1
) -> NDArray[np.float64]:
    """Return by how much each cell of an axis counts in each bin of a box.

    Parameters
    ----------
    starts, stops
        float32 ``(n,)``: edges of the boxes along this axis, fractions of the image.
    n_cells
        Cells of the label map along this axis.
    n_bins
        Cells of the result along this axis.

    Returns
    -------
    ndarray
        float64 ``(n, n_bins, n_cells)``. A row sums to 1, or to less where the box leaves the image by
        more than a cell: there RoIAlign reads zeros.

    Notes
    -----
    Positions are computed in float32 in the order of torchvision's kernel, because the number of sample
    points jumps where a box is a whole number of cells wide.
    """
    half = np.float32(0.5)
    first = starts.astype(np.float32) * np.float32(n_cells) - half
    last = stops.astype(np.float32) * np.float32(n_cells) - half
    bin_size = np.maximum(last - first, np.float32(1)) / np.float32(n_bins)
    n_points = np.ceil(bin_size).astype(np.int64)
    weights = np.zeros((len(first), n_bins, n_cells))
    for box in range(len(first)):
        steps = np.arange(n_points[box], dtype=np.float32) + half
        offsets = steps * bin_size[box] / np.float32(n_points[box])
        bins = first[box] + np.arange(n_bins, dtype=np.float32) * bin_size[box]
        points = (bins[:, None] + offsets).astype(np.float64)  # (n_bins, n_points)
        is_inside = (points >= -1) & (points <= n_cells)
        nearest = np.clip(points, 0, n_cells - 1)
        tents = np.maximum(1 - np.abs(nearest[:, :, None] - np.arange(n_cells)), 0)
        weights[box] = (tents * is_inside[:, :, None]).sum(axis=1) / n_points[box]
    return weights


def pool_labels(
    indices: IndexArray,
    values: FloatArray,
    boxes_xyxy: ArrayLike,
    *,
    num_classes: int,
    rest: FloatArray | None = None,
    output_size: tuple[int, int] = (1, 1),
    hflip: ArrayLike | None = None,
    vflip: ArrayLike | None = None,
    legacy_xy_swap: bool = False,
) -> Targets:
    """Return the mean score of each class inside crop boxes, before softmax.

    Parameters
    ----------
    indices, values
        ``(n, k, n_rows, n_cols)``.
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
    ndarray
        float32 ``(n, num_classes, *output_size)``; ``(n, num_classes)`` for one cell.

    Raises
    ------
    BoxError
        As for `relabel_store.labels.boxes.require_boxes`.
    ValueError
        A class index is not below `num_classes`.
    """
    boxes = require_boxes(boxes_xyxy)
    if legacy_xy_swap:
        boxes = boxes[:, [1, 0, 3, 2]]
    n, _, n_rows, n_cols = indices.shape
    rows = axis_weights(boxes[:, 1], boxes[:, 3], n_cells=n_rows, n_bins=output_size[0])
    columns = axis_weights(boxes[:, 0], boxes[:, 2], n_cells=n_cols, n_bins=output_size[1])
    rows, columns = _flipped(rows, vflip), _flipped(columns, hflip)
    pooled = np.zeros((n, num_classes, *output_size))
    scores, absent = _scores_over_absent(values, rest, num_classes)
    if absent is not None:
        pooled += np.einsum("nir,njc,nrc->nij", rows, columns, absent)[:, None]
    for i, j in np.ndindex(*output_size):
        weights = rows[:, i, :, None] * columns[:, j, None, :]  # (n, n_rows, n_cols)
        pooled[:, :, i, j] += _sum_by_class(indices, scores * weights[:, None], num_classes)
    return np.asarray(pooled[:, :, 0, 0] if output_size == (1, 1) else pooled, np.float32)


def _flipped(weights: NDArray[np.float64], flip: ArrayLike | None) -> NDArray[np.float64]:
    """Return the weights of an axis ``(n, n_bins, n_cells)`` with the bins of some boxes in reverse order."""
    return weights if flip is None else np.where(np.asarray(flip)[:, None, None], weights[:, ::-1], weights)


def pool_image(
    indices: IndexArray, values: FloatArray, *, num_classes: int, rest: FloatArray | None = None
) -> Targets:
    """Return the mean score of each class over the whole image, before softmax.

    The box (0, 0, 1, 1) of `pool_labels`, where each cell counts the same: "global" in the paper.

    Parameters
    ----------
    indices, values, num_classes, rest
        As for `pool_labels`.

    Returns
    -------
    ndarray
        float32 ``(n, num_classes)``.
    """
    cells = indices.shape[2] * indices.shape[3]
    scores, absent = _scores_over_absent(values, rest, num_classes)
    sums = _sum_by_class(indices, scores, num_classes)
    if absent is not None:
        sums += absent.sum(axis=(1, 2))[:, None]
    return np.asarray(sums / cells, np.float32)


def _scores_over_absent(
    values: FloatArray, rest: FloatArray | None, num_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return the kept scores less that of a class that was not kept, and the latter unless it is 0."""
    scores, k = values.astype(np.float64), values.shape[1]
    if rest is None or k == num_classes:
        return scores, None
    absent = rest.astype(np.float64) - np.log(num_classes - k)  # (n, n_rows, n_cols)
    return scores - absent[:, None], absent


def require_classes(indices: IndexArray, num_classes: int) -> None:
    """Check that every class index is one of the teacher's.

    Raises
    ------
    ValueError
        One is not: a row without label, or maps of another teacher.
    """
    if not indices.size:
        return
    ends = [indices.max()] if indices.dtype.kind == "u" else [indices.min(), indices.max()]
    for index in ends:
        if not 0 <= index < num_classes:
            raise ValueError(
                f"class index {index}, expected 0 to {num_classes - 1}: "
                "a row without label, or a store of another class count"
            )


def _sum_by_class(
    indices: IndexArray, weighted: NDArray[np.float64], num_classes: int
) -> NDArray[np.float64]:
    """Return the sum over cells and ranks of each class: ``(n, num_classes)``."""
    require_classes(indices, num_classes)
    n, k, n_rows, n_cols = indices.shape
    sample = np.arange(n).repeat(k * n_rows * n_cols) * num_classes
    flat = sample + indices.reshape(-1).astype(np.int64)
    sums = np.bincount(flat, weighted.reshape(-1), minlength=n * num_classes)
    return sums.astype(np.float64, copy=False).reshape(n, num_classes)  # integers where there is nothing


def soft_targets(
    indices: IndexArray,
    values: FloatArray,
    boxes_xyxy: ArrayLike,
    *,
    num_classes: int,
    rest: FloatArray | None = None,
    output_size: tuple[int, int] = (1, 1),
    temperature: float = 1.0,
    variant: Variant | str = Variant.LOCALIZED_MULTI,
    classes: Sequence[int] | None = None,
    hflip: ArrayLike | None = None,
    vflip: ArrayLike | None = None,
    legacy_xy_swap: bool = False,
) -> Targets:
    """Return the targets of crops: LabelPooling.

    Parameters
    ----------
    indices, values, boxes_xyxy, num_classes, rest, output_size, hflip, vflip, legacy_xy_swap
        As for `pool_labels`.
    temperature
        Divides the pooled scores before softmax.
    classes
        The teacher's class index of each class of a student that knows only some, in the student's
        order. The softmax is over these. None: all, in the teacher's order.

    Returns
    -------
    ndarray
        float32 ``(n, num_classes)``, or ``(n, num_classes, *output_size)`` where there is more than one
        cell; sums to 1 over the classes, which are as many as `classes` where these are given.

    Raises
    ------
    BoxError, ValueError
        As for `pool_labels`.
    """
    variant = Variant(variant)
    if variant.is_localized:
        pooled = pool_labels(
            indices,
            values,
            boxes_xyxy,
            num_classes=num_classes,
            rest=rest,
            output_size=output_size,
            hflip=hflip,
            vflip=vflip,
            legacy_xy_swap=legacy_xy_swap,
        )
    else:
        pooled = pool_image(indices, values, num_classes=num_classes, rest=rest)
        if output_size != (1, 1):
            pooled = np.broadcast_to(pooled[:, :, None, None], (*pooled.shape, *output_size))
    if classes is not None:
        pooled = pooled[:, require_selection(classes, num_classes)]
    if variant.is_single:
        one_hot = np.zeros(pooled.shape, np.float32)
        np.put_along_axis(one_hot, pooled.argmax(axis=1, keepdims=True), 1.0, axis=1)
        return one_hot
    scaled = pooled.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)

"""Crop boxes: orders, units, and what a box has to be."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relabel_store.errors import BoxError

# A crop of an image that was padded leaves it, by its own size at the utmost in any usual pipeline. What lies
# further out is nearly always pixels in the place of fractions.
MAX_EDGE = 2.0


def require_boxes(boxes_xyxy: ArrayLike) -> NDArray[np.float32]:
    """Return crop boxes as float32 after checking them.

    Parameters
    ----------
    boxes_xyxy
        ``(n, 4)``: ``(x0, y0, x1, y1)``, fractions of the full image, origin top left. They may leave the
        image.

    Raises
    ------
    BoxError
        They have another shape, are not numbers, enclose nothing, or have an edge past 2.
    """
    boxes = np.asarray(boxes_xyxy)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.issubdtype(boxes.dtype, np.number):
        raise BoxError(
            f"crop boxes: {boxes.dtype} of shape {boxes.shape}, expected numbers (n, 4), x0 y0 x1 y1"
        )
    boxes = boxes.astype(np.float32)
    for is_bad, what in (
        (~np.isfinite(boxes).all(axis=1), "expected finite numbers"),
        (
            (np.abs(boxes) > MAX_EDGE).any(axis=1),
            "an edge past 2: expected fractions of the image, not pixels (divide x by its width and y by its height), "
            "and padding that leaves at least a third of the picture to the image",
        ),
        (
            (boxes[:, 0] >= boxes[:, 2]) | (boxes[:, 1] >= boxes[:, 3]),
            "expected x0 < x1 and y0 < y1; published ReLabel code puts y first",
        ),
    ):
        if is_bad.any():
            at = int(np.argmax(is_bad))
            found = ", ".join(f"{edge:g}" for edge in boxes[at])
            raise BoxError(f"crop box {at} (x0, y0, x1, y1) = ({found}): {what}")
    return boxes


def boxes_from_ijhw(boxes_ijhw: ArrayLike, image_sizes: ArrayLike) -> NDArray[np.float32]:
    """Return boxes as fractions of boxes in pixels as torchvision draws them.

    Parameters
    ----------
    boxes_ijhw
        ``(n, 4)``: top, left, height, width, in pixels, as ``RandomResizedCrop.get_params`` returns them.
    image_sizes
        ``(n, 2)`` or ``(2,)``: height and width in pixels.

    Returns
    -------
    ndarray
        float32 ``(n, 4)``: ``(x0, y0, x1, y1)``.

    Raises
    ------
    BoxError
        As for `require_boxes`.
    """
    top, left, height, width = np.asarray(boxes_ijhw, np.float64).reshape(-1, 4).T
    rows, columns = np.broadcast_to(np.asarray(image_sizes, np.float64), (len(top), 2)).T
    edges = left / columns, top / rows, (left + width) / columns, (top + height) / rows
    return require_boxes(np.stack(edges, axis=1))


def middle_square(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the largest square in the middle of an image, ``(left, top, right, bottom)`` in pixels."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side

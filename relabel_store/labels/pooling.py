"""LabelPooling in NumPy: the reference.

So far for the box that is the whole image, where RoIAlign with one bin puts one sample point on the
centre of each cell: the pooled logit of a class is its mean over the cells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from relabel_store.labels.topk import FloatArray, IndexArray


def pool_image(
    indices: IndexArray, values: FloatArray, *, num_classes: int, rest: FloatArray | None = None
) -> NDArray[np.float32]:
    """Return the mean score of each class over the whole image, before softmax.

    Parameters
    ----------
    indices, values
        ``(n, k, n_rows, n_cols)``.
    num_classes
        Length of the class axis of the result.
    rest
        ``(n, n_rows, n_cols)``: log-sum-exp of the classes not kept, which share it evenly. Without
        it a class outside the top k counts as 0.

    Returns
    -------
    ndarray
        float32 ``(n, num_classes)``.

    Notes
    -----
    The box (0, 0, 1, 1) of LabelPooling (Yun et al., arXiv:2101.05022): "global" in its factor analysis.
    """
    n, k, n_rows, n_cols = indices.shape
    cells = n_rows * n_cols
    scores = values.astype(np.float64)
    baseline = np.zeros((n, 1))
    if rest is not None and k < num_classes:
        absent = rest.astype(np.float64) - np.log(num_classes - k)  # (n, n_rows, n_cols)
        scores -= absent[:, None]
        baseline = absent.sum(axis=(1, 2))[:, None]
    flat = np.arange(n).repeat(k * cells) * num_classes + indices.reshape(-1).astype(np.int64)
    sums = np.bincount(flat, weights=scores.reshape(-1), minlength=n * num_classes).reshape(n, num_classes)
    pooled: NDArray[np.float32] = ((sums + baseline) / cells).astype(np.float32)
    return pooled

"""Label maps as objects: of one sample, and of many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relabel_store.labels.topk import IndexArray


@dataclass(frozen=True)
class LabelMap:
    """The label map of one sample.

    Parameters
    ----------
    indices
        Class indices, uint16 (uint32 past 65,535 classes), ``(k, n_rows, n_cols)``, row 0 on top.
    values
        Teacher scores before softmax, float16, same shape, falling along the first axis.
    rest
        Log-sum-exp of the classes not kept, float16 ``(n_rows, n_cols)``; None where an absent class
        counts as 0.
    """

    sample_id: str
    indices: IndexArray
    values: NDArray[np.float16]
    rest: NDArray[np.float16] | None = None


@dataclass(frozen=True)
class LabelMaps:
    """The label maps of n samples: the arrays of `LabelMap` with the sample axis in front."""

    sample_ids: list[str]
    indices: IndexArray
    values: NDArray[np.float16]
    rest: NDArray[np.float16] | None = None

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, position: int) -> LabelMap:
        return LabelMap(
            self.sample_ids[position],
            self.indices[position],
            self.values[position],
            None if self.rest is None else self.rest[position],
        )

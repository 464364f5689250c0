"""Statistics of label maps: counted a part at a time, summed for the manifest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relabel_store.labels.pooling import pool_image
from relabel_store.labels.topk import FloatArray, IndexArray
from relabel_store.labels.values import as_float32, order_of, value_of_order
from relabel_store.manifest import Agreement, Statistics


@dataclass(frozen=True)
class Counts:
    """Counts over some labelled samples; those of two sets of samples add up exactly."""

    labelled: int
    distinct_classes: int  # summed over samples: classes that win a cell
    stored_values: int
    negative_values: int
    value_min: float | None
    value_max: float | None
    known_class: int  # samples whose folder is a class of the teacher
    agreeing: int  # those whose pooled label is that class
    winning_cells: NDArray[np.int64]  # (num_classes,)

    @classmethod
    def of(
        cls,
        indices: IndexArray,
        values: NDArray[np.float16],
        rest: FloatArray | None,
        class_indices: NDArray[np.int64],
        *,
        num_classes: int,
    ) -> Counts:
        """Count labelled samples.

        Parameters
        ----------
        indices, values
            ``(n, k, n_rows, n_cols)``, as stored: values are float16 numbers, without NaN.
        rest
            ``(n, n_rows, n_cols)`` or None.
        class_indices
            ``(n,)``, -1 where the folder is no class of the teacher.
        """
        n, _, n_rows, n_cols = indices.shape
        winners = indices[:, 0].reshape(n, n_rows * n_cols)
        known = class_indices >= 0
        values = values.astype(np.float16, copy=False)
        order = order_of(values)
        return cls(
            labelled=n,
            distinct_classes=_count_distinct(winners),
            stored_values=values.size,
            negative_values=int(np.count_nonzero(order < 0)),
            value_min=value_of_order(int(order.min())) if values.size else None,
            value_max=value_of_order(int(order.max())) if values.size else None,
            known_class=int(np.count_nonzero(known)),
            agreeing=_count_agreeing(indices, values, rest, class_indices, known, num_classes),
            winning_cells=np.bincount(winners.reshape(-1), minlength=num_classes),
        )

    @classmethod
    def total(cls, counts: Iterable[Counts], num_classes: int) -> Counts:
        """Return the counts over all the samples of several parts."""
        parts = list(counts)
        return cls(
            labelled=sum(part.labelled for part in parts),
            distinct_classes=sum(part.distinct_classes for part in parts),
            stored_values=sum(part.stored_values for part in parts),
            negative_values=sum(part.negative_values for part in parts),
            value_min=min((part.value_min for part in parts if part.value_min is not None), default=None),
            value_max=max((part.value_max for part in parts if part.value_max is not None), default=None),
            known_class=sum(part.known_class for part in parts),
            agreeing=sum(part.agreeing for part in parts),
            winning_cells=sum((part.winning_cells for part in parts), np.zeros(num_classes, np.int64)),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON types."""
        return {**self.__dict__, "winning_cells": self.winning_cells.tolist()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Counts:
        """Return the counts of a JSON object made by `to_json`."""
        return cls(**{**document, "winning_cells": np.array(document["winning_cells"], np.int64)})

    def summary(self, *, bad_images: int, exif_oriented: int) -> Statistics:
        """Return the statistics of the manifest."""
        return Statistics(
            labelled=self.labelled,
            bad_images=bad_images,
            exif_oriented=exif_oriented,
            distinct_classes_mean=_ratio(self.distinct_classes, self.labelled),
            value_min=self.value_min,
            value_max=self.value_max,
            negative_fraction=_ratio(self.negative_values, self.stored_values),
            winning_cells=tuple(self.winning_cells.tolist()),
            agreement=Agreement(self.known_class, self.agreeing) if self.known_class else None,
        )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _count_distinct(winners: NDArray[Any]) -> int:
    ordered = np.sort(winners, axis=1)  # (n, cells)
    return len(ordered) + int(np.count_nonzero(ordered[:, 1:] != ordered[:, :-1]))


_POOL_ROWS = 256  # pooled logits of so many samples at once: 2 MiB at 1,000 classes


def _count_agreeing(
    indices: IndexArray,
    values: NDArray[np.float16],
    rest: FloatArray | None,
    class_indices: NDArray[np.int64],
    known: NDArray[np.bool_],
    num_classes: int,
) -> int:
    rows = np.flatnonzero(known)
    agreeing = 0
    for start in range(0, len(rows), _POOL_ROWS):
        some = rows[start : start + _POOL_ROWS]
        pooled = pool_image(
            indices[some],
            as_float32(values[some]),
            num_classes=num_classes,
            rest=None if rest is None else rest[some],
        )
        agreeing += int(np.count_nonzero(pooled.argmax(axis=1) == class_indices[some]))
    return agreeing

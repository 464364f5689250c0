"""The arrays of a store: their names, shapes and dtypes, however they lie on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relabel_store import spec
from relabel_store.errors import FormatError
from relabel_store.manifest import AbsentRule, Manifest

MAX_CHUNK_BYTES = 2**30  # 256 rows of 15 x 15 x 5 take a thousandth of it
Array = NDArray[np.generic]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store.

    Attributes
    ----------
    shape
        The sample axis first.
    fill_value
        What rows without a label hold.
    is_rounded
        Whether its numbers are few enough to repeat, which decides what compresses them well.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fill_value: float
    dimensions: tuple[str, ...]
    is_rounded: bool

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one sample's."""
        return self.shape[1:]

    @property
    def row_size(self) -> int:
        """Count of numbers of one sample."""
        return int(np.prod(self.row_shape, dtype=np.int64))

    def empty(self, rows: int) -> NDArray[Any]:
        """Return room for some rows."""
        return np.empty((rows, *self.row_shape), self.dtype)

    def full(self, rows: int) -> NDArray[Any]:
        """Return some rows without labels."""
        return np.full((rows, *self.row_shape), self.fill_value, self.dtype)


def require_sane_chunks(manifest: Manifest) -> None:
    """Check that a chunk fits into memory, whatever the shapes that a manifest claims.

    Raises
    ------
    FormatError
        It does not.
    """
    label_map = manifest.label_map
    values = manifest.layout.chunk_rows * label_map.k * label_map.grid[0] * label_map.grid[1]
    size_bytes = values * spec.indices_dtype(label_map.num_classes).itemsize
    if size_bytes > MAX_CHUNK_BYTES:
        raise FormatError(
            f"manifest of {manifest.name!r}: a chunk of {manifest.layout.chunk_rows} rows takes {size_bytes:.1e} B, "
            f"expected at most {MAX_CHUNK_BYTES}; whoever made the store has to choose smaller chunks"
        )


def array_specs(manifest: Manifest) -> dict[str, ArraySpec]:
    """Return the arrays of a store by name."""
    label_map = manifest.label_map
    shape = (manifest.num_samples, label_map.k, *label_map.grid)
    half = np.dtype(np.float16)
    is_rounded = label_map.value_step != "exact"
    specs = [
        ArraySpec(
            spec.INDICES,
            shape,
            spec.indices_dtype(label_map.num_classes),
            spec.indices_fill_value(label_map.num_classes),
            spec.DIMENSIONS,
            is_rounded=True,
        ),
        ArraySpec(spec.VALUES, shape, half, np.nan, spec.DIMENSIONS, is_rounded=is_rounded),
    ]
    if label_map.absent is AbsentRule.REST:
        rest_shape = (manifest.num_samples, *label_map.grid)
        specs.append(ArraySpec(spec.REST, rest_shape, half, np.nan, spec.REST_DIMENSIONS, is_rounded=False))
    return {array.name: array for array in specs}

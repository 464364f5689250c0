from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from relabel_store.inspect.cells import borders, largest_block


@settings(max_examples=50)
@given(hnp.arrays(np.intp, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 2)))
def test_borders_equal_plain_loops(groups: NDArray[np.intp]) -> None:
    expected = set()
    n_rows, n_cols = groups.shape
    for row, col in np.ndindex(n_rows, n_cols):
        if col + 1 < n_cols and groups[row, col] != groups[row, col + 1]:
            expected.add(((col + 1, row), (col + 1, row + 1)))
        if row + 1 < n_rows and groups[row, col] != groups[row + 1, col]:
            expected.add(((col, row + 1), (col + 1, row + 1)))
    found = [tuple(map(tuple, border)) for border in borders(groups).tolist()]
    assert len(found) == len(expected)
    assert set(found) == expected


@settings(max_examples=50)
@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 6))).filter(np.any))
def test_largest_block_equals_plain_loops(mask: NDArray[np.bool_]) -> None:
    n_rows, n_cols = mask.shape
    expected = max(
        size
        for row, col in np.ndindex(n_rows, n_cols)
        for size in range(1, min(n_rows - row, n_cols - col) + 1)
        if mask[row : row + size, col : col + size].all()
    )
    row, col, size = largest_block(mask)
    assert size == expected
    assert mask[row : row + size, col : col + size].all()

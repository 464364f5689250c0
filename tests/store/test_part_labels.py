from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel_store.manifest import Manifest
from relabel_store.store.part_labels import PartLabels, filled_arrays, require_fitting
from relabel_store.testing import make_label_maps, make_manifest, make_part

K, NUM_CLASSES, STEP = 3, 4, 0.125
ANY_CLASSES = st.lists(st.integers(0, NUM_CLASSES), min_size=K, max_size=K)
ANY_VALUES = st.lists(
    st.sampled_from([2.0, 0.125, 0.0625, 0.0, -0.0, -1.0, math.inf, -math.inf, math.nan]),
    min_size=K,
    max_size=K,
)
# By chance alone few cells would be right.
CLASSES = ANY_CLASSES | st.permutations(range(NUM_CLASSES)).map(lambda classes: list(classes[:K]))
VALUES = ANY_VALUES | st.lists(st.sampled_from([2.0, 0.125, 0.0, -0.0, -1.0]), min_size=K, max_size=K).map(
    lambda values: sorted(values, reverse=True)
)


def follows_the_rules(classes: list[int], values: list[float]) -> bool:
    """Tell whether a cell is as the format wants it, one rule after the other."""
    if any(index >= NUM_CLASSES for index in classes) or len(set(classes)) < K:
        return False
    if not all(math.isfinite(value) and (value / STEP).is_integer() for value in values):
        return False
    return all(
        before > after or (before == after and index < next_index)
        for (before, index), (after, next_index) in itertools.pairwise(zip(values, classes, strict=True))
    )


def part_of(manifest: Manifest) -> PartLabels:
    return make_part(manifest, make_label_maps(np.random.default_rng(0), manifest), 0)


@given(st.integers(0, 3), CLASSES, VALUES)
def test_one_cell_is_judged_by_the_rules(row: int, classes: list[int], values: list[float]) -> None:
    manifest = make_manifest(4, k=K, num_classes=NUM_CLASSES, value_step=STEP)
    labels = part_of(manifest)
    labels.indices[row, :, 2, 1] = classes
    labels.values[row, :, 2, 1] = values
    if follows_the_rules(classes, values):
        require_fitting(manifest, 0, labels)
    else:
        with pytest.raises(ValueError, match=r"part 0: .*(class|ranks|step)"):
            require_fitting(manifest, 0, labels)


@pytest.mark.parametrize("row", [0, 127, 128, 299])
def test_every_sample_of_a_long_part_is_looked_at(row: int) -> None:
    manifest = make_manifest(300, shard_rows=300, chunk_rows=100)
    labels = part_of(manifest)
    require_fitting(manifest, 0, labels)
    labels.values[row, :, 2, 1] = 0.0625
    with pytest.raises(ValueError, match=r"part 0: (ranks|values are no multiples)"):
        require_fitting(manifest, 0, labels)


def test_where_all_samples_have_labels_they_are_stored_as_they_are() -> None:
    manifest = make_manifest(4)
    labels = part_of(manifest)
    arrays = filled_arrays(manifest, labels)
    assert list(arrays) == ["indices", "values"]
    assert np.array_equal(arrays["indices"], labels.indices)
    assert np.array_equal(arrays["values"], labels.values)

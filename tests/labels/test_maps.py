from __future__ import annotations

import numpy as np
import pytest

from relabel_store.labels.maps import LabelMaps
from relabel_store.manifest import AbsentRule
from relabel_store.testing import make_label_maps, make_manifest


def test_maps_are_as_many_as_their_samples(rng: np.random.Generator) -> None:
    assert len(make_label_maps(rng, make_manifest(n=7))) == 7


@pytest.mark.parametrize("position", [0, 3, -1])
def test_one_of_many_maps_has_the_arrays_of_its_sample(rng: np.random.Generator, position: int) -> None:
    maps = make_label_maps(rng, make_manifest(absent=AbsentRule.REST))
    label_map = maps[position]
    assert label_map.sample_id == maps.sample_ids[position]
    np.testing.assert_array_equal(label_map.indices, maps.indices[position])
    np.testing.assert_array_equal(label_map.values, maps.values[position])
    np.testing.assert_array_equal(label_map.rest, maps.rest[position])


def test_one_map_without_a_rest_has_none(rng: np.random.Generator) -> None:
    assert make_label_maps(rng, make_manifest())[0].rest is None


def test_a_position_past_the_last_sample_is_an_index_error(rng: np.random.Generator) -> None:
    maps = make_label_maps(rng, make_manifest(n=2))
    with pytest.raises(IndexError):
        maps[2]


def test_iterating_ends_after_the_last_sample(rng: np.random.Generator) -> None:
    maps = make_label_maps(rng, make_manifest(n=3))
    assert [label_map.sample_id for label_map in maps] == maps.sample_ids


def test_maps_of_nothing_are_empty() -> None:
    empty = np.zeros((0, 2, 3, 3))
    assert len(LabelMaps([], empty.astype(np.uint16), empty.astype(np.float16))) == 0

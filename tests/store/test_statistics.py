from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from relabel_store.labels.maps import LabelMaps
from relabel_store.labels.pooling import pool_image
from relabel_store.manifest import AbsentRule
from relabel_store.store.statistics import Counts
from relabel_store.testing import make_label_maps, make_manifest

NUM_CLASSES = 5


def draw_maps(rng: np.random.Generator, n: int, absent: AbsentRule) -> tuple[LabelMaps, NDArray[np.int64]]:
    maps = make_label_maps(rng, make_manifest(n=n, num_classes=NUM_CLASSES, absent=absent))
    return maps, rng.integers(-1, NUM_CLASSES, n)


def count(maps: LabelMaps, classes: NDArray[np.int64], rows: slice = slice(None)) -> Counts:
    return Counts.of(
        maps.indices[rows],
        maps.values[rows],
        None if maps.rest is None else maps.rest[rows],
        classes[rows],
        num_classes=NUM_CLASSES,
    )


def loop_counts(maps: LabelMaps, classes: NDArray[np.int64]) -> dict[str, Any]:
    """The same in plain Python, but for the pooling."""
    flat = maps.values.astype(float).ravel().tolist()
    winners = [maps.indices[sample, 0].ravel().tolist() for sample in range(len(maps))]
    pooled = pool_image(maps.indices, maps.values, num_classes=NUM_CLASSES, rest=maps.rest)
    known = [sample for sample in range(len(maps)) if classes[sample] != -1]
    return {
        "labelled": len(maps),
        "distinct_classes": sum(len(set(cells)) for cells in winners),
        "stored_values": len(flat),
        "negative_values": sum(value < 0 for value in flat),
        "value_min": min(flat),
        "value_max": max(flat),
        "known_class": len(known),
        "agreeing": sum(max(range(NUM_CLASSES), key=pooled[at].__getitem__) == classes[at] for at in known),
        "winning_cells": [sum(cells.count(index) for cells in winners) for index in range(NUM_CLASSES)],
    }


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 8), absent=st.sampled_from(AbsentRule))
def test_counts_are_those_of_a_plain_loop(seed: int, n: int, absent: AbsentRule) -> None:
    maps, classes = draw_maps(np.random.default_rng(seed), n, absent)
    assert count(maps, classes).to_json() == loop_counts(maps, classes)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 8), max_size=4))
def test_counts_of_the_parts_add_up_to_those_of_the_whole(seed: int, cuts: list[int]) -> None:
    maps, classes = draw_maps(np.random.default_rng(seed), 8, AbsentRule.REST)
    edges = [0, *sorted(cuts), 8]
    parts = [count(maps, classes, slice(*edge)) for edge in pairwise(edges)]
    assert Counts.total(parts, NUM_CLASSES).to_json() == count(maps, classes).to_json()


def test_counts_survive_json(rng: np.random.Generator) -> None:
    counts = count(*draw_maps(rng, 8, AbsentRule.ZERO))
    again = Counts.from_json(json.loads(json.dumps(counts.to_json())))
    assert again.to_json() == counts.to_json()


@pytest.mark.parametrize("absent", AbsentRule, ids=str)
def test_no_samples_count_nothing(rng: np.random.Generator, absent: AbsentRule) -> None:
    maps, classes = draw_maps(rng, 8, absent)
    statistics = count(maps, classes, slice(0, 0)).summary(bad_images=8, exif_oriented=0)
    assert (statistics.labelled, statistics.bad_images) == (0, 8)
    assert statistics.value_min is statistics.value_max is statistics.negative_fraction is None
    assert statistics.distinct_classes_mean is statistics.agreement is None
    assert statistics.winning_cells == (0,) * NUM_CLASSES


def test_more_samples_than_are_pooled_at_once_are_all_compared(rng: np.random.Generator) -> None:
    maps = make_label_maps(rng, make_manifest(n=600, grid=(1, 1), k=1, num_classes=NUM_CLASSES))
    classes = maps.indices.ravel().astype(np.int64)  # of the only cell: the pooled class as well
    assert count(maps, classes).agreeing == np.count_nonzero(maps.values.ravel() > 0)


def test_the_summary_holds_means_and_shares() -> None:
    counts = Counts(4, 6, 40, 10, -1.5, 8.0, 3, 2, np.array([20, 10, 6, 0, 0]))
    statistics = counts.summary(bad_images=1, exif_oriented=2)
    assert (statistics.labelled, statistics.bad_images, statistics.exif_oriented) == (4, 1, 2)
    assert (statistics.distinct_classes_mean, statistics.negative_fraction) == (1.5, 0.25)
    assert (statistics.value_min, statistics.value_max) == (-1.5, 8.0)
    assert statistics.winning_cells == (20, 10, 6, 0, 0)
    assert statistics.agreement is not None
    assert (statistics.agreement.samples, statistics.agreement.agreeing) == (3, 2)


def test_no_agreement_is_claimed_where_no_folder_is_a_class(rng: np.random.Generator) -> None:
    maps, _ = draw_maps(rng, 8, AbsentRule.ZERO)
    assert count(maps, np.full(8, -1)).summary(bad_images=0, exif_oriented=0).agreement is None

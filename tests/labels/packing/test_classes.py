from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from relabel_store.errors import FormatError
from relabel_store.labels.packing.classes import MAX_RANKS, PackedClasses, pack_classes, unpack_classes


def make_indices(
    rng: np.random.Generator, shape: tuple[int, int, int, int], num_classes: int, dtype: type = np.uint16
) -> NDArray[Any]:
    """Distinct classes in each cell, often those of its neighbours."""
    n, k, n_rows, n_cols = shape
    cells = np.stack([rng.permutation(num_classes)[:k] for _ in range(n * n_rows * n_cols)])
    indices = cells.reshape(n, n_rows, n_cols, k).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(indices).astype(dtype)


def unpack(packed: PackedClasses, num_classes: int, dtype: type = np.uint16) -> NDArray[Any]:
    into = np.full(packed.moves.shape, 7, dtype)
    unpack_classes(packed, num_classes, into)
    return into


def loop_pack(indices: NDArray[Any]) -> tuple[list[int], list[int], NDArray[Any], list[int]]:
    n, k, n_rows, n_cols = indices.shape
    reach = min(k, 127)
    sizes, gaps, places = [], [], []
    moves = np.zeros(indices.shape, np.int64)
    for sample in range(n):
        own = sorted(set(indices[sample].reshape(-1).tolist()))
        sizes.append(len(own))
        gaps += [own[0], *(after - before - 1 for before, after in pairwise(own))]
        for rank, row, col in np.ndindex(k, n_rows, n_cols):
            wanted = indices[sample, rank, row, col]
            left = indices[sample, :reach, row, col - 1].tolist() if col else []
            above = indices[sample, :reach, row - 1, col].tolist() if row else []
            if wanted in left:
                moves[sample, rank, row, col] = 1 + left.index(wanted)
            elif wanted in above:
                moves[sample, rank, row, col] = 1 + reach + above.index(wanted)
            else:
                places.append(own.index(wanted))
    return sizes, gaps, moves, places


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))


@settings(max_examples=150)
@given(shape=SHAPES, more=st.integers(0, 6), seed=st.integers(0, 2**32 - 1))
def test_classes_come_back_and_are_packed_as_a_plain_loop_does(
    shape: tuple[int, int, int, int], more: int, seed: int
) -> None:
    num_classes = shape[1] + more
    indices = make_indices(np.random.default_rng(seed), shape, num_classes)
    packed = pack_classes(indices)
    sizes, gaps, moves, places = loop_pack(indices)
    assert packed.sizes.tolist() == sizes
    assert packed.gaps.tolist() == gaps
    np.testing.assert_array_equal(packed.moves, moves)
    assert packed.places.tolist() == places
    np.testing.assert_array_equal(unpack(packed, num_classes), indices, strict=True)


@pytest.mark.parametrize(
    ("shape", "num_classes"),
    [((40, 5, 15, 15), 30), ((2, 5, 40, 1), 6), ((2, 5, 1, 40), 6), ((1, 2, 70, 70), 2), ((3, 1, 7, 7), 1)],
    ids=["several blocks", "one column", "one row", "larger than a block", "one class"],
)
def test_classes_of_larger_maps_come_back(
    rng: np.random.Generator, shape: tuple[int, int, int, int], num_classes: int
) -> None:
    indices = make_indices(rng, shape, num_classes)
    np.testing.assert_array_equal(unpack(pack_classes(indices), num_classes), indices, strict=True)


def test_a_class_is_followed_from_the_last_cell_to_the_first() -> None:
    indices = np.full((1, 1, 15, 15), 3, np.uint16)
    packed = pack_classes(indices)
    assert (packed.sizes.tolist(), packed.gaps.tolist(), packed.places.tolist()) == ([1], [3], [0])
    np.testing.assert_array_equal(unpack(packed, 4), indices)


def test_moves_fit_a_byte_however_many_ranks_there_are(rng: np.random.Generator) -> None:
    indices = make_indices(rng, (2, 200, 2, 3), 220)
    packed = pack_classes(indices)
    assert packed.moves.dtype == np.uint8
    assert packed.moves.max() == 2 * MAX_RANKS
    np.testing.assert_array_equal(unpack(packed, 220), indices, strict=True)


def test_the_largest_class_of_uint32_comes_back() -> None:
    indices = np.array([2**31 - 2, 0, 70_000], np.uint32).reshape(1, 3, 1, 1)
    np.testing.assert_array_equal(unpack(pack_classes(indices), 2**31 - 1, np.uint32), indices, strict=True)


def test_no_maps_at_all_are_packed_and_unpacked() -> None:
    indices = np.empty((0, 2, 3, 3), np.uint16)
    packed = pack_classes(indices)
    assert [len(numbers) for numbers in (packed.sizes, packed.gaps, packed.places)] == [0, 0, 0]
    np.testing.assert_array_equal(unpack(packed, 5), indices, strict=True)


# Hostile streams


def moved(packed: PackedClasses, row: int, col: int, move: int) -> PackedClasses:
    moves = packed.moves.copy()
    moves[0, 0, row, col] = move
    return replace(packed, moves=moves)


@pytest.fixture
def packed(rng: np.random.Generator) -> PackedClasses:
    return pack_classes(make_indices(rng, (2, 2, 3, 3), 6))


@pytest.mark.parametrize(
    ("row", "col", "move", "match"),
    [
        pytest.param(1, 0, 1, "leads out of the map", id="left of the first column"),
        pytest.param(1, 0, 2, "leads out of the map", id="second rank left of the first column"),
        pytest.param(0, 1, 3, "leads out of the map", id="above the first row"),
        pytest.param(0, 0, 4, "leads out of the map", id="above the first cell"),
        pytest.param(1, 1, 5, "moves: 5, expected at most 4", id="of a rank that is not there"),
        pytest.param(1, 1, 255, "moves: 255, expected at most 4", id="largest byte"),
    ],
)
def test_a_move_to_where_no_class_is_is_refused(
    packed: PackedClasses, row: int, col: int, move: int, match: str
) -> None:
    with pytest.raises(FormatError, match=match):
        unpack(moved(packed, row, col, move), 6)


def test_a_place_past_the_classes_of_its_map_is_refused(packed: PackedClasses) -> None:
    places = packed.places.copy()
    places[0] = packed.sizes[0]
    with pytest.raises(FormatError, match="places: one is past the last"):
        unpack(replace(packed, places=places), 6)


def test_a_class_that_the_teacher_does_not_have_is_refused(packed: PackedClasses) -> None:
    with pytest.raises(FormatError, match="classes: 5, expected below 5"):
        unpack(packed, 5)
    with pytest.raises(FormatError, match="classes: "):
        unpack(replace(packed, gaps=packed.gaps.astype(np.int64) + 2**32), 6)

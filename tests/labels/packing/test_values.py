from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from relabel_store.errors import ValueRangeError
from relabel_store.labels.packing.values import (
    pack_falls,
    pack_plane,
    to_integers,
    to_values,
    unpack_falls,
    unpack_plane,
)
from relabel_store.labels.values import ValueStep

EVERY_PATTERN = np.arange(2**16, dtype=np.uint16)


def back(integers: NDArray[np.uint16], step: float | None) -> NDArray[np.float16]:
    into = np.empty(integers.shape, np.float16)
    to_values(integers, step, into)
    return into


def test_every_float16_comes_back_bit_for_bit() -> None:
    values = EVERY_PATTERN.view(np.float16)
    assert np.array_equal(back(to_integers(values, None), None).view(np.uint16), EVERY_PATTERN)


def test_integers_rise_with_the_values() -> None:
    values = np.sort(EVERY_PATTERN.view(np.float16)[np.isfinite(EVERY_PATTERN.view(np.float16))])
    integers = to_integers(values, None).view(np.int16).astype(np.int64)
    assert (np.diff(integers)[np.diff(values.astype(np.float64)) > 0] > 0).all()


@pytest.mark.parametrize("step", [1.0, 0.125, 2**-10])
def test_every_value_of_a_step_comes_back(step: float) -> None:
    limit = int(ValueStep(step).limit / step)
    steps = np.arange(-limit, limit + 1)
    values = (steps * step).astype(np.float16)
    integers = to_integers(values, step)
    np.testing.assert_array_equal(integers.view(np.int16), steps)
    np.testing.assert_array_equal(back(integers, step), values, strict=True)


def test_minus_zero_becomes_zero_where_there_is_a_step() -> None:
    assert not np.signbit(back(to_integers(np.array([-0.0], np.float16), 0.125), 0.125)).any()


@pytest.mark.parametrize("value", [100.0, -100.0, np.nan])
def test_a_value_too_many_steps_from_zero_is_refused(value: float) -> None:
    with pytest.raises(ValueRangeError, match="expected at most 32767 steps"):
        to_integers(np.array([1, value], np.float16), 2**-10)


SHAPES = st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))


def random_integers(shape: tuple[int, ...], seed: int) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, 2**16, shape, np.uint16)


def loop_plane(numbers: NDArray[np.uint16]) -> NDArray[Any]:
    packed = np.zeros(numbers.shape, np.int64)
    for sample, row, col in np.ndindex(numbers.shape):
        at = numbers[sample].astype(np.int64)
        left = at[row, col - 1] if col else 0
        above = at[row - 1, col] if row else 0
        above_left = at[row - 1, col - 1] if row and col else 0
        difference = (at[row, col] - left - above + above_left + 2**15) % 2**16 - 2**15
        packed[sample, row, col] = 2 * difference if difference >= 0 else -2 * difference - 1
    return packed


@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1))
def test_planes_come_back_and_are_packed_as_a_plain_loop_does(shape: tuple[int, ...], seed: int) -> None:
    numbers = random_integers((shape[0], *shape[2:]), seed)
    packed = pack_plane(numbers)
    np.testing.assert_array_equal(packed, loop_plane(numbers))
    np.testing.assert_array_equal(unpack_plane(packed), numbers, strict=True)


@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1))
def test_falls_come_back_and_are_differences_of_neighbouring_ranks(shape: tuple[int, ...], seed: int) -> None:
    integers = random_integers(shape, seed)
    falls = pack_falls(integers)
    for rank in range(1, shape[1]):
        expected = (integers[:, rank - 1].astype(np.int64) - integers[:, rank]) % 2**16
        np.testing.assert_array_equal(falls[:, rank - 1], expected)
    found = unpack_falls(integers[:, 0], list(falls.swapaxes(0, 1)))
    np.testing.assert_array_equal(found, integers, strict=True)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relabel_store.errors import RelabelStoreError, ValueRangeError
from relabel_store.labels.values import ValueStep, as_float32, order_of, value_of_order

STEPS = [2.0**-exponent for exponent in range(11)]


@st.composite
def scores_and_step(draw: st.DrawFn) -> tuple[np.ndarray, ValueStep]:
    value_step = ValueStep(draw(st.sampled_from(STEPS)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    elements = st.floats(-value_step.limit, value_step.limit, width=32)
    return draw(hnp.arrays(dtype, st.integers(0, 20), elements=elements)), value_step


@given(scores_and_step())
def test_a_stored_value_is_at_most_half_a_step_from_the_score(case: tuple[np.ndarray, ValueStep]) -> None:
    scores, value_step = case
    assert value_step.step is not None
    stored = value_step.encode(scores)
    assert np.all(np.abs(stored.astype(np.float64) - scores.astype(np.float64)) <= value_step.step / 2)


@given(scores_and_step())
def test_a_stored_value_is_a_multiple_of_the_step(case: tuple[np.ndarray, ValueStep]) -> None:
    scores, value_step = case
    steps = value_step.encode(scores).astype(np.float64) / value_step.step
    np.testing.assert_array_equal(steps, np.rint(steps))


@given(scores_and_step())
def test_encoding_what_is_stored_changes_nothing(case: tuple[np.ndarray, ValueStep]) -> None:
    scores, value_step = case
    stored = value_step.encode(scores)
    np.testing.assert_array_equal(value_step.encode(stored.astype(np.float32)), stored)


@given(hnp.arrays(np.float32, st.integers(0, 20), elements=st.floats(-65504, 65504, width=32)))
def test_exact_is_the_cast_to_float16(scores: np.ndarray) -> None:
    np.testing.assert_array_equal(ValueStep(None).encode(scores), scores.astype(np.float16))


def test_a_score_between_two_steps_goes_to_the_even_one() -> None:
    scores = np.array([0.0625, 0.1875, 0.3125, -0.0625, -0.1875], np.float32)
    assert ValueStep(0.125).encode(scores).tolist() == [0.0, 0.25, 0.25, 0.0, -0.25]


@pytest.mark.parametrize(
    "step", [*STEPS, None], ids=lambda step: "exact" if step is None else f"1/{1 / step:.0f}"
)
def test_stored_values_are_float16_of_the_same_shape(step: float | None) -> None:
    stored = ValueStep(step).encode(np.zeros((2, 3, 4), np.float32))
    assert (stored.dtype, stored.shape) == (np.float16, (2, 3, 4))


@pytest.mark.parametrize("sign", [1, -1], ids=["positive", "negative"])
@pytest.mark.parametrize(
    "step", [*STEPS, None], ids=lambda step: "exact" if step is None else f"1/{1 / step:.0f}"
)
def test_a_score_at_the_limit_is_stored_as_it_is(step: float | None, sign: int) -> None:
    limit = sign * ValueStep(step).limit
    assert ValueStep(step).encode(np.array([limit], np.float32)).tolist() == [limit]


@pytest.mark.parametrize(
    "score",
    [256.25, -256.25, 1e30, float("inf"), float("-inf"), float("nan")],
    ids=["past the limit", "past the negative limit", "huge", "inf", "-inf", "nan"],
)
def test_a_score_that_the_step_cannot_hold_is_refused(score: float) -> None:
    with pytest.raises(
        ValueRangeError, match=r"expected at most 256, .*0\.125; choose a larger --value-step"
    ):
        ValueStep(0.125).encode(np.array([1.0, score], np.float32))


@pytest.mark.parametrize("score", [65536.0, float("inf"), float("nan")], ids=["past the limit", "inf", "nan"])
def test_a_score_that_float16_cannot_hold_is_refused(score: float) -> None:
    with pytest.raises(ValueRangeError, match="expected at most 65504"):
        ValueStep(None).encode(np.array([score], np.float32))


@pytest.mark.parametrize(
    ("text", "step"),
    [("exact", None), ("0.125", 0.125), ("1", 1.0), (0.25, 0.25), (1, 1.0), ("0.0009765625", 2**-10)],
    ids=str,
)
def test_a_step_is_parsed_from_its_name(text: str | float, step: float | None) -> None:
    assert ValueStep.parse(text) == ValueStep(step)


@pytest.mark.parametrize(
    "step", [*STEPS, None], ids=lambda step: "exact" if step is None else f"1/{1 / step:.0f}"
)
def test_a_step_survives_the_manifest(step: float | None) -> None:
    assert ValueStep.parse(ValueStep(step).to_json()) == ValueStep(step)


@pytest.mark.parametrize("text", ["", "Exact", "an eighth", "1/8", "0,125"], ids=repr)
def test_text_that_names_no_step_is_refused_with_what_was_read(text: str) -> None:
    with pytest.raises(ValueError, match=f"value step: {text!r}, expected 'exact' or a power of two"):
        ValueStep.parse(text)


@pytest.mark.parametrize(
    "step", ["0.1", "0.3", "0", "-0.125", "2", "0.00048828125", "nan", "inf", "-inf"], ids=repr
)
def test_a_step_that_float16_cannot_keep_is_refused(step: str) -> None:
    with pytest.raises(ValueError, match="expected 'exact' or a power of two from 1/1024 to 1"):
        ValueStep.parse(step)


def test_a_value_out_of_range_is_an_error_of_ours() -> None:
    assert issubclass(ValueRangeError, RelabelStoreError)


# The bits of float16: all of them


EVERY = np.arange(65_536, dtype=np.uint16).view(np.float16)
FINITE = EVERY[np.isfinite(EVERY)]


def test_integers_are_ordered_as_the_numbers_they_stand_for() -> None:
    numbers = np.sort(FINITE.astype(np.float32))
    np.testing.assert_array_equal(np.sort(order_of(FINITE)), order_of(numbers.astype(np.float16)))
    is_less = np.diff(order_of(numbers.astype(np.float16)).astype(int)) > 0
    np.testing.assert_array_equal(is_less, np.diff(numbers) > 0)


def test_an_integer_leads_back_to_its_number() -> None:
    back = [value_of_order(int(order)) for order in order_of(FINITE)]
    np.testing.assert_array_equal(back, FINITE.astype(np.float64))


@pytest.mark.parametrize("scale", [1.0, 8.0, 2.0**-10])
def test_float16_becomes_float32_as_numpy_has_it(scale: float) -> None:
    found = as_float32(FINITE, scale)
    np.testing.assert_array_equal(found, FINITE.astype(np.float32) * np.float32(scale), strict=True)


def test_arrays_that_are_no_block_of_memory_are_converted_too() -> None:
    some = FINITE[:60_000].reshape(3, -1, 4)[:, ::2]
    np.testing.assert_array_equal(as_float32(some), some.astype(np.float32))
    np.testing.assert_array_equal(order_of(some), order_of(some.copy()))

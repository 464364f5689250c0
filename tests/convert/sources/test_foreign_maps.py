from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel_store.convert.sources.foreign_maps import (
    are_probabilities,
    damaged_rows,
    encode_part,
    examine_maps,
    negative_fraction,
    require_fitting_absent_rule,
    require_logits,
    rest_of,
    whole_indices,
)
from relabel_store.errors import AbsentRuleError, LabelSourceError, ValueRangeError
from relabel_store.labels.topk import is_sorted, top_k
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import AbsentRule
from relabel_store.testing import make_manifest, make_sample_ids

IDS = make_sample_ids(4)


def maps(rng: np.random.Generator, n: int = 4, *, num_classes: int = 9, k: int = 3):
    """Scores of all classes, and the best of them in no order."""
    scores = rng.normal(4, 3, (n, num_classes, 2, 3)).astype(np.float32)
    indices, values = top_k(scores, k)
    order = rng.permuted(np.broadcast_to(np.arange(k)[None, :, None, None], indices.shape), axis=1)
    return scores, np.take_along_axis(indices, order, 1), np.take_along_axis(values, order, 1)


def rest_beside(scores, indices):
    """The log-sum-exp of the classes that are not kept."""
    is_kept = (indices[:, :, None] == np.arange(scores.shape[1])[:, None, None]).any(axis=1)
    return np.logaddexp.reduce(np.where(is_kept, -np.inf, scores), axis=1)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.uint64, np.int64, np.float16, np.float32, np.float64]
)
def test_indices_of_any_numeric_dtype_are_the_same_integers(rng, dtype) -> None:
    _, indices, _ = maps(rng)
    whole, reasons = whole_indices(indices.astype(dtype), 9, IDS)
    assert whole.dtype == np.int64
    np.testing.assert_array_equal(whole, indices)
    assert reasons == {}


@pytest.mark.parametrize("found", [-1.0, 0.5, np.nan, np.inf, -np.inf, 1e30], ids=str)
def test_numbers_that_are_no_class_damage_their_row_only(rng, found) -> None:
    _, indices, _ = maps(rng)
    wrong = indices.astype(np.float32)
    wrong[2, 1, 0, 1] = found
    whole, reasons = whole_indices(wrong, 9, IDS)
    assert list(reasons) == [2]
    assert f"class index {found:g}" in reasons[2]
    np.testing.assert_array_equal(whole[[0, 1, 3]], indices[[0, 1, 3]])


@pytest.mark.parametrize(("dtype", "found"), [(np.int32, -7), (np.uint64, 2**63)])
def test_integers_that_are_no_class_damage_their_row_only(rng, dtype, found) -> None:
    _, indices, _ = maps(rng)
    wrong = indices.astype(dtype)
    wrong[1, 0, 0, 0] = found
    assert list(whole_indices(wrong, 9, IDS)[1]) == [1]


def test_more_classes_than_there_are_is_an_error_with_the_option(rng) -> None:
    _, indices, _ = maps(rng)
    with pytest.raises(LabelSourceError, match=r"class index 8, expected below 8; .*--num-classes"):
        whole_indices(indices, 8, IDS)


def one_index(dtype, found: float):
    return np.full((1, 1, 1, 1), found, dtype)


def test_float16_indices_past_2048_are_refused_with_the_reason() -> None:
    with pytest.raises(LabelSourceError, match=r"2050 as float16, which rounds whole numbers past 2,048"):
        whole_indices(one_index(np.float16, 2050), 21_841, IDS)
    with pytest.raises(LabelSourceError, match="float16"):  # it may have been 2,049
        whole_indices(one_index(np.float16, 2048), 2050, IDS)


@pytest.mark.parametrize(
    ("dtype", "found", "num_classes"),
    [(np.float16, 2048, 2049), (np.float16, 2047, 21_841), (np.float32, 21_840, 21_841)],
)
def test_float_indices_that_are_certainly_exact_are_taken(dtype, found: int, num_classes: int) -> None:
    assert whole_indices(one_index(dtype, found), num_classes, IDS)[0].item() == found


def test_indices_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(LabelSourceError, match="of dtype bool, expected integers"):
        whole_indices(np.ones((1, 1, 1, 1), bool), 3, IDS)


@pytest.mark.parametrize(
    ("dtype", "found", "reason"),
    [
        ("float16", 2049, "2049 as float16, which rounds whole numbers past 2,048"),
        ("bfloat16", 256, "256 as bfloat16, which rounds whole numbers past 256"),
    ],
)
def test_rows_may_have_been_written_in_other_dtypes_than_they_are_in(dtype: str, found: int, reason: str):
    indices = np.concatenate([one_index(np.float32, 21_000), one_index(np.float32, found)])
    assert whole_indices(indices, 21_841, IDS, ["float32", "float32"])[1] == {}
    with pytest.raises(LabelSourceError, match=f"labels of {IDS[1]!r}: class index {reason}"):
        whole_indices(indices, 21_841, IDS, ["float32", dtype])


def examine(indices, values, rest=None, known=None, step: float | None = 0.125):
    return examine_maps(
        indices, values, rest, known or {}, num_classes=9, value_step=ValueStep(step), sample_ids=IDS
    )


def test_each_row_has_the_reason_that_explains_the_others(rng) -> None:
    _, indices, values = maps(rng)
    wrong = indices.astype(np.float32)
    wrong[0], wrong[1, :, 0, 0], wrong[2] = 99, 4, np.nan  # past the class count, twice, none
    values[0] = np.nan
    whole, reasons = examine(wrong, values, known={2: "torn"})
    assert reasons == {
        0: "value nan, expected a number of at most 256",
        1: "a class twice in cell (0, 0)",
        2: "torn",
    }
    np.testing.assert_array_equal(whole[3], indices[3])
    with pytest.raises(LabelSourceError, match="class index 99, expected below 9"):
        examine(wrong, np.zeros_like(values))


def test_a_value_past_what_the_step_holds_damages_its_row_only_and_names_the_option(rng) -> None:
    scores, indices, values = maps(rng)
    rest = rest_beside(scores, indices)
    values[1, 0, 0, 0], values[2, 0, 0, 0] = 257, 70_000
    rest[3] = -1000  # of the rest no step is asked
    reason = r"value 257, expected a number of at most 256, .*try --value-step exact"
    _, reasons = examine(indices, values, rest)
    assert sorted(reasons) == [1, 2]
    assert re.fullmatch(reason, reasons[1])
    assert reasons[2] == "value 70000, expected a number of at most 256"
    assert sorted(examine(indices, values, rest, step=None)[1]) == [2]


def test_the_share_of_negative_values_is_counted() -> None:
    assert negative_fraction(np.array([[-1.0, 0.0], [2.0, -0.5]])) == 0.5
    assert negative_fraction(np.zeros((0, 1))) == 0


def test_sound_rows_have_no_reason(rng) -> None:
    scores, indices, values = maps(rng)
    assert damaged_rows(indices, values, rest_beside(scores, indices), 9) == {}


@pytest.mark.parametrize("found", [np.nan, np.inf, -np.inf, 70_000], ids=str)
def test_values_that_float16_cannot_hold_damage_their_row_only(rng, found) -> None:
    scores, indices, values = maps(rng)
    rest = rest_beside(scores, indices)
    values[3, 0, 1, 2] = found
    rest[1, 0, 0] = found
    reasons = damaged_rows(indices, values, rest, 9)
    assert sorted(reasons) == [1, 3]
    assert f"value {found:g}, expected" in reasons[3]
    assert f"rest {found:g}, expected" in reasons[1]


def test_rest_is_not_looked_at_where_every_class_is_kept(rng) -> None:
    _, indices, values = maps(rng, num_classes=3)
    assert damaged_rows(indices, values, np.full((4, 2, 3), -np.inf), 3) == {}


@settings(max_examples=30)
@given(n=st.integers(0, 4), k=st.integers(1, 4), num_classes=st.integers(4, 7), seed=st.integers(0, 2**16))
def test_a_class_twice_in_a_cell_is_found_as_by_looking_at_each(n, k, num_classes, seed) -> None:
    indices = np.random.default_rng(seed).integers(0, num_classes, (n, k, 1, 2))
    found = damaged_rows(indices, np.ones(indices.shape), None, num_classes)
    expected = {}
    for row in range(n):
        twice = [at for at in range(2) if len(set(indices[row, :, 0, at].tolist())) < k]
        if twice:
            expected[row] = f"a class twice in cell (0, {twice[0]})"
    assert found == expected


def test_probabilities_are_told_from_logits(rng) -> None:
    scores, indices, values = maps(rng)
    likely = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert are_probabilities(np.take_along_axis(likely, indices, 1).astype(np.float16))
    assert are_probabilities(likely.astype(np.float16))  # of all classes, which come to 1 before rounding
    assert not are_probabilities(values)
    assert not are_probabilities(np.zeros_like(values))
    assert not are_probabilities(values[:0])
    assert not are_probabilities(np.full((1, 3, 1, 1), 0.5))


def test_probabilities_are_refused_with_what_to_write_instead(rng) -> None:
    with pytest.raises(
        LabelSourceError, match=r"'a.npz': all from 0 to 1.*expected logits.*np\.log\(values\)"
    ):
        require_logits(np.full((1, 2, 3, 3), 0.25), "values of 'a.npz'")
    require_logits(maps(rng)[2], "values")


def test_negative_logits_need_an_absent_rule_by_name() -> None:
    values = np.array([-1.0, 2, 3, 4]).reshape(1, 4, 1, 1)
    with pytest.raises(AbsentRuleError, match=r"values: 25% are negative.*--absent rest.*--absent zero"):
        require_fitting_absent_rule(values, None, "values")
    require_fitting_absent_rule(values, AbsentRule.ZERO, "values")
    require_fitting_absent_rule(values, AbsentRule.REST, "values")
    require_fitting_absent_rule(np.abs(values), None, "values")


@settings(max_examples=60)
@given(
    k=st.integers(1, 5),
    scale=st.sampled_from([0.1, 1.0, 30.0, 500.0]),
    shift=st.sampled_from([-800.0, 0.0, 900.0]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    seed=st.integers(0, 2**16),
)
def test_rest_is_the_log_sum_exp_of_what_is_not_kept(k, scale, shift, dtype, seed) -> None:
    """As far as the log-sum-exp of all classes can tell, and never less."""
    scores = (np.random.default_rng(seed).normal(0, scale, (1, 6, 1, 1)) + shift).astype(dtype)
    indices, values = top_k(scores, k)
    left = np.setdiff1d(np.arange(6), indices)
    numbers = [float(score) for score in scores.astype(np.float64).ravel()]
    most = max(numbers)
    true = most + math.log(math.fsum(math.exp(score - most) for score in numbers))
    logsumexp = np.full((1, 1, 1), true).astype(dtype)
    rest, reasons = rest_of(values, logsumexp, 6)
    assert reasons == {}
    mass = np.exp(rest.item() - true)
    expected = math.fsum(math.exp(numbers[cls] - true) for cls in left)
    step = float(np.spacing(np.asarray(max(abs(true), 1.0), dtype)))
    assert mass == pytest.approx(expected, rel=1e-9, abs=3 * step)


def test_rest_matches_float64_where_a_difference_of_exponentials_would_overflow_or_vanish() -> None:
    values = np.array([[1000.0, 999.0], [-2000.0, -2001.0], [0.0, -40.0]])[:, :, None, None]
    left = np.array([998.0, -2002.0, -60.0])
    best = np.maximum(values.max(axis=1)[:, 0, 0], left)
    total = best + np.log(np.exp(values[:, :, 0, 0] - best[:, None]).sum(axis=1) + np.exp(left - best))
    rest, _ = rest_of(values, total[:, None, None], 3)
    np.testing.assert_allclose(rest[:2, 0, 0], left[:2], rtol=1e-12)
    assert (
        -60 <= rest[2, 0, 0] <= -40
    )  # float64 cannot tell e**-60 from nothing beside 1; -40 was the last kept
    assert np.isfinite(rest).all()


def test_a_log_sum_exp_below_that_of_the_kept_classes_damages_its_row() -> None:
    values = np.array([[3.0, 2.0], [3.0, 2.0]], np.float32)[:, :, None, None]
    total = np.logaddexp(3.0, 2.0) + np.array([0.3, -0.01])
    _, reasons = rest_of(values, total.astype(np.float32)[:, None, None], 5)
    assert list(reasons) == [1]
    assert "less than that of the kept ones" in reasons[1]


def test_no_rest_is_more_than_the_last_kept_class_allows() -> None:
    """A float32 of 51 moves in steps of e**-12.5 of it, which is e**38 where the last of the kept classes has 15."""
    values = np.array([[51.0, 15.0]], np.float32)[:, :, None, None]
    rest, reasons = rest_of(values, np.full((1, 1, 1), 51, np.float32), 1000)
    assert reasons == {}
    assert rest.item() == pytest.approx(15 + math.log(998))


def test_a_log_sum_exp_past_what_absent_classes_can_give_damages_its_row() -> None:
    values = np.array([[3.0, 2.0], [3.0, 2.0]], np.float32)[:, :, None, None]
    total = np.log(np.exp(3) + np.exp(2) + 3 * np.exp(2)) + np.array([0.0, 0.01])
    _, reasons = rest_of(values, total.astype(np.float32)[:, None, None], 5)
    assert list(reasons) == [1]
    assert "none is better than the last" in reasons[1]


def test_a_rest_that_is_that_of_all_classes_damages_its_row(rng) -> None:
    scores, indices, values = maps(rng)
    rest = rest_beside(scores, indices)
    assert examine(indices, values, rest)[1] == {}
    rest[2] = np.logaddexp.reduce(scores[2], axis=0) + 5
    assert list(examine(indices, values, rest)[1]) == [2]
    assert "expected the log-sum-exp of the classes not kept" in examine(indices, values, rest)[1][2]


def test_nothing_is_left_where_every_class_is_kept() -> None:
    rest, reasons = rest_of(np.zeros((2, 3, 1, 1)), np.zeros((2, 1, 1)), 3)
    assert np.isneginf(rest).all()
    assert reasons == {}


@pytest.mark.parametrize("absent", AbsentRule)
def test_a_part_is_in_stored_order_with_rows_of_the_fill_value_for_reasons(rng, absent) -> None:
    manifest = make_manifest(6, grid=(2, 3), k=3, num_classes=9, value_step=0.5, absent=absent)
    scores, indices, values = maps(rng, 2)
    values[0] = np.nan
    rest = None if absent is AbsentRule.ZERO else scores[:, 0]
    labels = encode_part(indices, values, rest, {0: "torn"}, manifest, 1)
    assert [(bad.row, bad.reason) for bad in labels.bad_images] == [(4, "torn")]
    assert labels.is_labelled.tolist() == [False, True]
    assert is_sorted(labels.indices[1:], labels.values[1:]).all()
    for rank in range(3):
        at = np.take_along_axis(scores[1:], labels.indices[1:, rank : rank + 1].astype(np.int64), 1)
        assert np.abs(at - labels.values[1:, rank : rank + 1]).max() <= 0.25
    assert (labels.indices[0] == 65_535).all()
    if rest is not None:
        np.testing.assert_array_equal(labels.rest[1], rest[1].astype(np.float16))


def test_minus_infinity_is_the_rest_where_every_class_is_kept(rng) -> None:
    manifest = make_manifest(4, grid=(2, 3), k=3, num_classes=3, absent=AbsentRule.REST)
    _, indices, values = maps(rng, num_classes=3)
    labels = encode_part(indices, values, np.zeros((4, 2, 3)), {}, manifest, 0)
    assert np.isneginf(labels.rest).all()


def test_a_value_past_what_the_step_holds_names_the_option(rng) -> None:
    manifest = make_manifest(4, grid=(2, 3), k=3, num_classes=9)
    _, indices, values = maps(rng)
    with pytest.raises(ValueRangeError, match="--value-step"):
        encode_part(indices, values + 1000, None, {}, manifest, 0)

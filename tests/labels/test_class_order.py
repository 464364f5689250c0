from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel_store.labels.class_order import MIN_SAMPLES, compare_class_orders

CLASSES = 40


def labels(rng: np.random.Generator, n: int = 800, *, right: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Return folders, and what a teacher names that is right so often and else anything."""
    folder = np.sort(rng.integers(0, CLASSES, n))
    return folder, np.where(rng.random(n) < right, folder, rng.integers(0, CLASSES, n))


def test_a_recorded_order_that_fits_is_explained_by_no_other(rng) -> None:
    order = compare_class_orders(*labels(rng), CLASSES)
    assert order.share > 0.75
    assert order.verdict is None
    assert not order.is_low


@pytest.mark.parametrize(
    ("stored", "phrase"),
    [
        (lambda pooled: (pooled + 1) % CLASSES, "one too high"),
        (lambda pooled: (pooled - 1) % CLASSES, "one too low"),
        (lambda pooled: CLASSES - 1 - pooled, "reverse"),
    ],
)
def test_orders_that_are_known_are_told_with_one_image_a_class(rng, stored, phrase: str) -> None:
    folder = np.arange(CLASSES).repeat(2)  # a permutation that is read off two images would be no proof
    order = compare_class_orders(folder, stored(folder), CLASSES)
    assert order.verdict is not None
    assert phrase in order.verdict.phrase
    assert order.verdict.share == 1.0


def test_a_permutation_is_read_off_the_labels_of_each_folder(rng) -> None:
    folder, pooled = labels(rng)
    order = compare_class_orders(folder, rng.permutation(CLASSES)[pooled], CLASSES)
    assert order.verdict is not None
    assert "permuted" in order.verdict.phrase
    assert order.verdict.share == pytest.approx(0.8, abs=0.06)


def test_another_class_list_is_told_by_its_name(rng) -> None:
    folder, pooled = labels(rng, 60)
    listed = rng.permutation(CLASSES)
    order = compare_class_orders(folder, listed[pooled], CLASSES, {"sorted otherwise": listed})
    assert order.verdict is not None
    assert order.verdict.phrase == "sorted otherwise"


def test_labels_of_other_images_are_low_and_unexplained(rng) -> None:
    folder, pooled = labels(rng)
    order = compare_class_orders(folder, rng.permutation(pooled), CLASSES)
    assert order.is_low
    assert order.verdict is None


def test_a_permutation_is_not_read_off_one_image_a_class(rng) -> None:
    order = compare_class_orders(np.arange(1000), rng.permutation(1000), 1000)
    assert order.verdict is None
    assert order.is_low


def test_a_teacher_that_takes_some_classes_for_others_is_not_taken_for_a_permutation(rng) -> None:
    folder, pooled = labels(rng)
    order = compare_class_orders(folder, np.where(pooled < 10, (pooled + 3) % CLASSES, pooled), CLASSES)
    assert order.verdict is None


def test_one_class_for_all_images_is_no_permutation() -> None:
    order = compare_class_orders(np.arange(CLASSES).repeat(20), np.full(CLASSES * 20, 3), CLASSES)
    assert order.verdict is None
    assert order.is_low


def test_few_samples_decide_nothing(rng) -> None:
    folder = np.arange(MIN_SAMPLES - 1) % CLASSES
    order = compare_class_orders(folder, (folder + 1) % CLASSES, CLASSES)
    assert order.verdict is None
    assert not order.is_low
    nothing = compare_class_orders(np.empty(0, np.int64), np.empty(0, np.int64), CLASSES)
    assert (nothing.share, nothing.verdict, nothing.is_low) == (0.0, None, False)


def slow_permutation(folder: list[int], pooled: list[int]) -> tuple[int, int]:
    """Return agreeing and judged samples, by counting class by class."""
    order = sorted(range(len(folder)), key=lambda at: folder[at])
    halves = order[::2], order[1::2]
    agreeing = judged = 0
    for learnt, other in (halves, halves[::-1]):
        names: dict[int, Counter[int]] = {}
        for at in learnt:
            names.setdefault(folder[at], Counter())[pooled[at]] += 1
        # Of equally frequent ones the highest class.
        best = {of: max(found.items(), key=lambda item: (item[1], item[0]))[0] for of, found in names.items()}
        for name in set(best.values()):
            rivals = [of for of in best if best[of] == name]
            keeper = max(rivals, key=lambda of: (names[of][name], of))
            best.update({of: -1 for of in rivals if of != keeper})
        judged += sum(folder[at] in best for at in other)
        agreeing += sum(best.get(folder[at]) == pooled[at] for at in other)
    return agreeing, judged


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=60))
def test_counts_are_those_of_counting_class_by_class(pairs: list[tuple[int, int]]) -> None:
    folder, pooled = [one for one, _ in pairs], [other for _, other in pairs]
    order = compare_class_orders(np.array(folder, np.int64), np.array(pooled, np.int64), 6)
    high, low, reverse, permutation = order.candidates
    assert order.agreeing == sum(one == other for one, other in pairs)
    assert high.agreeing == sum((one + 1) % 6 == other for one, other in pairs)
    assert low.agreeing == sum((one - 1) % 6 == other for one, other in pairs)
    assert reverse.agreeing == sum(5 - one == other for one, other in pairs)
    assert (permutation.agreeing, permutation.samples) == slow_permutation(folder, pooled)

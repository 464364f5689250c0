"""Whether the classes of labels are in the order that the images' folders say, and if not, in which one they are.

The pooled label of a whole image mostly names the class of its folder. Where it seldom does, another order of the same
classes may explain it: each candidate maps the class of a folder to that of the labels, and is judged by how often the
labels then agree. What is said by nobody, a permutation, is read off half of the samples and judged on the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ClassIndices = NDArray[np.int64]

DECISIVE_Z = 5.0
"""Standard errors by which another order has to win: by chance once in three million."""
MIN_SAMPLES = 50  # a share of fewer says little
LOW_AGREEMENT = 0.2
"""Below it something is wrong with nearly every teacher, images or order: the weakest of timm's reach 0.6."""
_EXPLAINS = 0.5  # of what an order has to explain to be called the one


@dataclass(frozen=True)
class Candidate:
    """An order that the classes might be in.

    Parameters
    ----------
    phrase
        What to call it in a sentence.
    agreeing
        Samples whose pooled label is what it makes of the class of their folder.
    samples
        Samples that it says something of.
    z
        Standard errors by which it is right more often than the recorded order, among the same samples.
    """

    phrase: str
    agreeing: int
    samples: int
    z: float

    @property
    def share(self) -> float:
        """How often it is right."""
        return self.agreeing / self.samples if self.samples else 0.0


@dataclass(frozen=True)
class ClassOrder:
    """What labels and folders say of the order of the classes.

    Parameters
    ----------
    samples, agreeing
        Of known class; those of them whose pooled label is the class of their folder.
    candidates
        The other orders that were tried.
    """

    samples: int
    agreeing: int
    candidates: tuple[Candidate, ...]

    @property
    def share(self) -> float:
        """How often the recorded order is right."""
        return self.agreeing / self.samples if self.samples else 0.0

    @property
    def verdict(self) -> Candidate | None:
        """The order that the classes are in instead of the recorded one; None where there is none such."""
        known = [
            candidate
            for candidate in self.candidates
            if self.samples >= MIN_SAMPLES
            and candidate.z >= DECISIVE_Z
            and candidate.share >= max(_EXPLAINS, 2 * self.share)
        ]
        return max(known, key=lambda candidate: candidate.z, default=None)

    @property
    def is_low(self) -> bool:
        """Whether labels and folders agree as seldom as they do where something is wrong."""
        return self.samples >= MIN_SAMPLES and self.share < LOW_AGREEMENT


def compare_class_orders(
    folder: ClassIndices,
    pooled: ClassIndices,
    num_classes: int,
    lists: Mapping[str, ClassIndices] | None = None,
) -> ClassOrder:
    """Return how often labels agree with folders, in the recorded order and in others.

    Parameters
    ----------
    folder
        ``(n,)``, the recorded class index of each sample's folder.
    pooled
        ``(n,)``, the best class of each sample's pooled label map.
    lists
        Further orders by name: for each recorded class index the one that a label would have, int64 ``(num_classes,)``.
    """
    classes = np.arange(num_classes)
    orders = {
        "each class is stored one too high, as where a background class comes first": (classes + 1)
        % num_classes,
        "each class is stored one too low, as where a background class was left out": (classes - 1)
        % num_classes,
        "the classes are in reverse order": classes[::-1],
        **(lists or {}),
    }
    is_right = pooled == folder
    candidates = [
        _candidate(phrase, pooled == order[folder], is_right)
        for phrase, order in orders.items()
        if not np.array_equal(order, classes)
    ]
    return ClassOrder(
        len(folder), int(is_right.sum()), (*candidates, _permutation(folder, pooled, num_classes))
    )


def _candidate(phrase: str, is_explained: NDArray[np.bool_], is_right: NDArray[np.bool_]) -> Candidate:
    # McNemar's test: only samples on which the two orders differ tell them apart.
    only_this, only_that = int((is_explained & ~is_right).sum()), int((is_right & ~is_explained).sum())
    z = (only_this - only_that) / np.sqrt(max(only_this + only_that, 1))
    return Candidate(phrase, int(is_explained.sum()), len(is_right), float(z))


def _permutation(folder: ClassIndices, pooled: ClassIndices, num_classes: int) -> Candidate:
    """Return the order in which each folder's class is what its labels name most often, learnt and judged crosswise."""
    # Halves by turns within each class: the samples of one lie together.
    ordered = np.argsort(folder, kind="stable")
    halves = ordered[::2], ordered[1::2]
    explained, right = [], []
    for learnt, judged in (halves, halves[::-1]):
        order = _most_frequent(folder[learnt], pooled[learnt], num_classes)
        known = judged[order[folder[judged]] >= 0]
        explained.append(order[folder[known]] == pooled[known])
        right.append(folder[known] == pooled[known])
    return _candidate(
        "the classes are permuted: the labels of a folder mostly name one class, and another than its own",
        np.concatenate(explained),
        np.concatenate(right),
    )


def _most_frequent(folder: ClassIndices, pooled: ClassIndices, num_classes: int) -> ClassIndices:
    """Return the class that the labels of each folder name most often, -1 where there are none.

    Of folders that name the same one, those that name it less often get a class that does not exist: labels that are
    of one class for all folders are no permutation.
    """
    pairs, counts = np.unique(folder * num_classes + pooled, return_counts=True)
    by_count = np.argsort(counts, kind="stable")
    folders, names = pairs[by_count] // num_classes, pairs[by_count] % num_classes
    order = np.full(num_classes, -1, np.int64)
    order[folders] = names  # the most frequent is written last
    owner = np.full(num_classes, -1, np.int64)
    is_best = order[folders] == names
    owner[names[is_best]] = folders[is_best]
    known = np.flatnonzero(order >= 0)
    order[known[owner[order[known]] != known]] = num_classes
    return order

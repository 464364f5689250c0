"""Rules of label maps: what the numbers of a cell may be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relabel_store import spec
from relabel_store.labels.topk import IndexArray
from relabel_store.labels.values import ValueStep, as_float32, order_of
from relabel_store.manifest import Manifest
from relabel_store.store.encodings import encoding_of
from relabel_store.validate.finding import Finding, Place, Problem
from relabel_store.validate.rule import Level, check
from relabel_store.validate.scan import ScannedPart

Mask = NDArray[np.bool_]

_ROWS = 256  # at a time: what is made of them on the way stays in the processor's cache
_NAMED = 3  # rows of a block that get a finding of their own
_REBUILD = "build its part again"

# The bits of a float16: comparing these takes a fifth of the time of comparing the numbers.
_MAGNITUDE = np.int16(0x7FFF)
_INFINITY = np.int16(0x7C00)


@dataclass(frozen=True)
class Labels:
    """Some rows of a part, in their order.

    Parameters
    ----------
    rows
        int64 ``(n,)``.
    indices, values
        ``(n, k, n_rows, n_cols)``.
    rest
        ``(n, n_rows, n_cols)``, or None.
    is_labelled
        bool ``(n,)``.
    """

    manifest: Manifest
    part: int
    rows: NDArray[np.int64]
    indices: IndexArray
    values: NDArray[np.float16]
    rest: NDArray[np.float16] | None
    is_labelled: Mask

    def of(self, keep: Mask) -> Labels:
        """Return some of the rows; a view where that is all of them."""
        if keep.all():
            return self
        return replace(
            self,
            rows=self.rows[keep],
            indices=self.indices[keep],
            values=self.values[keep],
            rest=None if self.rest is None else self.rest[keep],
            is_labelled=self.is_labelled[keep],
        )

    def file_of(self, array: str) -> str:
        """Return the file that holds an array."""
        files = encoding_of(self.manifest).files_of_part(self.manifest, self.part)
        return next(name for name, held in files.items() if held in (array, None))


def blocks_of(part: ScannedPart) -> Iterator[Labels]:
    """Yield the rows of a part, some at a time."""
    rest = part.arrays.get(spec.REST)
    rows = np.arange(part.rows.start, part.rows.stop, dtype=np.int64)
    for start in range(0, len(rows), _ROWS):
        some = slice(start, start + _ROWS)
        yield Labels(
            manifest=part.manifest,
            part=part.part,
            rows=rows[some],
            indices=part.arrays[spec.INDICES][some],
            values=part.arrays[spec.VALUES][some],
            rest=None if rest is None else rest[some],
            is_labelled=part.is_labelled[some],
        )


def label_findings(labels: Labels) -> Iterator[Finding]:
    """Yield what is wrong with some rows."""
    yield from check_fill(labels)
    labelled = labels.of(labels.is_labelled & ~_is_empty(labels))
    if not len(labelled.rows):
        return
    for rule in _OF_LABELLED:
        yield from rule(labelled)


@check("RS611", "F33", "F44", level=Level.CONTENT)
def check_fill(labels: Labels) -> Iterator[Problem]:
    """Rows without a label hold fill values and nothing else, and rows with one hold a label."""
    is_empty = _is_empty(labels) & labels.is_labelled
    yield from _problems(
        labels, spec.INDICES, is_empty, lambda _: "labelled, and holds fill values", "a label map"
    )
    without = labels.of(~labels.is_labelled)
    if not len(without.rows):
        return
    arrays: list[tuple[str, NDArray[Any], Any]] = [
        (spec.INDICES, without.indices, spec.indices_fill_value(labels.manifest.label_map.num_classes)),
        (spec.VALUES, without.values, None),
    ]
    if without.rest is not None:
        arrays.append((spec.REST, without.rest, None))
    for name, numbers, fill in arrays:
        is_other = ~np.isnan(numbers) if fill is None else numbers != fill
        yield from _problems(
            without,
            name,
            is_other,
            lambda at, numbers=numbers: f"{numbers[at]} in a row without a label",  # type: ignore[misc]
            f"the fill value {'NaN' if fill is None else fill}",
        )


def _is_empty(labels: Labels) -> Mask:
    """Tell which rows hold fill values in every cell: bool ``(n,)``."""
    fill = spec.indices_fill_value(labels.manifest.label_map.num_classes)
    first = labels.indices[:, 0, 0, 0] == fill
    is_empty: Mask = first.copy()
    if first.any():  # never of a sound store but in rows without a label
        is_empty[first] = (labels.indices[first] == fill).all(axis=(1, 2, 3))
    return is_empty


@check("RS612", "F13", level=Level.CONTENT)
def check_classes(labels: Labels) -> Iterator[Problem]:
    """Class indices are below `label_map.num_classes`."""
    num_classes, indices = labels.manifest.label_map.num_classes, labels.indices
    if int(indices.max()) >= num_classes:
        yield from _problems(
            labels,
            spec.INDICES,
            indices >= num_classes,
            lambda at: f"class index {indices[at]}",
            f"0 to {num_classes - 1}",
        )


@check("RS613", "F12", level=Level.CONTENT)
def check_distinct(labels: Labels) -> Iterator[Problem]:
    """The classes of a cell are distinct."""
    indices, k = labels.indices, labels.indices.shape[1]
    if k > _PAIRWISE:
        ordered = np.sort(indices, axis=1)
        if not (ordered[:, 1:] == ordered[:, :-1]).any():
            return
    elif not any((indices[:, apart:] == indices[:, :-apart]).any() for apart in range(1, k)):
        return
    is_again = np.zeros(indices.shape, np.bool_)
    for rank in range(1, k):
        is_again[:, rank] = (indices[:, :rank] == indices[:, rank, None]).any(axis=1)
    yield from _problems(
        labels,
        spec.INDICES,
        is_again,
        lambda at: f"class {indices[at]} a second time in its cell",
        "each class once",
    )


_PAIRWISE = 16  # ranks; of more, sorting is faster


@check("RS614", "F11", level=Level.CONTENT)
def check_finite(labels: Labels) -> Iterator[Problem]:
    """Values are finite."""
    is_bad = _is_not_finite(labels.values)
    if is_bad is not None:
        yield from _problems(
            labels, spec.VALUES, is_bad, lambda at: f"value {labels.values[at]}", "a finite number"
        )


def _is_not_finite(values: NDArray[np.float16]) -> Mask | None:
    """Tell which values are NaN or infinite; None where none is."""
    magnitude = values.view(np.int16) & _MAGNITUDE
    if magnitude.max() < _INFINITY:
        return None
    is_bad: Mask = magnitude >= _INFINITY
    return is_bad


@check("RS615", "F12", level=Level.CONTENT)
def check_order(labels: Labels) -> Iterator[Problem]:
    """Ranks of a cell are ordered by falling value, and by rising class index where values are equal."""
    order, indices = order_of(labels.values), labels.indices
    before, after = order[:, :-1], order[:, 1:]
    is_tied = before == after
    in_order = (before > after) | (is_tied & (indices[:, :-1] < indices[:, 1:]))
    if in_order.all():
        return
    in_order |= is_tied & (indices[:, :-1] == indices[:, 1:])  # that is RS613
    not_finite = _is_not_finite(labels.values)
    if not_finite is not None:  # that is RS614
        in_order |= not_finite[:, :-1] | not_finite[:, 1:]
    is_bad = np.zeros(indices.shape, np.bool_)
    is_bad[:, 1:] = ~in_order

    def found(at: tuple[int, ...]) -> str:
        row, rank, *cell = at
        pairs = [(labels.values[row, r, *cell], indices[row, r, *cell]) for r in (rank - 1, rank)]
        return " before ".join(f"{value:g} of class {index}" for value, index in pairs)

    yield from _problems(labels, spec.VALUES, is_bad, found, "falling values, of equal ones rising classes")


@check("RS616", "F11", level=Level.CONTENT)
def check_step(labels: Labels) -> Iterator[Problem]:
    """Values are multiples of `label_map.value_step`, and small enough for float16 to hold all of these."""
    step = ValueStep.parse(labels.manifest.label_map.value_step)
    if step.step is None:
        return
    steps = as_float32(labels.values, 1 / step.step)
    most = step.limit / step.step
    if (np.rint(steps) == steps).all() and -most <= steps.min() and steps.max() <= most:
        return
    is_bad = (np.rint(steps) != steps) | (np.abs(steps) > most)
    not_finite = _is_not_finite(labels.values)
    if not_finite is not None:
        is_bad &= ~not_finite
    yield from _problems(
        labels,
        spec.VALUES,
        is_bad,
        lambda at: f"value {labels.values[at]:g}",
        f"a multiple of {step.step:g}, at most {step.limit:g}",
    )


@check("RS617", "F19", level=Level.CONTENT)
def check_rest(labels: Labels) -> Iterator[Problem]:
    """The rest of a cell is finite; where every class is kept, minus infinity."""
    rest, label_map = labels.rest, labels.manifest.label_map
    if rest is None:
        return
    is_all_kept = label_map.k == label_map.num_classes
    is_bad = ~np.isneginf(rest) if is_all_kept else ~np.isfinite(rest)
    expected = "minus infinity, as every class is kept" if is_all_kept else "a finite number"
    yield from _problems(labels, spec.REST, is_bad, lambda at: f"rest {rest[at]}", expected)


@check("RS618", "F10", "F19", level=Level.CONTENT)
def check_rest_is_below_kept(labels: Labels) -> Iterator[Problem]:
    """The rest of a cell is at most what the classes not kept would give if each were as good as the last one kept."""
    rest, label_map = labels.rest, labels.manifest.label_map
    left = label_map.num_classes - label_map.k
    if rest is None or not left:
        return
    step = ValueStep.parse(label_map.value_step).step
    last = labels.values[:, -1].astype(np.float32)
    # Both numbers were rounded: the value to half a step or to float16, the rest to float16.
    slack = (step or 0) / 2 + 2.0**-10 * (np.abs(last) + np.abs(rest.astype(np.float32))) + 1e-3
    with np.errstate(invalid="ignore"):  # NaN and infinity are RS614 and RS617
        is_bad = rest.astype(np.float32) > last + np.float32(np.log(left)) + slack
    is_bad &= np.isfinite(rest) & np.isfinite(last)
    yield from _problems(
        labels,
        spec.REST,
        is_bad,
        lambda at: f"rest {rest[at]:g} of {left} classes, the last one kept has {last[at]:g}",
        f"at most {np.log(left):.3f} more than that one",
    )


_OF_LABELLED = (
    check_classes,
    check_distinct,
    check_finite,
    check_order,
    check_step,
    check_rest,
    check_rest_is_below_kept,
)


def _problems(
    labels: Labels,
    array: str,
    is_bad: Mask,
    found: Callable[[tuple[int, ...]], str],
    expected: str,
) -> Iterator[Problem]:
    """Yield a problem for each of the first rows that have one, and one for all the others.

    Parameters
    ----------
    is_bad
        ``(n,)`` or as many axes as the array has: which numbers break the rule.
    found
        Says what is at a position of `is_bad`.
    """
    rows = np.flatnonzero(is_bad.reshape(len(is_bad), -1).any(axis=1))
    for position, row in enumerate(rows[: _NAMED + 1].tolist()):
        inner = np.unravel_index(int(np.argmax(is_bad[row])), is_bad.shape[1:])
        at = (row, *(int(step) for step in inner))
        yield Problem(
            _place(labels, array, at),
            found(at),
            expected,
            _REBUILD,
            count=1 if position < _NAMED else len(rows) - _NAMED,
        )


def _place(labels: Labels, array: str, at: tuple[int, ...]) -> Place:
    row, *inner = at
    place = Place(file=labels.file_of(array), row=int(labels.rows[row]))
    if len(inner) == 3:
        return replace(place, rank=inner[0], cell=(inner[1], inner[2]))
    return replace(place, cell=(inner[0], inner[1])) if len(inner) == 2 else place

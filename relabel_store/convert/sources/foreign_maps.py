"""Arrays of other people's label maps, checked: which rows are damaged, and what cannot be label maps at all.

Damage of a row is a reason, by its position among the rows that were looked at, and the other rows are used. What
would make every row wrong (probabilities, too few classes, indices that were rounded) is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relabel_store import spec
from relabel_store.convert.source import encode_scores, facts_of
from relabel_store.errors import AbsentRuleError, LabelSourceError
from relabel_store.labels.topk import FloatArray, IndexArray, has_repeated_classes
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import AbsentRule, Manifest
from relabel_store.store.arrays import array_specs
from relabel_store.store.journal import BadImage
from relabel_store.store.part_labels import PartLabels

Reasons = dict[int, str]

_EXACT = ValueStep(None)
_SUM_TOLERANCE = 0.01  # of float16 probabilities of a cell, each rounded on its own
MAX_NEGATIVE_FRACTION = 0.01  # as `build` has it


def examine_maps(
    indices: NDArray[Any],
    values: FloatArray,
    rest: FloatArray | None,
    known: Mapping[int, str],
    *,
    num_classes: int,
    value_step: ValueStep,
    sample_ids: Sequence[str],
    index_dtypes: Sequence[str] | None = None,
) -> tuple[NDArray[np.int64], Reasons]:
    """Return class indices as integers, and why rows cannot be stored.

    Parameters
    ----------
    indices, values
        ``(n, k, n_rows, n_cols)``, whatever they hold.
    rest
        ``(n, n_rows, n_cols)``, the log-sum-exp of the classes not kept; None is not there.
    known
        Rows that have no map, and why; what the arrays hold there does not matter.
    value_step
        What values are rounded to.
    sample_ids, index_dtypes
        As for `whole_indices`.

    Returns
    -------
    indices : ndarray
        int64, below `num_classes`; of rows with damaged values too.
    reasons : dict
        Those known and those found.

    Raises
    ------
    LabelSourceError
        As for `whole_indices`. A row that is damaged in another way says nothing of the others.
    """
    damaged = {**_unusable_numbers(values, rest, num_classes, value_step), **known}
    found = indices
    if damaged:
        found = indices.copy()
        found[list(damaged)] = 0
    whole, unusable = whole_indices(found, num_classes, sample_ids, index_dtypes)
    return whole, {**_with_class_twice(whole), **unusable, **damaged}


def whole_indices(
    indices: NDArray[Any],
    num_classes: int,
    sample_ids: Sequence[str],
    dtypes: Sequence[str] | None = None,
) -> tuple[NDArray[np.int64], Reasons]:
    """Return class indices of any numeric dtype as integers, 0 where they are none.

    Parameters
    ----------
    indices
        ``(n, k, n_rows, n_cols)``, of integers or of floats that hold them.
    sample_ids
        What the n rows are called in messages.
    dtypes
        In which each row was written, where that is not the dtype of `indices`; ``bfloat16`` is known too.

    Returns
    -------
    indices : ndarray
        int64, below `num_classes`.
    reasons : dict
        Of rows with negative numbers, fractions, NaN, or numbers past what a class index can be.

    Raises
    ------
    LabelSourceError
        No numbers, numbers that their dtype has rounded, or more classes than `num_classes`.
    """
    if indices.dtype.kind not in "iuf":
        raise LabelSourceError(f"class indices: of dtype {indices.dtype}, expected integers")
    # float32 and float64 are compared as they are: of a million maps, a copy of each would be felt.
    sizes = indices if indices.dtype.kind == "f" and indices.itemsize > 2 else indices.astype(np.float64)
    is_class = (indices >= 0) & (sizes <= spec.MAX_NUM_CLASSES)
    if indices.dtype.kind == "f":
        is_class &= np.floor(indices) == indices
    reasons = {
        row: f"class index {indices[row][~is_class[row]][0]:g}, expected a whole number from 0"
        for row in _rows_with(~is_class)
    }
    whole = np.where(is_class, indices, 0).astype(np.int64)
    if dtypes is not None or indices.dtype.kind == "f":
        _require_not_rounded(whole, dtypes or [indices.dtype.name] * len(whole), num_classes, sample_ids)
    for row in _rows_with(whole >= num_classes)[:1]:
        raise LabelSourceError(
            f"labels of {sample_ids[row]!r}: class index {whole[row].max()}, expected below {num_classes}; "
            "say how many classes the teacher tells apart with --num-classes, or remove these labels if damaged"
        )
    return whole, reasons


def _require_not_rounded(
    indices: NDArray[np.int64], dtypes: Sequence[str], num_classes: int, sample_ids: Sequence[str]
) -> None:
    largest = indices.reshape(len(indices), -1).max(axis=1, initial=0)
    for row in np.flatnonzero(largest >= min(map(_last_exact, set(dtypes)), default=0)).tolist():
        index, dtype = int(largest[row]), dtypes[row]
        last = _last_exact(dtype)
        if index > last or (index == last and num_classes > last + 1):
            raise LabelSourceError(
                f"labels of {sample_ids[row]!r}: class index {index} as {dtype}, which rounds whole numbers "
                f"past {last:,} and so changed most of these classes; have the labels written again with integers"
            )


def _last_exact(dtype: str) -> int:
    """Return up to which integer a dtype holds every one; the next one is rounded to it."""
    return 256 if dtype == "bfloat16" else 2 ** (int(np.finfo(dtype).nmant) + 1)


def damaged_rows(
    indices: NDArray[np.int64], values: FloatArray, rest: FloatArray | None, num_classes: int
) -> Reasons:
    """Return why rows cannot be used: values or `rest` that are no finite numbers, a class twice in a cell.

    Parameters
    ----------
    indices, values
        ``(n, k, n_rows, n_cols)``.
    rest
        ``(n, n_rows, n_cols)``, the log-sum-exp of the classes not kept; None is not there.
    """
    return {**_with_class_twice(indices), **_unusable_numbers(values, rest, num_classes, _EXACT)}


def _with_class_twice(indices: NDArray[np.int64]) -> Reasons:
    reasons: Reasons = {}
    for row in np.flatnonzero(has_repeated_classes(indices)).tolist():
        falling = np.sort(indices[row], axis=0)  # (k, n_rows, n_cols)
        cell = tuple(int(at) for at in np.argwhere((falling[1:] == falling[:-1]).any(axis=0))[0])
        reasons[row] = f"a class twice in cell {cell}"
    return reasons


def _unusable_numbers(
    values: FloatArray, rest: FloatArray | None, num_classes: int, value_step: ValueStep
) -> Reasons:
    reasons: Reasons = {}
    if rest is not None and values.shape[1] < num_classes:  # where nothing is left out it is not looked at
        reasons.update(_with_too_much_rest(values, rest, num_classes, value_step))
        reasons.update(_unusable("rest", rest, _EXACT))
    reasons.update(_unusable("value", values, value_step))
    return reasons


def _with_too_much_rest(
    values: FloatArray, rest: FloatArray, num_classes: int, value_step: ValueStep
) -> Reasons:
    """Return rows that the format refuses (F10): whoever gave the log-sum-exp of all classes has such."""
    with np.errstate(invalid="ignore"):  # rows that are not finite have another reason
        given, most = rest.astype(np.float64), _most_rest(values.astype(np.float64), num_classes)
        # What rounding to the step and to float16 may add.
        slack = (value_step.step or 0) / 2 + 2.0**-11 * (np.abs(given) + np.abs(most)) + 1e-3
        is_more = given > most + slack
    return {
        row: f"rest {given[row][is_more[row]][0]:g}, expected the log-sum-exp of the classes not kept, here at most "
        f"{most[row][is_more[row]][0]:g}"
        for row in _rows_with(is_more)
    }


def _unusable(what: str, numbers: FloatArray, value_step: ValueStep) -> Reasons:
    is_usable = np.abs(numbers) <= value_step.limit  # not so for NaN
    reasons: Reasons = {}
    for row in _rows_with(~is_usable):
        first = float(numbers[row][~is_usable[row]][0])
        reasons[row] = f"{what} {first:g}, expected a number of at most {value_step.limit:g}"
        if value_step.limit < abs(first) <= _EXACT.limit:
            reasons[row] += ", which is all that this value step can hold; try --value-step exact"
    return reasons


def _rows_with(is_so: NDArray[np.bool_]) -> list[int]:
    rows: list[int] = np.flatnonzero(is_so.any(axis=tuple(range(1, is_so.ndim)))).tolist()
    return rows


def are_probabilities(values: FloatArray) -> bool:
    """Tell whether values are probabilities: none outside 0 to 1, and at most 1 in each cell together.

    Parameters
    ----------
    values
        ``(n, k, n_rows, n_cols)``, finite; the more, the surer.
    """
    if not values.any() or values.min() < 0 or values.max() > 1:
        return False
    return bool(values.sum(axis=1, dtype=np.float64).max() <= 1 + _SUM_TOLERANCE)


_WRITE_LOGITS = (
    "Write the teacher's logits, or np.log(values) with np.log(1 - values.sum(axis=1)) as rest, and convert those with "
    "--absent rest"
)


def require_logits(values: FloatArray, what: str, advice: str = _WRITE_LOGITS) -> None:
    """Check that values are scores before softmax.

    Parameters
    ----------
    values
        ``(n, k, n_rows, n_cols)``, finite.
    what
        What they are called in the message.
    advice
        What whoever has probabilities can do, in a sentence.

    Raises
    ------
    LabelSourceError
        They are probabilities.
    """
    if are_probabilities(values):
        raise LabelSourceError(
            f"{what}: all from 0 to 1 and at most 1 in each cell together, which are probabilities, expected logits; "
            f"pooling adds up scores before softmax. {advice}"
        )


def require_fitting_absent_rule(values: FloatArray, absent: AbsentRule | None, what: str) -> None:
    """Check that absent classes, which count as 0 unless something else was asked for, do not rank above kept ones.

    Raises
    ------
    AbsentRuleError
        More than 1 % of the values are negative, and the rule was not asked for by name.
    """
    negative = negative_fraction(values)
    if absent is None and negative > MAX_NEGATIVE_FRACTION:
        raise AbsentRuleError(
            f"{what}: {negative:.0%} are negative, expected at most {MAX_NEGATIVE_FRACTION:.0%}, because an absent "
            "class counts as 0 and would rank above them; use --absent rest if the labels say what the absent classes "
            "share, or --absent zero to insist"
        )


def negative_fraction(values: FloatArray) -> float:
    """Return the share of values below zero."""
    return int(np.count_nonzero(values < 0)) / max(values.size, 1)


def rest_of(
    values: FloatArray, logsumexp: FloatArray, num_classes: int
) -> tuple[NDArray[np.float64], Reasons]:
    """Return the log-sum-exp of the classes not kept, from that of all classes.

    Parameters
    ----------
    values
        ``(n, k, n_rows, n_cols)``.
    logsumexp
        ``(n, n_rows, n_cols)``, of all classes.

    Returns
    -------
    rest : ndarray
        float64, shape of `logsumexp`; minus infinity where every class is kept. Where so little is left that
        `logsumexp` cannot tell it from nothing, the most that it may be: no class that is left is better than the last
        one kept.
    reasons : dict
        Of rows whose kept classes alone come to more than all are said to, or cannot come to as much with the others.
    """
    whole = logsumexp.astype(np.float64)
    if values.shape[1] == num_classes:
        return np.full(whole.shape, -np.inf), {}
    with np.errstate(invalid="ignore", over="ignore"):  # rows that are not finite are found by `damaged_rows`
        scores = values.astype(np.float64)
        best = scores.max(axis=1)
        kept = best + np.log(np.exp(scores - best[:, None]).sum(axis=1))  # (n, n_rows, n_cols)
        ulp = np.maximum(_spacing(best, values.dtype), _spacing(whole, logsumexp.dtype))
        excess = kept - whole
        # log(exp(whole) - exp(kept)) with neither exponential taken, nor the difference of two numbers close together.
        rest = whole + np.log(-np.expm1(np.minimum(excess, -ulp)))
        most = _most_rest(scores, num_classes)
        is_more = whole - np.logaddexp(kept, most) > 4 * ulp
    less = "the log-sum-exp of all classes is less than that of the kept ones, expected at least as much"
    more = "the log-sum-exp of all classes is more than they can give if none is better than the last of the kept ones"
    reasons = dict.fromkeys(_rows_with(is_more), more) | dict.fromkeys(_rows_with(excess > 4 * ulp), less)
    return np.minimum(rest, most), reasons


def _most_rest(values: NDArray[np.float64], num_classes: int) -> NDArray[np.float64]:
    """Return the log-sum-exp of the classes not kept if each were as good as the last one kept."""
    return np.asarray(values.min(axis=1) + np.log(num_classes - values.shape[1]))  # (n, n_rows, n_cols)


def _spacing(numbers: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Return how far apart the numbers of a float dtype lie around some; at least around 1."""
    exponents = np.floor(np.log2(np.maximum(np.abs(numbers), 1)))
    return np.asarray(np.exp2(exponents - np.finfo(dtype).nmant))


def encode_part(
    indices: IndexArray,
    values: FloatArray,
    rest: FloatArray | None,
    reasons: Mapping[int, str],
    manifest: Manifest,
    part: int,
) -> PartLabels:
    """Return a part as a store holds it, of images about which nothing is known.

    Parameters
    ----------
    indices, values, rest
        Of all rows of the part; what those hold that have a reason does not matter.
    reasons
        Why rows have no label, by their position in the part.

    Raises
    ------
    ValueRangeError
        A value past what the value step holds.
    """
    rows = manifest.rows_of_part(part)
    arrays = {name: array.full(len(rows)) for name, array in array_specs(manifest).items()}
    good = np.setdiff1d(np.arange(len(rows)), list(reasons))
    arrays[spec.INDICES][good], arrays[spec.VALUES][good] = encode_scores(
        indices[good], values[good].astype(np.float32), manifest
    )
    if rest is not None:
        is_all_kept = manifest.label_map.k == manifest.label_map.num_classes
        arrays[spec.REST][good] = -np.inf if is_all_kept else rest[good].astype(np.float16)
    without = tuple(BadImage(rows[row], reasons[row]) for row in sorted(reasons))
    return PartLabels(
        indices=arrays[spec.INDICES],
        values=arrays[spec.VALUES],
        rest=arrays.get(spec.REST),
        facts=facts_of(rows, without),
        mtimes_ns=np.zeros(len(rows), np.int64),
        bad_images=without,
    )

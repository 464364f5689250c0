"""The level ``sense`` as far as labels alone tell: what all of them together look like."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relabel_store import spec
from relabel_store.labels.class_order import ClassIndices, compare_class_orders
from relabel_store.labels.pooling import pool_image
from relabel_store.manifest import Classes, Manifest
from relabel_store.store.encodings import encoding_of
from relabel_store.validate.finding import Finding, Place
from relabel_store.validate.scan import ScannedPart
from relabel_store.validate.sense_rules import (
    check_agreement,
    check_class_order,
    check_distinct_parts,
    check_distinct_rows,
    check_logits,
    check_maps_vary,
    check_one_map,
    check_winners,
)

MOST_ROWS = 16_384  # looked at closely, evenly spread: 16 a class of ImageNet
MIN_ROWS = 8  # of which something can be said together
_MIN_CELLS = 9  # below it maps are alike by chance, at steps of 1/8
_MOST_REPEATED = 0.01  # photographs that are there twice make up less in any set that is trained on
_MOST_CONSTANT = 0.5
_POOL_ROWS = 256  # pooled logits of so many samples at once: 2 MiB at 1,000 classes
_MIXER = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio: odd, and bits that follow no pattern
_NO_MASS = 1e-3  # by which rounding lets probabilities that sum to one pass it, beside half a step a class


@dataclass(frozen=True)
class _Looks:
    """What was seen of some rows of a part, closely.

    Parameters
    ----------
    folder, pooled
        Class index of the folder and best class of the pooled map, int64, of the rows where the former is known.
    constant
        Maps whose cells are all the same.
    winners
        Lowest and highest of the best classes of their cells.
    values
        Lowest and highest of the kept values.
    mass
        Largest log-sum-exp of a cell, of everything that is stored of it.
    """

    rows: int
    folder: ClassIndices
    pooled: ClassIndices
    constant: int
    winners: tuple[int, int]
    values: tuple[float, float]
    mass: float


@dataclass(frozen=True)
class _Seen:
    """What was seen of a part: its labelled rows, a digest each of their best classes and scores, and some closely."""

    rows: NDArray[np.int64]
    digests: NDArray[np.uint64]
    looks: _Looks | None


class SenseScan:
    """Looks at what labels are like; see `scan.Scan`.

    Parameters
    ----------
    place
        Of the manifest.
    """

    def __init__(self, manifest: Manifest, place: Place) -> None:
        self._manifest = manifest
        self._place = place
        self._stride = -(-manifest.num_samples // MOST_ROWS)
        self._seen: dict[int, _Seen] = {}

    def look(self, part: ScannedPart) -> _Seen:
        """Return what is seen of a part."""
        at = np.flatnonzero(part.is_labelled)
        rows = at + part.rows.start
        digests = _digests(part, at)
        return _Seen(rows, digests, _looks(part, at[rows % self._stride == 0]))

    def add(self, part: int, seen: _Seen) -> tuple[Finding, ...]:
        """Keep what was seen."""
        self._seen[part] = seen
        return ()

    def conclude(self, *, is_whole: bool) -> Iterator[Finding]:
        """Judge all parts together, those that were seen."""
        del is_whole
        yield from self._judge_repetition()
        looks = [seen.looks for seen in self._seen.values() if seen.looks is not None]
        rows = sum(look.rows for look in looks)
        if rows >= MIN_ROWS:
            yield from self._judge_order(looks)
            yield from self._judge_maps(looks, rows)
            yield from self._judge_values(looks)

    def _judge_repetition(self) -> Iterator[Finding]:
        if self._manifest.label_map.grid[0] * self._manifest.label_map.grid[1] < _MIN_CELLS:
            return
        rows = sum(len(seen.rows) for seen in self._seen.values())
        digests = [seen.digests for seen in self._seen.values()]
        if rows >= MIN_ROWS and len(np.unique(np.concatenate(digests))) == 1:
            yield from check_one_map(self._place, rows)
            return
        originals: dict[bytes, int] = {}
        kept = []
        for part, seen in sorted(self._seen.items()):
            # Parts of few maps, or of one over and over, may be alike for other reasons.
            is_telling = len(np.unique(seen.digests)) >= min(MIN_ROWS, self._manifest.layout.shard_rows) > 1
            earlier = originals.setdefault(seen.digests.tobytes(), part) if is_telling else part
            if earlier != part:
                file = next(iter(encoding_of(self._manifest).files_of_part(self._manifest, part)))
                yield from check_distinct_parts(file, part, earlier)
            else:
                kept.append(seen)
        if kept:
            yield from _judge_rows(
                np.concatenate([seen.rows for seen in kept]), np.concatenate([seen.digests for seen in kept])
            )

    def _judge_order(self, looks: list[_Looks]) -> Iterator[Finding]:
        classes = self._manifest.classes
        order = compare_class_orders(
            np.concatenate([look.folder for look in looks]),
            np.concatenate([look.pooled for look in looks]),
            self._manifest.label_map.num_classes,
            _sorted_lists(classes),
        )
        place = Place(file=self._place.file, field="classes")
        if order.verdict is not None:
            yield from check_class_order(place, order, order.verdict)
        elif order.is_low:
            yield from check_agreement(place, order)

    def _judge_maps(self, looks: list[_Looks], rows: int) -> Iterator[Finding]:
        constant = sum(look.constant for look in looks)
        if constant >= _MOST_CONSTANT * rows:
            yield from check_maps_vary(self._place, constant, rows)
        low, high = min(look.winners[0] for look in looks), max(look.winners[1] for look in looks)
        folders = np.unique(np.concatenate([look.folder for look in looks]))
        if low == high and len(folders) != 1 and self._manifest.label_map.num_classes > 1:
            yield from check_winners(self._place, repr(self._manifest.classes.name_of(low)), rows)

    def _judge_values(self, looks: list[_Looks]) -> Iterator[Finding]:
        low, high = min(look.values[0] for look in looks), max(look.values[1] for look in looks)
        place = Place(file=self._place.file, field="label_map.values")
        if low >= 0 and high <= 1:
            yield from check_logits(place, "probabilities", low, high)
        elif high <= 0 and max(look.mass for look in looks) <= self._rounding():
            yield from check_logits(place, "logarithms of probabilities", low, high)

    def _rounding(self) -> float:
        step = self._manifest.label_map.value_step
        return _NO_MASS + (step / 2 if isinstance(step, float) else 0.0)


def _judge_rows(rows: NDArray[np.int64], digests: NDArray[np.uint64]) -> Iterator[Finding]:
    _, first = np.unique(digests, return_index=True)
    count = len(rows) - len(first)
    if len(rows) >= MIN_ROWS and count > max(_MOST_REPEATED * len(rows), 1):
        is_repeated = np.ones(len(rows), np.bool_)
        is_repeated[first] = False
        yield from check_distinct_rows(int(rows[is_repeated][0]), count, len(rows))


def _digests(part: ScannedPart, at: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return 64 bits of the best class and score in each cell of some rows, uint64 ``(n,)``.

    A sum of mixed words, each times a number of its own. Nobody is kept from making two rows alike: only chance is.
    """
    best = [np.ascontiguousarray(part.arrays[name][at, 0]) for name in (spec.INDICES, spec.VALUES)]
    data = np.concatenate(
        [array.reshape(len(at), math.prod(array.shape[1:])).view(np.uint8) for array in best], axis=1
    )
    words = np.zeros((len(at), -(-data.shape[1] // 8)), np.uint64)
    words.view(np.uint8)[:, : data.shape[1]] = data
    words ^= words >> np.uint64(29)
    words *= _MIXER
    words ^= words >> np.uint64(32)
    keys = np.random.default_rng(0).integers(0, 2**64, words.shape[1], np.uint64) | np.uint64(1)
    result: NDArray[np.uint64] = (words * keys).sum(axis=1)
    return result


def _looks(part: ScannedPart, at: NDArray[np.int64]) -> _Looks | None:
    """Return what some rows look like, those left out whose numbers are none of a label; None where none are left."""
    num_classes = part.manifest.label_map.num_classes
    indices, values = part.arrays[spec.INDICES][at], part.arrays[spec.VALUES][at].astype(np.float32)
    rest = part.arrays[spec.REST][at].astype(np.float32) if spec.REST in part.arrays else None
    is_sound = (indices < num_classes).all(axis=(1, 2, 3)) & np.isfinite(values).all(axis=(1, 2, 3))
    if rest is not None:
        is_sound &= ~(np.isnan(rest) | np.isposinf(rest)).any(axis=(1, 2))
    if not is_sound.any():
        return None
    indices, values = indices[is_sound], values[is_sound]
    rest = None if rest is None else rest[is_sound]
    folder = np.full(len(at), -1) if part.class_index is None else part.class_index[at]
    folder = folder[is_sound]
    known = np.flatnonzero((folder >= 0) & (folder < num_classes))
    is_constant = (indices == indices[..., :1, :1]).all(axis=(1, 2, 3)) & (values == values[..., :1, :1]).all(
        axis=(1, 2, 3)
    )
    cells = indices.shape[2] * indices.shape[3]
    mass = np.logaddexp.reduce(values, axis=1)
    return _Looks(
        rows=len(indices),
        folder=folder[known].astype(np.int64),
        pooled=_pooled(indices[known], values[known], None if rest is None else rest[known], num_classes),
        constant=int(is_constant.sum()) if cells > 1 else 0,
        winners=(int(indices[:, 0].min()), int(indices[:, 0].max())),
        values=(float(values.min()), float(values.max())),
        mass=float((mass if rest is None else np.logaddexp(mass, rest)).max()),
    )


def _pooled(
    indices: NDArray[np.unsignedinteger],
    values: NDArray[np.float32],
    rest: NDArray[np.float32] | None,
    num_classes: int,
) -> ClassIndices:
    found = np.empty(len(indices), np.int64)
    for start in range(0, len(indices), _POOL_ROWS):
        some = slice(start, start + _POOL_ROWS)
        pooled = pool_image(
            indices[some], values[some], num_classes=num_classes, rest=None if rest is None else rest[some]
        )
        found[some] = pooled.argmax(axis=1)
    return found


def _sorted_lists(classes: Classes) -> Mapping[str, ClassIndices]:
    """Return the orders that sorting gives, for each class the place that it has in them."""
    lists = {
        "the classes are sorted by their names": classes.names,
        "the classes are sorted by their ids": classes.ids,
    }
    return {
        phrase: np.argsort(np.argsort(np.array(listed), kind="stable")).astype(np.int64)
        for phrase, listed in lists.items()
        if listed is not None
    }

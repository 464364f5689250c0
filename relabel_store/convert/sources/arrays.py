"""Label maps in plain arrays with a name for each row, of people with scripts of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from relabel_store.class_names import read_class_names
from relabel_store.convert.source import SourceOptions
from relabel_store.convert.sources.array_files import ArrayFile
from relabel_store.convert.sources.foreign_manifest import foreign_manifest
from relabel_store.convert.sources.foreign_maps import (
    Reasons,
    encode_part,
    examine_maps,
    require_fitting_absent_rule,
    require_logits,
    rest_of,
)
from relabel_store.convert.sources.given_samples import GivenSamples
from relabel_store.convert.sources.join import ImageJoin, join_images
from relabel_store.convert.sources.npz_members import ScratchFolder
from relabel_store.errors import LabelSourceError
from relabel_store.labels.topk import FloatArray, IndexArray
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import AbsentRule, Classes, Manifest
from relabel_store.store.part_labels import PartLabels

INDICES, VALUES, REST, LOGSUMEXP = "indices", "values", "rest", "logsumexp"
NAMES = (INDICES, VALUES, REST, LOGSUMEXP)

_PROBED_ROWS = 256
_NO_LABEL = "every value is NaN: no label in the arrays"


@dataclass(frozen=True)
class GivenClasses:
    """What the labels themselves say of the teacher's classes; None is nothing."""

    names: tuple[str, ...] | None = None
    count: int | None = None


class ArraySource:
    """Label maps in arrays of the same files for all rows.

    Parameters
    ----------
    name
        Of the label set.
    arrays
        By name: `INDICES` and `VALUES` ``(n, k, n_rows, n_cols)``; if there, `REST` or `LOGSUMEXP`
        ``(n, n_rows, n_cols)``, of the classes not kept or of all.
    scratch
        The folder of unpacked arrays, which goes with this object; other processes get its path only.

    Raises
    ------
    LabelSourceError
        The arrays do not fit each other or the samples, or cannot be label maps.
    AbsentRuleError
        Many logits are negative, and ``absent`` was not named.
    ImageSourceError
        There are no images, if they were named.
    JoinError
        None of them is of these labels.
    """

    def __init__(
        self,
        name: str,
        arrays: Mapping[str, ArrayFile],
        samples: GivenSamples,
        given: GivenClasses,
        options: SourceOptions,
        scratch: ScratchFolder | None = None,
    ) -> None:
        self._what = f"labels {name!r}"
        self._arrays, self._given, self._absent, self._scratch = (
            dict(arrays),
            samples,
            options.absent,
            scratch,
        )
        n, k, n_rows, n_cols = self._require_fitting(len(samples))
        classes, num_classes = _classes_of(self._what, given, options)
        if k > num_classes:
            raise LabelSourceError(
                f"{self._what}: shape {(n, k, n_rows, n_cols)} has k = {k} with {num_classes} classes; "
                "expected (n, k, n_rows, n_cols)"
            )
        self._manifest = foreign_manifest(
            name,
            samples.sample_ids,
            grid=(n_rows, n_cols),
            k=k,
            num_classes=num_classes,
            classes=classes,
            options=options,
            order="given",
        )
        self._probe()
        self._join = None if options.images is None else join_images(options.images, samples.sample_ids)
        self._notes = self._found_out()
        if self._join is not None:
            images = replace(self._manifest.images, name=self._join.name, kind=self._join.kind)
            self._manifest = replace(self._manifest, images=images)

    @property
    def manifest(self) -> Manifest:
        """Of the store to be."""
        return self._manifest

    @property
    def samples(self) -> pa.Table:
        """The sample table without facts."""
        given = self._given
        if self._join is not None:
            given = replace(given, paths=self._join.paths_of(given.paths))
        return given.planned(self._manifest.classes.index_of_folder())

    @property
    def notes(self) -> tuple[str, ...]:
        """Whether something was left behind, and what the images say."""
        return self._notes

    def read_part(self, part: int) -> PartLabels:
        """Return the labels of a part."""
        rows = self._manifest.rows_of_part(part)
        indices, values, rest, reasons = self._read(rows)
        good = np.setdiff1d(np.arange(len(rows)), list(reasons))
        require_logits(values[good], f"{self._what}, values of rows {rows.start} to {rows.stop - 1}")
        labels = encode_part(indices, values, rest, reasons, self._manifest, part)
        if self._join is None:
            return replace(labels, facts=self._given.facts_of(rows, labels.bad_images))
        found, exif_oriented = self._join.facts_of(rows, labels.bad_images)
        return replace(labels, facts=self._given.completed(found, rows), exif_oriented=exif_oriented)

    def _found_out(self) -> tuple[str, ...]:
        notes: list[str] = []
        if self._manifest.label_map.absent is AbsentRule.ZERO and not {REST, LOGSUMEXP}.isdisjoint(
            self._arrays
        ):
            notes.append(
                "what the classes that are not kept come to was left behind, and each counts as 0; "
                "--absent rest keeps it"
            )
        if self._join is not None:
            notes += [*self._join.notes, *self._orientation_notes(self._join)]
        return tuple(notes)

    def _orientation_notes(self, join: ImageJoin) -> list[str]:
        rows, maps = [], []
        for row in join.sampled_rows():
            indices, values, _, reasons = self._read(range(row, row + 1))
            if not reasons:
                rows.append(row)
                maps.append((indices, values.astype(np.float32)))
        if not rows:
            return []
        indices, values = (np.concatenate(arrays) for arrays in zip(*maps, strict=True))
        return join.orientation_notes(rows, indices, values, self._manifest.geometry.resize)

    def _read(self, rows: range) -> tuple[IndexArray, FloatArray, FloatArray | None, Reasons]:
        label_map = self._manifest.label_map
        values, rest, known = self._arrays[VALUES].read(rows), None, Reasons()
        if label_map.absent is AbsentRule.REST:
            if REST in self._arrays:
                rest = self._arrays[REST].read(rows)
            else:
                whole = self._arrays[LOGSUMEXP].read(rows)
                rest, known = rest_of(values, whole, label_map.num_classes)
        is_empty = np.isnan(values).all(axis=(1, 2, 3))  # as `convert --to npz` marks rows without a label
        known |= dict.fromkeys(np.flatnonzero(is_empty).tolist(), _NO_LABEL)
        indices, reasons = examine_maps(
            self._arrays[INDICES].read(rows),
            values,
            rest,
            known,
            num_classes=label_map.num_classes,
            value_step=ValueStep.parse(label_map.value_step),
            sample_ids=self._given.sample_ids[rows.start : rows.stop],
        )
        return indices, values, rest, reasons

    def _require_fitting(self, num_samples: int) -> tuple[int, ...]:
        shape = self._arrays[INDICES].shape
        if len(shape) != 4 or 0 in shape:
            raise LabelSourceError(
                f"{self._what}: {INDICES} have shape {shape}, expected (n, k, n_rows, n_cols), none of them 0"
            )
        expected = {VALUES: shape, REST: (shape[0], *shape[2:]), LOGSUMEXP: (shape[0], *shape[2:])}
        for name, array in self._arrays.items():
            if array.shape != expected.get(name, shape):
                raise LabelSourceError(
                    f"{self._what}: {name} have shape {array.shape}, expected {expected[name]} beside {INDICES} "
                    f"of {shape}"
                )
            if name != INDICES and array.dtype.kind != "f":
                raise LabelSourceError(f"{self._what}: {name} are of dtype {array.dtype}, expected floats")
        if num_samples != shape[0]:
            raise LabelSourceError(
                f"{self._what}: {num_samples} sample ids for {shape[0]} label maps, expected one each"
            )
        if self._absent is AbsentRule.REST and {REST, LOGSUMEXP}.isdisjoint(self._arrays):
            raise LabelSourceError(
                f"{self._what}: nothing says what the classes that are not kept come to, which --absent rest needs; "
                f"add {REST!r}, their log-sum-exp in each cell, or {LOGSUMEXP!r}, that of all classes"
            )
        return shape

    def _probe(self) -> None:
        """Look at the first rows, before a conversion of hours finds that no row can be used."""
        rows = range(min(_PROBED_ROWS, self._manifest.num_samples))
        _, values, _, reasons = self._read(rows)
        good = values[np.setdiff1d(np.arange(len(rows)), list(reasons))]
        damaged = [row for row, reason in reasons.items() if reason != _NO_LABEL]
        if damaged and not len(good):
            first = min(damaged)
            raise LabelSourceError(
                f"{self._what}: none of the first {len(rows)} rows can be used; {self._given.sample_ids[first]!r}: "
                f"{reasons[first]}; expected (n, k, n_rows, n_cols) arrays of class indices and logits"
            )
        what = f"{self._what}, values of the first {len(rows)} rows"
        require_logits(good, what)
        require_fitting_absent_rule(good, self._absent, what)


def _classes_of(what: str, given: GivenClasses, options: SourceOptions) -> tuple[Classes, int]:
    names, source = given.names, "the labels"
    if options.class_names is not None:
        names, source = tuple(read_class_names(options.class_names, options.num_classes)), "given"
    counts = {
        count for count in (options.num_classes, given.count, None if names is None else len(names)) if count
    }
    if not counts:
        raise LabelSourceError(
            f"{what}: nothing says how many classes the teacher tells apart; say so with --num-classes, or name them "
            "with --class-names"
        )
    if len(counts) > 1:
        raise LabelSourceError(
            f"{what}: {' or '.join(map(str, sorted(counts)))} classes, going by what is in the file, --num-classes and "
            "--class-names; expected the same"
        )
    return Classes.of(None, names, source if names else None), counts.pop()

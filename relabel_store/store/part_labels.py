"""The labels of one part of a store, ready to be written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relabel_store import spec
from relabel_store.labels.topk import IndexArray, has_repeated_classes, is_sorted
from relabel_store.labels.values import as_float32
from relabel_store.manifest import AbsentRule, LabelSpec, Manifest
from relabel_store.store import samples as sample_tables
from relabel_store.store.arrays import Arrays, array_specs
from relabel_store.store.encodings import encoding_of
from relabel_store.store.journal import BadImage
from relabel_store.store.samples import Status
from relabel_store.store.statistics import Counts

_CHECKED_AT_ONCE = 128  # samples, whose temporaries stay in the cache of a core


@dataclass(frozen=True)
class PartLabels:
    """The work of one part, ready to be written.

    Parameters
    ----------
    indices, values, rest
        As in `LabelMaps`, a row for each of the part's samples; rows without a label may hold anything.
    facts
        What was found out about the images, in `samples.FACTS_SCHEMA`, one row a sample.
    mtimes_ns
        When each image was last changed, int64 ``(n,)``.
    exif_oriented
        Number of images with an EXIF orientation.
    """

    indices: IndexArray
    values: NDArray[np.float16]
    rest: NDArray[np.float16] | None
    facts: pa.Table
    mtimes_ns: NDArray[np.int64]
    bad_images: tuple[BadImage, ...] = ()
    exif_oriented: int = 0

    @property
    def arrays(self) -> Arrays:
        """The arrays by name."""
        found = {spec.INDICES: self.indices, spec.VALUES: self.values, spec.REST: self.rest}
        return {name: rows for name, rows in found.items() if rows is not None}

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """Bool ``(n,)``."""
        return np.asarray(self.facts["status"].to_numpy() == Status.LABELLED.value)


def _are_multiples(values: NDArray[np.float16], step: float) -> bool:
    steps = as_float32(values, 1 / step)  # exact: a step is a power of two
    return bool(np.all(steps == np.rint(steps)))


def _labelled(array: NDArray[Any], is_labelled: NDArray[np.bool_]) -> NDArray[Any]:
    return array if is_labelled.all() else array[is_labelled]


def require_fitting(manifest: Manifest, part: int, labels: PartLabels) -> None:
    """Check the labels of a part against the format: what is wrong here is wrong for years.

    Raises
    ------
    ValueError
        They do not fit the manifest, or each other.
    """
    label_map, rows = manifest.label_map, manifest.rows_of_part(part)
    if not 0 <= part < manifest.num_parts:
        raise ValueError(f"part {part}: expected 0 to {manifest.num_parts - 1}")
    if (labels.rest is None) != (label_map.absent is AbsentRule.ZERO):
        raise ValueError(f"part {part}: rest does not fit absent = {label_map.absent.value!r}")
    arrays = {spec.INDICES: labels.indices, spec.VALUES: labels.values, spec.REST: labels.rest}
    for name, array in array_specs(manifest).items():
        found = arrays[name]
        expected = (len(rows), *array.shape[1:])
        if found is None or found.shape != expected or found.dtype != array.dtype:
            raise ValueError(f"part {part}: {name} do not have dtype {array.dtype} and shape {expected}")
    statuses = labels.facts["status"].to_pylist()
    without = [row for row, status in zip(rows, statuses, strict=True) if status != Status.LABELLED.value]
    if set(statuses) - set(Status):
        raise ValueError(f"part {part}: statuses {sorted(set(statuses))}")
    if sorted(image.row for image in labels.bad_images) != without:
        raise ValueError(f"part {part}: reasons for having no label do not fit the statuses, {without}")
    indices = _labelled(labels.indices, labels.is_labelled)
    values = _labelled(labels.values, labels.is_labelled)
    rest = None if labels.rest is None else _labelled(labels.rest, labels.is_labelled)
    for start in range(0, len(indices), _CHECKED_AT_ONCE):
        few = slice(start, start + _CHECKED_AT_ONCE)
        _require_sound(label_map, part, indices[few], values[few], None if rest is None else rest[few])


def _require_sound(
    label_map: LabelSpec,
    part: int,
    indices: IndexArray,
    values: NDArray[np.float16],
    rest: NDArray[np.float16] | None,
) -> None:
    """Check label maps of samples that have one."""
    if int(indices.max()) >= label_map.num_classes:
        raise ValueError(f"part {part}: class index {indices.max()}, expected below {label_map.num_classes}")
    if not np.isfinite(values).all() or not is_sorted(indices, values).all():
        raise ValueError(f"part {part}: ranks are not in stored order, or not finite")
    if has_repeated_classes(indices).any():
        raise ValueError(f"part {part}: a class twice in a cell")
    step = label_map.value_step
    if not isinstance(step, str) and not _are_multiples(values, step):
        raise ValueError(f"part {part}: values are no multiples of value step {step}")
    if rest is not None and label_map.k < label_map.num_classes and not np.isfinite(rest).all():
        raise ValueError(f"part {part}: rest is not finite")


def filled_arrays(manifest: Manifest, labels: PartLabels) -> Arrays:
    """Return the arrays of a part as they are stored: rows without a label hold fill values."""
    is_labelled, found = labels.is_labelled, labels.arrays
    if is_labelled.all():
        return {name: np.ascontiguousarray(found[name]) for name in array_specs(manifest)}
    arrays: Arrays = {}
    for name, array in array_specs(manifest).items():
        arrays[name] = array.full(len(is_labelled))
        arrays[name][is_labelled] = found[name][is_labelled]
    return arrays


def encode_part(manifest: Manifest, part: int, labels: PartLabels, samples: pa.Table) -> dict[str, bytes]:
    """Return the files of a part by name; rows without a label hold fill values.

    Parameters
    ----------
    samples
        The part's rows of the sample table, without facts.
    """
    n = len(samples)
    arrays = filled_arrays(manifest, labels)
    with_facts = sample_tables.with_facts(samples, {0: labels.facts}, n)
    return encoding_of(manifest).encode_part(manifest, part, arrays, with_facts)


def count_labels(
    manifest: Manifest, arrays: Arrays, is_labelled: NDArray[np.bool_], samples: pa.Table
) -> Counts:
    """Return what is counted of the labels of a part.

    Parameters
    ----------
    arrays
        A row for each of the part's samples; rows without a label may hold anything.
    is_labelled
        ``(n,)``.
    samples
        The part's rows of the sample table.
    """
    classes = samples["class_index"].fill_null(-1).to_numpy().astype(np.int64)
    rest = arrays.get(spec.REST)
    return Counts.of(
        _labelled(arrays[spec.INDICES], is_labelled),
        _labelled(arrays[spec.VALUES], is_labelled),
        None if rest is None else _labelled(rest, is_labelled),
        classes[is_labelled],
        num_classes=manifest.label_map.num_classes,
    )

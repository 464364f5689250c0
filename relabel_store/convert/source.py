"""What every form of labels that can be converted gives: a manifest, a sample table, and the labels of each part."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from relabel_store import spec
from relabel_store.errors import OptionError
from relabel_store.labels.topk import FloatArray, IndexArray, sort_ranks
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import AbsentRule, Manifest
from relabel_store.store import samples as sample_tables
from relabel_store.store.journal import BadImage
from relabel_store.store.part_labels import PartLabels
from relabel_store.store.samples import Status

Location = str | os.PathLike[str]


@dataclass(frozen=True)
class SourceOptions:
    """What the caller knows of labels that does not stand in them; None is nothing.

    Parameters
    ----------
    value_step
        What their values are to be rounded to.
    absent
        What a class that is not kept counts as.
    class_names
        A file with the teacher's classes in order.
    num_classes
        How many classes the teacher tells apart.
    images
        The images that were labelled: a source that `build` takes.
    """

    value_step: ValueStep | None = None
    absent: AbsentRule | None = None
    class_names: Path | None = None
    num_classes: int | None = None
    images: str | None = None

    def require_only(self, form: str, *allowed: str) -> None:
        """Check that nothing was given that a form of labels has no use for.

        Raises
        ------
        OptionError
            Something was.
        """
        for field in fields(self):
            if getattr(self, field.name) is not None and field.name not in allowed:
                option = "--" + field.name.replace("_", "-")
                raise OptionError(f"{option}: means nothing for labels of the form {form!r}; leave it out")


class LabelSource(Protocol):
    """Labels that can be converted. It is sent to other processes, so it can be pickled.

    Attributes
    ----------
    manifest
        Of the store to be, unfinished; the encoding is the target's to choose. The same whenever the same labels
        are opened with the same options, or an interrupted conversion does not go on.
    samples
        Its sample table without facts, in `samples.SCHEMA`.
    notes
        What was found out about the labels as a whole, a sentence each, for people.
    """

    @property
    def manifest(self) -> Manifest:
        """Of the store to be, unfinished."""

    @property
    def samples(self) -> pa.Table:
        """Its sample table without facts."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found out about the labels as a whole."""

    def read_part(self, part: int) -> PartLabels:
        """Return the labels of a part of the manifest's layout.

        Labels that are damaged or cannot be had become rows without a label, each with its reason.

        Raises
        ------
        RelabelStoreError
            They do not fit the manifest, so that no row of the whole can be trusted.
        """


def encode_scores(
    indices: IndexArray, scores: FloatArray, manifest: Manifest
) -> tuple[IndexArray, FloatArray]:
    """Return maps as a store holds them: scores rounded, ranks in stored order.

    Parameters
    ----------
    indices, scores
        ``(n, k, n_rows, n_cols)``; class indices below the manifest's class count, finite scores.

    Returns
    -------
    indices : ndarray
        uint16 or uint32, as `spec.indices_dtype` says.
    values : ndarray
        float16.

    Raises
    ------
    ValueRangeError
        A score past what the value step holds.
    """
    label_map = manifest.label_map
    values = ValueStep.parse(label_map.value_step).encode(scores)
    return sort_ranks(indices.astype(spec.indices_dtype(label_map.num_classes)), values)


def facts_of(rows: range, without_label: Iterable[BadImage] = ()) -> pa.Table:
    """Return the facts of samples of whose images nothing is known.

    Parameters
    ----------
    without_label
        Those of the rows that have no label, with the reason.
    """
    n = len(rows)
    statuses = [Status.LABELLED.value] * n
    for row in without_label:
        statuses[row.row - rows.start] = Status.MISSING.value
    return pa.table(
        {
            "width": pa.nulls(n, pa.int32()),
            "height": pa.nulls(n, pa.int32()),
            "sha256": pa.nulls(n, pa.string()),
            "status": pa.array(statuses, pa.string()),
            "size_bytes": np.zeros(n, np.int64),
        },
        schema=sample_tables.FACTS_SCHEMA,
    )

"""The sample table piece by piece, and the rules of the whole: its order, unique ids, their digest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from relabel_store.manifest import Manifest
from relabel_store.sample_ids import IdDigest
from relabel_store.store.parquet_pages import bounded_batches
from relabel_store.store.samples import SCHEMA, column_values
from relabel_store.validate.finding import Finding, Place, Problem, Severity
from relabel_store.validate.rule import check
from relabel_store.validate.sample_rules import (
    OF_SAMPLES,
    Samples,
    check_table_length,
    column_problem,
    mask_of,
    problems_of,
    text_at,
)

_BY_ID = "sample-id"
_SLICE = 131_072  # lines that are looked at at once


@check("RS412", "F46")
def check_order(samples: Samples, before: pa.Array) -> Iterator[Problem]:
    """Rows are in the order that `images.order` names: with `sample-id`, ids rise by code point."""
    ids = samples.table["sample_id"]
    is_bad = mask_of(pc.greater(before, ids))
    yield from problems_of(
        samples,
        "sample_id",
        is_bad,
        "ids that rise",
        lambda at: f"{text_at(ids, at)} after {text_at(before, at)}",
    )


@check("RS413", "F41")
def check_unique(
    samples: Samples, before: pa.Array, rows: NDArray[np.int64] | None = None
) -> Iterator[Problem]:
    """A sample id is unique.

    Parameters
    ----------
    before
        For each id in sorted order the one before it.
    rows
        The row of each, where `samples` are not in row order.
    """
    ids = samples.table["sample_id"]
    is_bad = mask_of(pc.equal(before, ids))
    yield from problems_of(
        samples,
        "sample_id",
        is_bad,
        "ids that are all different",
        lambda at: f"{text_at(ids, at)} a second time",
        rows,
    )


@check("RS414", "F45", severity=Severity.WARNING)
def check_images_digest(manifest: Manifest, place: Place, found: str) -> Iterator[Problem]:
    """`images.digest` is the digest of the sorted sample ids."""
    if manifest.images.digest != found:
        yield Problem(
            Place(file=place.file, field="images.digest"),
            manifest.images.digest,
            f"{found}, of the ids in the sample table",
            "no reader depends on it, but it may be the table of other images",
        )


class SampleTableCheck:
    """Checks a sample table whose pieces come in order.

    Parameters
    ----------
    place
        Of the manifest.
    bad_rows
        As for `sample_rules.Samples`.

    Notes
    -----
    Of rows in the order of their ids nothing is kept but the last id. The ids of others have to be sorted to tell
    whether they are unique, and stay in memory for that.
    """

    def __init__(self, manifest: Manifest, place: Place, bad_rows: NDArray[np.int64] | None) -> None:
        self._manifest = manifest
        self._place = place
        self._bad_rows = bad_rows
        self._file = ""
        self._n = 0
        self._is_by_id = manifest.images.order == _BY_ID
        self._has_digest = True  # of ids that come in order and are all different
        self._last = pa.nulls(1, pa.string())
        self._kept: list[pa.Array] = []
        self._digest = IdDigest()

    def add(self, file: str, table: pa.Table) -> Iterator[Finding]:
        """Yield what is wrong with the next lines, in `samples.SCHEMA`."""
        samples = Samples(self._manifest, file, self._n, table, self._bad_rows)
        for rule in OF_SAMPLES:
            yield from rule(samples)
        ids = table["sample_id"].combine_chunks()
        if self._is_by_id:
            yield from self._follow(samples, ids)
        else:
            self._kept.append(ids)
        self._file = file
        self._n += len(table)

    def _follow(self, samples: Samples, ids: pa.Array) -> Iterator[Finding]:
        before = pa.concat_arrays([self._last, ids[:-1]])[: len(ids)]
        found = [*check_order(samples, before), *check_unique(samples, before)]
        yield from found
        self._add_to_digest(ids, is_sound=not found)
        self._last = ids[-1:] if len(ids) else self._last

    def _add_to_digest(self, ids: pa.Array, *, is_sound: bool) -> None:
        self._has_digest &= is_sound and not ids.null_count
        if self._has_digest:
            self._digest.add(ids.to_pylist())

    def conclude(self) -> Iterator[Finding]:
        """Yield what is wrong with the whole."""
        yield from check_table_length(self._manifest, self._file, self._n)
        if not self._is_by_id:
            yield from self._compare_all()
        if self._has_digest and self._n == self._manifest.num_samples:
            yield from check_images_digest(self._manifest, self._place, self._digest.value())

    def _compare_all(self) -> Iterator[Finding]:
        ids = pa.chunked_array(self._kept, pa.string()).cast(pa.large_string()).combine_chunks()
        order = pc.sort_indices(ids)
        ordered = ids.take(order)
        before = pa.concat_arrays([pa.nulls(1, pa.large_string()), ordered[:-1]])[: len(ordered)]
        samples = Samples(self._manifest, self._file, 0, pa.table({"sample_id": ordered}), None)
        found = list(check_unique(samples, before, column_values(order)))
        yield from found
        for start in range(0, len(ordered), _SLICE):
            self._add_to_digest(ordered.slice(start, _SLICE), is_sound=not found)


def table_pieces(source: Path | bytes) -> Iterator[pa.Table]:
    """Yield the lines of a sample table's file, some at a time, in `samples.SCHEMA`.

    Raises
    ------
    ValueError
        A column is missing, or of another type.
    OSError, pyarrow.ArrowException
        It cannot be read.
    """
    opened = pa.BufferReader(source) if isinstance(source, bytes) else source
    with pq.ParquetFile(opened, pre_buffer=False) as file:
        problem = column_problem(file.schema_arrow)
        if problem is not None:
            raise ValueError(problem)
        for batch in bounded_batches(file, source, SCHEMA.names, _SLICE):
            batch.validate(full=True)  # that text is UTF-8, say
            yield pa.Table.from_batches([batch])

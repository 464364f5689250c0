"""Labels of another form, before they are converted: whether all of them can be read, and whether they make sense."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

import pyarrow as pa

from relabel_store import spec
from relabel_store.errors import LabelSourceError, ObjectStoreError, RelabelStoreError
from relabel_store.manifest import Manifest
from relabel_store.store.files import FileEntry
from relabel_store.store.journal import PartRecord
from relabel_store.store.part_labels import PartLabels
from relabel_store.store.samples import column_values
from relabel_store.validate.finding import Finding, Place, Problem, Severity
from relabel_store.validate.report import Findings, Report
from relabel_store.validate.rule import Level, check
from relabel_store.validate.scan import ScannedPart
from relabel_store.validate.sense import SenseScan
from relabel_store.validate.stage import ValidationObserver


class ForeignLabels(Protocol):
    """Labels that can be converted; `convert.source.LabelSource` says more of each member."""

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
        """Return the labels of a part of the manifest's layout."""


@check("RS011", level=Level.CONTENT)
def check_labels_readable(row: int, sample_id: str, reason: str) -> Iterator[Problem]:
    """Of another form: every label can be read, and is a label map."""
    yield Problem(
        Place(row=row),
        f"label of {sample_id!r}: {reason}",
        "a label map like the others",
        "make it again; converted, it becomes a row without label",
    )


@check("RS012", level=Level.CONTENT)
def check_labels_fit(rows: range, error: str) -> Iterator[Problem]:
    """Of another form: the labels are what they say they are, as a whole."""
    yield Problem(
        Place(row=rows.start),
        f"rows {rows.start} to {rows.stop - 1} cannot be used ({error})",
        "labels that a store can be made of",
        count=len(rows),
    )


@check("RS013", level=Level.CONTENT, severity=Severity.NOTE)
def check_notes(note: str) -> Iterator[Problem]:
    """Of another form: what the labels do not say of themselves is known to whoever converts them."""
    yield Problem(Place(), note, "that it is known to you")


def validate_labels(
    labels: ForeignLabels, location: str, *, observer: ValidationObserver | None = None
) -> Report:
    """Return what is wrong with labels of another form, as they would be converted.

    Parameters
    ----------
    labels
        As `convert.formats.open_source` gives them.
    location
        What to call their place.
    """
    observer = ValidationObserver() if observer is None else observer
    manifest, findings = labels.manifest, Findings()
    observer.on_start(level=Level.CONTENT, parts=manifest.num_parts)
    for note in labels.notes:
        findings.add(check_notes(note))
    for finding in _judge_parts(labels, observer):
        findings.add([finding])
    return Report(
        location=location,
        name=manifest.name,
        state=None,
        digest=None,
        levels=(Level.CONTENT, Level.SENSE),
        groups=findings.groups,
        files=(),
        skipped=findings.skipped,
    )


def _judge_parts(labels: ForeignLabels, observer: ValidationObserver) -> Iterator[Finding]:
    manifest = labels.manifest
    sense = SenseScan(manifest, Place())
    ids, classes = labels.samples["sample_id"], column_values(labels.samples["class_index"])
    is_whole = True
    for part in range(manifest.num_parts):
        rows = manifest.rows_of_part(part)
        try:
            read = labels.read_part(part)
        except (ObjectStoreError, LabelSourceError):
            raise  # nothing is there to be judged, or a service failed
        except RelabelStoreError as error:
            is_whole = False
            yield from check_labels_fit(rows, str(error))
        else:
            for bad in read.bad_images:
                yield from check_labels_readable(bad.row, ids[bad.row].as_py(), bad.reason)
            arrays = {spec.INDICES: read.indices, spec.VALUES: read.values}
            if read.rest is not None:
                arrays[spec.REST] = read.rest
            record = PartRecord(part, rows, {}, FileEntry(0, ""), read.bad_images, read.exif_oriented)
            scanned = ScannedPart(manifest, record, arrays, read.is_labelled, classes[rows.start : rows.stop])
            sense.add(part, sense.look(scanned))
        observer.on_part()
    yield from _without_files(sense.conclude(is_whole=is_whole))


def _without_files(found: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings without the files that a store would have."""
    for finding in found:
        problem = finding.problem
        yield replace(finding, problem=replace(problem, place=replace(problem.place, file=None)))

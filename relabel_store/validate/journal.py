"""Rules of the records of parts, in the journal and in ``complete.json``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from relabel_store import spec
from relabel_store.store.journal import PartRecord, is_part_of, record_path
from relabel_store.validate.documents import json_object, part_record
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.finding import Place, Problem
from relabel_store.validate.rule import check

_REBUILD = "run the same build again, which builds its part anew"
_RESTORE = "restore the store from a copy, or build it again"


def _place(evidence: Evidence, part: int, field: str | None = None) -> Place:
    """Return the place of the record of a part."""
    if evidence.completion is not None:
        at = f"parts[{part}]" if field is None else f"parts[{part}].{field}"
        return Place(file=spec.COMPLETE_FILE, field=at)
    return Place(file=record_path(part), field=field)


@check("RS501", "F51", "F50")
def check_journal_records(evidence: Evidence) -> Iterator[Problem]:
    """Each record in the journal is the record of the part it is named after, with its own digest."""
    for name, data in evidence.journal.items():
        if data is None or not evidence.is_as_recorded(name):
            continue
        record = part_record(json_object(data))
        if record is None:
            yield Problem(
                Place(file=name),
                f"{len(data)} bytes that are no record of a part, or whose digest is not their own",
                "the record that the part was committed with",
                _REBUILD,
            )
        elif record_path(record.part) != name:
            yield Problem(Place(file=name), f"the record of part {record.part}", "that of its name", _REBUILD)


@check("RS502", "F51")
def check_record_rows(evidence: Evidence) -> Iterator[Problem]:
    """A record is of a part that the manifest divides the rows into, and of its rows."""
    manifest = evidence.manifest
    assert manifest is not None
    for part, record in sorted(evidence.records.items()):
        if is_part_of(record, manifest):
            continue
        is_known = 0 <= part < manifest.num_parts
        rows = manifest.rows_of_part(part) if is_known else None
        yield Problem(
            _place(evidence, part, "rows"),
            f"rows {record.rows.start} to {record.rows.stop} of part {part}",
            f"one of {manifest.num_parts} parts" if rows is None else f"{rows.start} to {rows.stop}",
            f"it is of another store: {_RESTORE}",
        )


def sound_records(evidence: Evidence) -> Iterator[PartRecord]:
    """Yield the records of parts of this store, parts rising."""
    manifest = evidence.manifest
    assert manifest is not None
    for _, record in sorted(evidence.records.items()):
        if is_part_of(record, manifest):
            yield record


def bad_rows_of(evidence: Evidence) -> NDArray[np.int64] | None:
    """Return the rows of bad images, rising; None unless every part of a finished store has a sound record."""
    manifest = evidence.manifest
    assert manifest is not None
    records = list(sound_records(evidence))
    if not evidence.is_finished or len(records) != manifest.num_parts:
        return None
    rows = [bad.row for record in records for bad in record.bad_images if bad.row in record.rows]
    return np.unique(np.array(rows, np.int64))


@check("RS503", "F51")
def check_record_files(evidence: Evidence) -> Iterator[Problem]:
    """A record names the files of its part, and no others."""
    manifest, encoding = evidence.manifest, evidence.encoding
    assert manifest is not None
    assert encoding is not None
    for record in sound_records(evidence):
        expected, found = set(encoding.files_of_part(manifest, record.part)), set(record.files)
        if found != expected:
            other = sorted(found ^ expected)[0]
            yield Problem(
                _place(evidence, record.part, "files"),
                f"{len(found)} files, {other[:200]!r} {'missing' if other in expected else 'among them'}",
                f"the {len(expected)} of part {record.part}",
                _RESTORE,
            )


@check("RS504", "F60")
def check_records_agree(evidence: Evidence) -> Iterator[Problem]:
    """The records in the journal are those in `complete.json`."""
    if evidence.completion is None:
        return
    completed = evidence.records_of_completion
    for part, record in sorted(evidence.records_of_journal.items()):
        name = record_path(part)
        if part in completed and record != completed[part] and evidence.is_as_recorded(name):
            differing = [
                key for key, value in record.__dict__.items() if value != getattr(completed[part], key)
            ]
            yield Problem(
                Place(file=name),
                f"another record of part {part}, in {', '.join(differing)}",
                f"the one in `{spec.COMPLETE_FILE}`",
                _RESTORE,
            )


@check("RS505", "F51")
def check_bad_images(evidence: Evidence) -> Iterator[Problem]:
    """The bad images of a record are rows of its part, each once and with a reason; EXIF counts are of its rows."""
    for record in sound_records(evidence):
        rows = [bad.row for bad in record.bad_images]
        outside = [row for row in rows if row not in record.rows]
        if outside or len(set(rows)) != len(rows):
            yield Problem(
                _place(evidence, record.part, "bad_images"),
                f"row {outside[0]}" if outside else "a row more than once",
                f"rows {record.rows.start} to {record.rows.stop - 1}, each once",
                _RESTORE,
            )
        elif not all(bad.reason.strip() for bad in record.bad_images):
            yield Problem(_place(evidence, record.part, "bad_images"), "no reason", "why it is bad", _RESTORE)
        if not 0 <= record.exif_oriented <= len(record.rows):
            yield Problem(
                _place(evidence, record.part, "exif_oriented"),
                f"{record.exif_oriented}",
                f"0 to {len(record.rows)} images",
                _RESTORE,
            )


@check("RS506", "F51", "F18", "F63")
def check_sums_of_records(evidence: Evidence) -> Iterator[Problem]:
    """The manifest counts as many bad images, and images with an EXIF orientation, as the part records together."""
    manifest = evidence.manifest
    assert manifest is not None
    records = list(sound_records(evidence))
    if manifest.statistics is None or len(records) != manifest.num_parts:
        return
    sums = {
        "bad_images": sum(len(record.bad_images) for record in records),
        "exif_oriented": sum(record.exif_oriented for record in records),
    }
    for name, expected in sums.items():
        found = getattr(manifest.statistics, name)
        if found != expected:
            yield Problem(
                Place(file=evidence.manifest_place, field=f"statistics.{name}"),
                f"{found}",
                f"{expected}, as the parts have",
                _RESTORE,
            )


RULES = (
    check_record_rows,
    check_record_files,
    check_records_agree,
    check_bad_images,
    check_sums_of_records,
)

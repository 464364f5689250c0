"""The rule of what finished parts found out about their images, while a store is being built."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from relabel_store.errors import FormatError
from relabel_store.store.files import FileEntry
from relabel_store.store.journal import PartRecord, facts_path
from relabel_store.store.samples import FACTS_SCHEMA, from_parquet
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.finding import Place, Problem
from relabel_store.validate.journal import sound_records
from relabel_store.validate.rule import check
from relabel_store.validate.sample_facts import BAD_IMAGE, LABELLED, status_codes, without_bad_images

_REBUILD = "run the same build again, which builds its part anew"


@check("RS507", "F51", "F53")
def check_facts(evidence: Evidence) -> Iterator[Problem]:
    """While a store is being built, the facts of a finished part are as its record says, and of its rows."""
    if evidence.is_finished:
        return
    records = {facts_path(record.part): record for record in sound_records(evidence)}
    for name, data in evidence.files.read_many(records):
        problem = _problem(evidence, records[name], data)
        if problem is not None:
            yield Problem(Place(file=name), problem, "what the record of its part says", _REBUILD)


def _problem(evidence: Evidence, record: PartRecord, data: bytes | None) -> str | None:
    if data is None:
        # They go when they are merged into the sample table, at the end of a build.
        manifest = evidence.manifest
        return None if manifest is not None and manifest.statistics is not None else "missing"
    if FileEntry.of_bytes(data) != record.facts:
        return f"{len(data)} bytes, or a SHA-256, of another file"
    try:
        facts = from_parquet(data, FACTS_SCHEMA)
    except FormatError as error:
        return f"no facts ({error})"
    if len(facts) != len(record.rows):
        return f"{len(facts)} rows of {len(record.rows)}"
    # Of a finished part every image was looked at.
    is_bad = ~without_bad_images(record)
    if not np.array_equal(status_codes(facts["status"]), np.where(is_bad, BAD_IMAGE, LABELLED)):
        return "other statuses than the bad images of the record"
    return None

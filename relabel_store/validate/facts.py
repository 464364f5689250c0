"""The rule of what finished parts found out about their images, while a store is being built."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from relabel_store.errors import FormatError
from relabel_store.store.files import FileEntry
from relabel_store.store.journal import PartRecord, facts_path
from relabel_store.store.samples import FACTS_SCHEMA, SCHEMA, from_parquet
from relabel_store.validate.documents import read_regular
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.finding import Place, Problem
from relabel_store.validate.journal import sound_records
from relabel_store.validate.rule import check
from relabel_store.validate.sample_facts import LABELLED, MISSING, status_codes, without_bad_images

_REBUILD = "run the same build again, which builds its part anew"


@check("RS507", "F51", "F53")
def check_facts(evidence: Evidence) -> Iterator[Problem]:
    """While a store is being built, the facts of a finished part are as its record says, and of its rows."""
    if evidence.is_finished:
        return
    records = {facts_path(record.part): record for record in sound_records(evidence)}
    merged = _Merged(evidence)
    for name, data in evidence.files.read_many(records):
        problem = _problem(merged, records[name], data)
        if problem is not None:
            yield Problem(Place(file=name), problem, "what the record of its part says", _REBUILD)


def _problem(merged: _Merged, record: PartRecord, data: bytes | None) -> str | None:
    if data is None:
        return None if merged.holds(record) else "missing"
    if FileEntry.of_bytes(data) != record.facts:
        return f"{len(data)} bytes, or a SHA-256, of another file"
    try:
        facts = from_parquet(data, FACTS_SCHEMA)
    except FormatError as error:
        return f"no facts ({error})"
    if len(facts) != len(record.rows):
        return f"{len(facts)} rows of {len(record.rows)}"
    codes = status_codes(facts["status"])
    if (codes < 0).any() or not np.array_equal(codes == LABELLED, without_bad_images(record)):
        return "other statuses than those that the record says"
    return None


class _Merged:
    """What went from slices of facts into the sample table: at the end of a build, which may be opened again."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    def holds(self, record: PartRecord) -> bool:
        """Tell whether the facts of a part are in the sample table."""
        assert self._evidence.manifest is not None
        if self._evidence.manifest.statistics is not None:
            return True
        codes = self._codes
        if codes is None:
            return False
        is_missing = codes[record.rows.start : record.rows.stop] == MISSING
        return not (is_missing & without_bad_images(record)).any()

    @cached_property
    def _codes(self) -> NDArray[np.int64] | None:
        """The statuses of all rows; None where the table cannot be judged."""
        manifest, encoding = self._evidence.manifest, self._evidence.encoding
        assert manifest is not None
        assert encoding is not None
        data = read_regular(self._evidence.files, encoding.samples_file)
        try:
            codes = status_codes(from_parquet(data or b"", SCHEMA, ["status"])["status"])
        except FormatError:
            return None
        return codes if len(codes) == manifest.num_samples else None

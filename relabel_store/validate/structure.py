"""The level ``structure``: documents, names, sizes and the sample table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relabel_store import spec
from relabel_store.errors import FormatError
from relabel_store.validate import completion, facts, files, journal, manifests, traces, zarr_arrays
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.finding import Finding, Place
from relabel_store.validate.parquet_files import footer_findings
from relabel_store.validate.report import Findings
from relabel_store.validate.rule import Level
from relabel_store.validate.sample_rules import check_table_readable
from relabel_store.validate.sample_table import SampleTableCheck, table_pieces
from relabel_store.validate.stage import ValidationObserver

_UNREADABLE = (pa.ArrowException, ValueError, OSError)


def judge_foundation(evidence: Evidence, findings: Findings) -> None:
    """Look at ``complete.json`` and the manifest, which every level rests on."""
    for rule in (*completion.RULES, *manifests.RULES):
        findings.add(rule(evidence))
    findings.add(files.check_digests_of_documents(evidence))


@dataclass(frozen=True)
class StructureStage:
    """What can be told in seconds."""

    level: Level = Level.STRUCTURE

    def run(self, evidence: Evidence, findings: Findings, observer: ValidationObserver) -> None:
        """Look at everything but the label maps."""
        del observer
        for rule in files.RULES:
            findings.add(rule(evidence))
        if not evidence.inventory.is_whole:
            findings.skip("files that are not listed", "the server does not say what lies there")
        findings.add(traces.check_traces(evidence))
        findings.add(journal.check_journal_records(evidence))
        if evidence.manifest is None:
            findings.skip(
                "arrays, sample table and parts", "the manifest that they have to fit cannot be used"
            )
            return
        for rule in journal.RULES:
            findings.add(rule(evidence))
        findings.add(facts.check_facts(evidence))
        _judge_encoding(evidence, findings)
        _judge_samples(evidence, findings)


def _judge_encoding(evidence: Evidence, findings: Findings) -> None:
    """Look at what an encoding says of its arrays."""
    manifest = evidence.manifest
    assert manifest is not None
    findings.add(zarr_arrays.check_as_begun(evidence))
    if manifest.encoding.name == spec.ENCODING_ZARR and evidence.is_finished:
        for rule in zarr_arrays.OF_STORE:
            findings.add(rule(evidence))
        for document in zarr_arrays.array_documents_of(evidence):
            for of_array in zarr_arrays.OF_ARRAYS:
                findings.add(of_array(document))
    if manifest.encoding.name == spec.ENCODING_PARQUET and evidence.files.path is not None:
        assert evidence.manifest_document is not None
        for part, name in _files_of_parts(evidence, findings):
            source = evidence.files.path / name
            findings.add(footer_findings(manifest, evidence.manifest_document, part, source))


def _files_of_parts(evidence: Evidence, findings: Findings) -> Iterator[tuple[int, str]]:
    """Yield the files of finished parts that nothing is known against."""
    manifest, encoding = evidence.manifest, evidence.encoding
    assert manifest is not None
    assert encoding is not None
    for part in sorted(evidence.records):
        for name in encoding.files_of_part(manifest, part) if 0 <= part < manifest.num_parts else ():
            if name not in findings.spoiled and name in evidence.inventory.sizes:
                yield part, name


def _judge_samples(evidence: Evidence, findings: Findings) -> None:
    """Look at the sample table, wherever it lies."""
    manifest, encoding = evidence.manifest, evidence.encoding
    assert manifest is not None
    assert encoding is not None
    table = SampleTableCheck(manifest, Place(file=evidence.manifest_place), bad_rows_of(evidence))
    if not (encoding.is_self_contained and evidence.is_finished):
        name = encoding.samples_file
        if name in findings.spoiled or name not in evidence.inventory.sizes:
            findings.skip("sample table", f"{name!r} is damaged or missing")
            return
        path = evidence.files.path
        source = evidence.files.read(name) if path is None else path / name
        findings.add(_judge_table(table, name, source))
    elif evidence.files.path is not None:
        _judge_pieces(evidence, findings, table)


def _judge_table(table: SampleTableCheck, name: str, source: Path | bytes) -> Iterator[Finding]:
    try:
        for piece in table_pieces(source):
            yield from table.add(name, piece)
    except _UNREADABLE as error:
        yield from check_table_readable(name, _line(error))
        return
    yield from table.conclude()


def _judge_pieces(evidence: Evidence, findings: Findings, table: SampleTableCheck) -> None:
    """Look at the lines that each file of a self-contained encoding holds."""
    manifest, encoding, path = evidence.manifest, evidence.encoding, evidence.files.path
    assert manifest is not None
    assert encoding is not None
    assert path is not None
    shards = encoding.open_shards(evidence.files, manifest, evidence.listed)
    parts = dict(_files_of_parts(evidence, findings))
    fetch: Callable[[str], Path] = path.joinpath
    for part in range(manifest.num_parts):
        if part not in parts:
            findings.skip("sample table", f"that of part {part} and what comes after it: its file is unsound")
            return
        try:
            piece = shards.read_samples(part, fetch)
            if piece is None:
                return
            piece.validate(full=True)
        except (FormatError, *_UNREADABLE) as error:
            findings.add(check_table_readable(parts[part], _line(error)))
            return
        findings.add(table.add(parts[part], piece))
    findings.add(table.conclude())


def bad_rows_of(evidence: Evidence) -> NDArray[np.int64] | None:
    """Return the rows of bad images, rising; None unless every part of a finished store has a sound record."""
    manifest = evidence.manifest
    assert manifest is not None
    records = list(journal.sound_records(evidence))
    if not evidence.is_finished or len(records) != manifest.num_parts:
        return None
    rows = [bad.row for record in records for bad in record.bad_images if bad.row in record.rows]
    return np.unique(np.array(rows, np.int64))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

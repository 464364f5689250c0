"""The level ``structure``: documents, names, sizes and the sample table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from relabel_store import spec
from relabel_store.errors import FormatError
from relabel_store.validate import (
    begun,
    completion,
    facts,
    files,
    journal,
    manifests,
    parquet_files,
    traces,
    zarr_arrays,
)
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.finding import Finding, Place
from relabel_store.validate.report import Findings
from relabel_store.validate.rule import Level
from relabel_store.validate.sample_rules import check_table_readable
from relabel_store.validate.sample_table import SampleTableCheck, table_pieces
from relabel_store.validate.stage import ValidationObserver

_UNREADABLE = (pa.ArrowException, ValueError, OSError)


def judge_foundation(evidence: Evidence, findings: Findings) -> None:
    """Look at ``complete.json``, the manifest and what they record of files: every level rests on them."""
    for rule in (*completion.RULES, *manifests.RULES, begun.check_begun, *files.OF_RECORDED):
        findings.add(rule(evidence))


@dataclass(frozen=True)
class StructureStage:
    """What can be told in seconds."""

    is_alone: bool = True
    """Whether no other level reads the files of parts."""
    level: Level = Level.STRUCTURE

    def run(self, evidence: Evidence, findings: Findings, observer: ValidationObserver) -> None:
        """Look at everything but the label maps."""
        del observer
        findings.add(files.check_nothing_else(evidence))
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
        if self.is_alone and evidence.has_samples_in_remote_parts:
            findings.skip(
                "sample table", "it lies in the files of parts, which level content reads as a whole"
            )


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
    judge_file = None if evidence.files.path is None else parquet_files.footers_of(evidence)
    if judge_file is not None:
        assert evidence.files.path is not None
        for part, name in _files_of_parts(evidence, findings):
            findings.add(judge_file(part, evidence.files.path / name))


def _files_of_parts(evidence: Evidence, findings: Findings) -> Iterator[tuple[int, str]]:
    """Yield the files of finished parts that nothing is known against."""
    manifest, encoding = evidence.manifest, evidence.encoding
    assert manifest is not None
    assert encoding is not None
    for part in sorted(evidence.records):
        for name in encoding.files_of_part(manifest, part) if 0 <= part < manifest.num_parts else ():
            if name not in findings.spoiled and evidence.size(name) is not None:
                yield part, name


def _judge_samples(evidence: Evidence, findings: Findings) -> None:
    """Look at the sample table, wherever it lies."""
    manifest, encoding = evidence.manifest, evidence.encoding
    assert manifest is not None
    assert encoding is not None
    table = SampleTableCheck(manifest, Place(file=evidence.manifest_place), journal.bad_rows_of(evidence))
    if not (encoding.is_self_contained and evidence.is_finished):
        name = encoding.samples_file
        if name in findings.spoiled or evidence.size(name) is None:
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


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

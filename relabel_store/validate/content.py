"""The level ``content``: every byte is read once, and every label looked at.

On the way, what labels alone say of the level ``sense`` is judged too.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from relabel_store.errors import FormatError
from relabel_store.manifest import Manifest
from relabel_store.validate.content_scans import LabelScan, SampleScan
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.files import is_description, recorded_files
from relabel_store.validate.finding import Place
from relabel_store.validate.journal import bad_rows_of, sound_records
from relabel_store.validate.parquet_files import footers_of
from relabel_store.validate.parts import SoundParts, check_expansion, compare_files
from relabel_store.validate.report import Findings
from relabel_store.validate.rule import Level
from relabel_store.validate.sample_facts import SampleFacts
from relabel_store.validate.sample_table import SampleTableCheck
from relabel_store.validate.scan import Scan, decoded_bytes, scan_parts
from relabel_store.validate.sense import SenseScan
from relabel_store.validate.stage import ValidationObserver


@dataclass(frozen=True)
class ContentStage:
    """What takes a full read of the store.

    Parameters
    ----------
    scans
        What else is to look at every part on the way.
    """

    scans: Sequence[Scan] = ()
    level: Level = Level.CONTENT

    def run(self, evidence: Evidence, findings: Findings, observer: ValidationObserver) -> None:
        """Read and decode every part once."""
        manifest = evidence.manifest
        if manifest is None:
            findings.skip("labels", "the manifest, which says what the files hold, cannot be used")
        elif not self._is_too_large(evidence, manifest, findings):
            self._look_at_parts(evidence, manifest, findings, observer)
            return
        unknown = {
            name: entry
            for name, entry in recorded_files(evidence).items()
            if name not in findings.spoiled and not is_description(name)
        }
        observer.on_start(level=self.level, parts=len(unknown))
        findings.add(compare_files(evidence.files, unknown, on_file=observer.on_part))

    def _is_too_large(self, evidence: Evidence, manifest: Manifest, findings: Findings) -> bool:
        """Tell whether parts claim to be larger than their files can be."""
        sizes = [sum(evidence.size(name) or 0 for name in record.files) for record in sound_records(evidence)]
        rows = min(manifest.layout.shard_rows, manifest.num_samples)
        place = Place(file=evidence.manifest_place, field="label_map.grid")
        found = list(check_expansion(place, decoded_bytes(manifest, rows), max(sizes, default=0)))
        findings.add(found)
        if found:
            findings.skip("labels", "parts claim to be larger than their files can be")
        return bool(found)

    def _look_at_parts(
        self, evidence: Evidence, manifest: Manifest, findings: Findings, observer: ValidationObserver
    ) -> None:
        assert evidence.encoding is not None
        fixed = set(evidence.encoding.fixed_files(manifest))
        unsound = sorted(findings.spoiled & fixed)
        if evidence.listed is not None:  # of what it lists no entry of, nobody knows whether it is sound
            unsound += sorted(fixed - evidence.listed.keys() - findings.spoiled)
        if unsound:
            findings.skip("labels", f"{unsound[0]!r}, which says how they are stored, is not sound")
        records = list(sound_records(evidence))
        facts = _sample_facts(evidence, manifest, findings.spoiled)
        place = Place(file=evidence.manifest_place)
        scans: list[Scan] = [LabelScan(manifest, place, findings), SenseScan(manifest, place), *self.scans]
        judge_file = None
        if evidence.has_samples_in_remote_parts:
            scans.insert(
                0, SampleScan(manifest, SampleTableCheck(manifest, place, bad_rows_of(evidence)), findings)
            )
            judge_file = footers_of(evidence)
        observer.on_start(level=self.level, parts=len(records))
        found = scan_parts(
            manifest,
            records,
            SoundParts(
                evidence.files,
                manifest,
                evidence.listed,
                facts,
                findings.spoiled,
                is_decoding=not unsound,
                judge_file=judge_file,
            ),
            scans,
            is_local=evidence.files.path is not None,
            on_part=observer.on_part,
        )
        for finding in found:
            findings.add([finding])


def _sample_facts(evidence: Evidence, manifest: Manifest, spoiled: Container[str]) -> SampleFacts | None:
    encoding, files = evidence.encoding, evidence.files
    assert encoding is not None
    if encoding.is_self_contained and evidence.is_finished:
        return None
    name = encoding.samples_file
    if name in spoiled or files.size(name) is None:
        return None
    try:
        source = files.read(name) if files.path is None else files.path / name
        facts = SampleFacts.read(source, is_finished=evidence.is_finished)
    except (FormatError, FileNotFoundError):
        return None
    return facts if len(facts.class_index) == manifest.num_samples else None

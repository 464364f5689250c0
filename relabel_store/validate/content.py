"""The level ``content``: every byte is read once, and every label looked at.

On the way, what labels alone say of the level ``sense`` is judged too.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

from relabel_store import spec
from relabel_store.errors import FormatError
from relabel_store.manifest import Manifest, State
from relabel_store.store.statistics import Counts
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.files import is_description, recorded_files
from relabel_store.validate.finding import Finding, Place, Severity
from relabel_store.validate.journal import sound_records
from relabel_store.validate.label_maps import blocks_of, label_findings
from relabel_store.validate.parts import SoundParts, compare_files
from relabel_store.validate.report import Findings
from relabel_store.validate.rule import Level
from relabel_store.validate.sample_facts import SampleFacts
from relabel_store.validate.scan import Scan, ScannedPart, scan_parts
from relabel_store.validate.sense import SenseScan
from relabel_store.validate.stage import ValidationObserver
from relabel_store.validate.statistics import check_statistics


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
            unknown = {
                name: entry
                for name, entry in recorded_files(evidence).items()
                if name not in findings.spoiled and not is_description(name)
            }
            observer.on_start(level=self.level, parts=len(unknown))
            findings.add(compare_files(evidence.files, unknown, on_file=observer.on_part))
            return
        records = list(sound_records(evidence))
        fixed = evidence.encoding.fixed_files(manifest) if evidence.encoding is not None else {}
        unsound = sorted(findings.spoiled & set(fixed))
        if unsound:
            findings.skip("labels", f"{unsound[0]!r}, which says how they are stored, is not sound")
        place = Place(file=evidence.manifest_place)
        scans = [LabelScan(manifest, place, findings), SenseScan(manifest, place), *self.scans]
        facts = _sample_facts(evidence, manifest, findings.spoiled)
        read = SoundParts(
            evidence.files, manifest, evidence.listed, facts, findings.spoiled, is_decoding=not unsound
        )
        observer.on_start(level=self.level, parts=len(records))
        found = scan_parts(
            manifest,
            records,
            read,
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
    if name in spoiled:
        return None
    try:
        source = files.read(name) if files.path is None else files.path / name
        facts = SampleFacts.read(source, is_finished=evidence.is_finished)
    except (FormatError, FileNotFoundError):
        return None
    return facts if len(facts.class_index) == manifest.num_samples else None


class LabelScan:
    """Looks at the labels of every part, and counts what the manifest has statistics of; see `scan.Scan`."""

    def __init__(self, manifest: Manifest, place: Place, findings: Findings) -> None:
        self._manifest = manifest
        self._place = place
        self._findings = findings
        self._counts: list[Counts] = []
        self._is_countable = manifest.state is State.COMPLETE

    def look(self, part: ScannedPart) -> tuple[list[Finding], Counts | None]:
        """Return what is wrong with the labels of a part, and its counts where nothing is."""
        found = [finding for labels in blocks_of(part) for finding in label_findings(labels)]
        has_errors = any(finding.rule.severity is Severity.ERROR for finding in found)
        return found, None if has_errors or not self._is_countable else count_part(part)

    def add(self, part: int, seen: tuple[list[Finding], Counts | None]) -> Iterable[Finding]:
        """Add up the counts."""
        del part
        findings, counts = seen
        if counts is None:
            self._is_countable = False
        else:
            self._counts = [Counts.total([*self._counts, counts], self._manifest.label_map.num_classes)]
        return findings

    def conclude(self, *, is_whole: bool) -> Iterator[Finding]:
        """Compare the counts with the statistics of the manifest."""
        if self._manifest.state is not State.COMPLETE:
            return
        if not is_whole or not self._is_countable:
            self._findings.skip("statistics", "not every part could be counted")
            return
        yield from check_statistics(self._manifest, self._place, self._counts[0])


def count_part(part: ScannedPart) -> Counts | None:
    """Return the counts of a part, or None where nobody knows the class of its folders."""
    if part.class_index is None:
        return None
    keep = part.is_labelled
    arrays = part.arrays if keep.all() else {name: array[keep] for name, array in part.arrays.items()}
    return Counts.of(
        arrays[spec.INDICES],
        arrays[spec.VALUES],
        arrays.get(spec.REST),
        part.class_index[keep],
        num_classes=part.manifest.label_map.num_classes,
    )

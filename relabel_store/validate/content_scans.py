"""What the levels structure and content look for in the one pass over the parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relabel_store.manifest import Manifest, State
from relabel_store.store.encodings import encoding_of
from relabel_store.store.statistics import Counts
from relabel_store.validate.finding import Finding, Place
from relabel_store.validate.label_maps import Labels, blocks_of, label_findings
from relabel_store.validate.report import Findings
from relabel_store.validate.sample_table import SampleTableCheck
from relabel_store.validate.scan import ScannedPart
from relabel_store.validate.statistics import check_statistics


class SampleScan:
    """Looks at a sample table that lies in the files of parts, where they come over a network; see `scan.Scan`.

    In a directory the level structure reads it, without the label maps beside it.
    """

    def __init__(self, manifest: Manifest, table: SampleTableCheck, findings: Findings) -> None:
        self._manifest = manifest
        self._table = table
        self._findings = findings
        self._next = 0

    def look(self, part: ScannedPart) -> pa.Table:
        """Return the lines of a part."""
        return part.samples

    def add(self, part: int, seen: pa.Table) -> Iterator[Finding]:
        """Look at the lines of a part, unless some before them are not known."""
        if part == self._next:
            self._next += 1
            yield from self._table.add(
                next(iter(encoding_of(self._manifest).files_of_part(self._manifest, part))), seen
            )

    def conclude(self, *, is_whole: bool) -> Iterator[Finding]:
        """Look at the table as a whole."""
        if is_whole:
            yield from self._table.conclude()
        else:
            self._findings.skip("sample table", f"that of part {self._next} and what comes after it")


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
        found: list[Finding] = []
        counts: list[Counts] = []
        for labels in blocks_of(part):
            found += label_findings(labels)
            if not found and self._is_countable and part.class_index is not None:
                counts.append(_count(labels, part.class_index[labels.rows - part.rows.start]))
        is_counted = bool(counts) and not found
        return found, Counts.total(counts, self._manifest.label_map.num_classes) if is_counted else None

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


def _count(labels: Labels, class_index: NDArray[np.int64]) -> Counts:
    labelled = labels.of(labels.is_labelled)
    return Counts.of(
        labelled.indices,
        labelled.values,
        labelled.rest,
        class_index[labels.is_labelled],
        num_classes=labels.manifest.label_map.num_classes,
    )

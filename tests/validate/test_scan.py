from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from relabel_store.manifest import Manifest
from relabel_store.store.arrays import Arrays
from relabel_store.store.files import FileEntry
from relabel_store.store.journal import PartRecord
from relabel_store.testing import make_manifest
from relabel_store.validate.finding import Finding, Place, Problem, Severity
from relabel_store.validate.rule import Level, Rule
from relabel_store.validate.scan import ScannedPart, decoded_bytes, scan_parts

RULE = Rule("RS999", Severity.ERROR, Level.CONTENT, "Parts are sound.")
PARTS = 40


@pytest.fixture
def manifest() -> Manifest:
    return make_manifest(PARTS * 4)


def records_of(manifest: Manifest) -> list[PartRecord]:
    return [
        PartRecord(part, manifest.rows_of_part(part), {}, FileEntry(0, ""), (), 0)
        for part in range(manifest.num_parts)
    ]


class Reader:
    """Gives each part its number in every cell; those asked for are unsound."""

    def __init__(self, manifest: Manifest, unsound: Iterable[int] = ()) -> None:
        self.manifest = manifest
        self.unsound = set(unsound)
        self.rooms: set[int] = set()
        self.threads: set[int] = set()

    def __call__(self, record: PartRecord, into: Arrays) -> tuple[list[Finding], ScannedPart | None]:
        time.sleep(0.001 * (record.part % 3))  # others overtake
        self.threads.add(threading.get_ident())
        self.rooms.add(into["indices"].__array_interface__["data"][0])
        if record.part in self.unsound:
            return [Finding(RULE, Problem(Place(row=record.part), "unsound", "sound"))], None
        into["indices"][:] = record.part
        n = len(record.rows)
        return [], ScannedPart(self.manifest, record, into, np.ones(n, np.bool_), None)


class Numbers:
    """Remembers the number in the cells of each part."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.is_whole: bool | None = None

    def look(self, part: ScannedPart) -> int:
        assert (part.arrays["indices"] == part.part).all()
        return int(part.arrays["indices"][0, 0, 0, 0])

    def add(self, part: int, seen: Any) -> Iterator[Finding]:
        self.seen.append((part, seen))
        if part == 3:
            yield Finding(RULE, Problem(Place(row=part), "3", "any other"))

    def conclude(self, *, is_whole: bool) -> Iterator[Finding]:
        self.is_whole = is_whole
        yield Finding(RULE, Problem(Place(), "the end", "more"))


def scan(reader: Reader, scans: list[Numbers], records: list[PartRecord] | None = None) -> list[str]:
    done: list[None] = []
    found = scan_parts(
        reader.manifest,
        records_of(reader.manifest) if records is None else records,
        reader,
        scans,
        is_local=False,
        on_part=lambda: done.append(None),
    )
    texts = [finding.problem.found for finding in found]
    assert len(done) == len(records_of(reader.manifest) if records is None else records)
    return texts


def test_every_scan_sees_every_part_in_order(manifest: Manifest):
    scans = [Numbers(), Numbers()]
    assert scan(Reader(manifest), scans) == ["3", "3", "the end", "the end"]
    for one in scans:
        assert one.seen == [(part, part) for part in range(PARTS)]
        assert one.is_whole


def test_arrays_are_used_again(manifest: Manifest):
    reader = Reader(manifest)
    scan(reader, [Numbers()])
    assert len(reader.threads) > 1
    assert len(reader.rooms) <= 16 < PARTS


def test_a_part_that_cannot_be_read_is_found_and_not_scanned(manifest: Manifest):
    numbers = Numbers()
    assert scan(Reader(manifest, unsound=[5]), [numbers]) == ["3", "unsound", "the end"]
    assert [part for part, _ in numbers.seen] == [part for part in range(PARTS) if part != 5]
    assert numbers.is_whole is False


def test_parts_without_a_record_are_missed(manifest: Manifest):
    numbers = Numbers()
    scan(Reader(manifest), [numbers], records_of(manifest)[:-1])
    assert numbers.is_whole is False


def test_a_mistake_of_a_scan_ends_it(manifest: Manifest):
    class Broken(Numbers):
        def look(self, part: ScannedPart) -> int:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        scan(Reader(manifest), [Broken()])


def test_the_size_of_decoded_rows_is_that_of_their_arrays():
    manifest = make_manifest(grid=(15, 15), k=5, num_classes=1000)
    assert decoded_bytes(manifest, 100) == 100 * 15 * 15 * 5 * (2 + 2)

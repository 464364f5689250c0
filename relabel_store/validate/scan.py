"""One pass over the parts of a store: each file is read and decoded once, and shown to every scan."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relabel_store.manifest import Manifest
from relabel_store.store.arrays import Arrays, array_specs
from relabel_store.store.decoded import usable_cores
from relabel_store.store.journal import PartRecord
from relabel_store.validate.finding import Finding

T = TypeVar("T")

_REQUESTS = 16  # parts at once where a network is to be hidden
_ROOM_BYTES = 2 * 1024**3  # of decoded parts at once; one of 4,096 rows takes 18 MB at 15x15x5


@dataclass(frozen=True)
class ScannedPart:
    """A part whose files are what was recorded of them, decoded.

    Parameters
    ----------
    arrays
        By name, a row for each of `rows`. They are overwritten once the scans have looked at the part.
    is_labelled
        bool ``(n,)``: which rows have a label, as the sample table says.
    class_index
        int64 ``(n,)``: the teacher's class of the folder, -1 where unknown; None where the sample table cannot be read.
    samples
        Its lines of the sample table, where they lie in the files of the part.
    """

    manifest: Manifest
    record: PartRecord
    arrays: Arrays
    is_labelled: NDArray[np.bool_]
    class_index: NDArray[np.int64] | None
    samples: pa.Table | None = None

    @property
    def part(self) -> int:
        """Its number."""
        return self.record.part

    @property
    def rows(self) -> range:
        """Its rows."""
        return self.record.rows


class Scan(Protocol):
    """Looks at every part in one pass over a store."""

    def look(self, part: ScannedPart) -> Any:
        """Return what is to be remembered of a part; in any thread, several at a time, no array kept."""

    def add(self, part: int, seen: Any) -> Iterable[Finding]:
        """Take in what was seen of a part and give findings; in one thread, parts rising."""

    def conclude(self, *, is_whole: bool) -> Iterable[Finding]:
        """Give findings about all parts together.

        Parameters
        ----------
        is_whole
            Whether every part was seen; some may be damaged, or not built yet.
        """


class PartReader(Protocol):
    """Reads, checks and decodes a part."""

    def __call__(self, record: PartRecord, into: Arrays) -> tuple[list[Finding], ScannedPart | None]:
        """Return what is wrong with the files of a part, and the part where it could be decoded."""


def scan_parts(
    manifest: Manifest,
    records: Sequence[PartRecord],
    read: PartReader,
    scans: Sequence[Scan],
    *,
    is_local: bool,
    on_part: Callable[[], None],
) -> Iterator[Finding]:
    """Yield the findings about parts and their labels, in order of the parts.

    Threads do the reading, hashing, decoding and looking, all of which lets others run meanwhile; each has arrays of
    its own for one part, so that memory does not depend on the number of rows.
    """
    rooms = _Rooms(manifest, max(usable_cores(), 1 if is_local else _REQUESTS))

    def look(record: PartRecord) -> tuple[list[Finding], list[Any] | None]:
        with rooms.borrow(len(record.rows)) as into:
            findings, part = read(record, into)
            return findings, None if part is None else [scan.look(part) for scan in scans]

    is_whole = True
    with ThreadPoolExecutor(rooms.count, thread_name_prefix="validate") as threads:
        try:
            for record, (findings, seen) in _in_order(threads, look, records, ahead=2 * rooms.count):
                yield from findings
                for scan, one in zip(scans, seen or (), strict=seen is not None):
                    yield from scan.add(record.part, one)
                is_whole &= seen is not None
                on_part()
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    is_whole &= len(records) == manifest.num_parts
    for scan in scans:
        yield from scan.conclude(is_whole=is_whole)


def _in_order(
    threads: ThreadPoolExecutor, call: Callable[[PartRecord], T], records: Sequence[PartRecord], *, ahead: int
) -> Iterator[tuple[PartRecord, T]]:
    """Yield results in the order asked, with so many calls under way at a time."""
    waiting: deque[tuple[PartRecord, Future[T]]] = deque()
    for record in records:
        waiting.append((record, threads.submit(call, record)))
        if len(waiting) >= ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


class _Rooms:
    """Arrays to decode parts into, one set a thread."""

    def __init__(self, manifest: Manifest, threads: int) -> None:
        self._specs = array_specs(manifest)
        self._rows = min(manifest.layout.shard_rows, manifest.num_samples)
        size = decoded_bytes(manifest, self._rows)
        self.count = max(1, min(threads, manifest.num_parts, _ROOM_BYTES // max(size, 1)))
        self._free: deque[Arrays] = deque()

    @contextmanager
    def borrow(self, rows: int) -> Iterator[Arrays]:
        """Yield room for some rows, the caller's own for a while."""
        try:
            room = self._free.pop()
        except IndexError:
            room = {name: array.empty(self._rows) for name, array in self._specs.items()}
        yield {name: array[:rows] for name, array in room.items()}
        self._free.append(room)


def decoded_bytes(manifest: Manifest, rows: int) -> int:
    """Return the size in bytes of some decoded rows."""
    return rows * sum(array.row_size * array.dtype.itemsize for array in array_specs(manifest).values())

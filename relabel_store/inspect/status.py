"""How far a build is, from its journal alone."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from relabel_store.store.encoded import EncodedStore
from relabel_store.store.running import FailedPart, RunningPart, read_running

_SILENT_PARTS = 5  # as long as so many parts usually take, without a word


class WorkerState(StrEnum):
    """What is known of whoever began a part."""

    RUNNING = "running"
    DEAD = "dead"
    """A process of this host that is no more."""
    SILENT = "silent"
    """It has been at the part for long; its clock may also be another."""


@dataclass(frozen=True)
class Worker:
    """Whoever began a part that is not finished."""

    part: RunningPart
    state: WorkerState

    @property
    def samples_per_s(self) -> float | None:
        """Samples a second that it has labelled so far, by its own clock; None in its first part."""
        return self.part.samples / self.part.seconds if self.part.samples and self.part.seconds > 0 else None


@dataclass(frozen=True)
class BuildStatus:
    """How far a build is.

    Parameters
    ----------
    samples, bad_images
        In finished parts.
    workers
        By part.
    failed
        Parts that were given up.
    """

    name: str
    is_complete: bool
    parts: int
    parts_finished: int
    num_samples: int
    samples: int
    bad_images: int
    workers: tuple[Worker, ...]
    failed: tuple[FailedPart, ...]

    @property
    def samples_per_s(self) -> float | None:
        """Of all workers that are running; None where none has finished a part yet."""
        rates = [worker.samples_per_s for worker in self.workers if worker.state is WorkerState.RUNNING]
        known = [rate for rate in rates if rate is not None]
        # Those in their first part are taken to be as fast as the others.
        return sum(known) / len(known) * len(rates) if known else None

    @property
    def time_left(self) -> timedelta | None:
        """None where nobody is at work, or nobody knows how fast that goes."""
        rate = self.samples_per_s
        return timedelta(seconds=(self.num_samples - self.samples) / rate) if rate else None

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON types: the document of ``schemas/status-v1.schema.json``."""
        left = self.time_left
        return {
            "name": self.name,
            "is_complete": self.is_complete,
            "parts": self.parts,
            "parts_finished": self.parts_finished,
            "num_samples": self.num_samples,
            "samples": self.samples,
            "bad_images": self.bad_images,
            "samples_per_s": self.samples_per_s,
            "seconds_left": None if left is None else left.total_seconds(),
            "workers": [
                {**asdict(worker.part), "state": worker.state.value, "samples_per_s": worker.samples_per_s}
                for worker in self.workers
            ],
            "failed": [asdict(failed) for failed in self.failed],
        }


def status_of(store: EncodedStore, now: datetime | None = None) -> BuildStatus:
    """Return how far the build of a store is; reads its journal, not its maps.

    Parameters
    ----------
    now
        In UTC; None asks the clock.
    """
    running, failed = read_running(store.files)
    records = store.parts
    now = datetime.now(UTC) if now is None else now
    return BuildStatus(
        name=store.manifest.name,
        is_complete=store.is_complete,
        parts=store.manifest.num_parts,
        parts_finished=len(records),
        num_samples=len(store),
        samples=sum(len(record.rows) for record in records.values()),
        bad_images=sum(len(record.bad_images) for record in records.values()),
        workers=tuple(
            Worker(note, _state_of(note, now, store.manifest.layout.shard_rows))
            for note in running
            if note.part not in records
        ),
        failed=tuple(note for note in failed if note.part not in records),
    )


def _state_of(note: RunningPart, now: datetime, shard_rows: int) -> WorkerState:
    if note.host == socket.gethostname():
        return WorkerState.RUNNING if _is_alive(note.pid) else WorkerState.DEAD
    if note.samples and note.seconds > 0:
        usual_s = shard_rows * note.seconds / note.samples
        if (now - datetime.fromisoformat(note.since)).total_seconds() > _SILENT_PARTS * usual_s:
            return WorkerState.SILENT
    return WorkerState.RUNNING


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True

"""Who is labelling which part, while a store is being built.

A worker writes a record when it begins a part, and removes it when the part is committed. How fast it is it measures
itself, so that no clock is compared with that of another host; none of this is in a finished store.
"""

from __future__ import annotations

import os
import re
import socket
import time
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from relabel_store import spec
from relabel_store.canonical import canonical_json, read_json
from relabel_store.store.files import StoreFiles

_RUNNING = re.compile(rf"{re.escape(spec.RUNNING_DIR)}/(part-\d{{5,}})\.running\.json")
_FAILED = re.compile(rf"{re.escape(spec.RUNNING_DIR)}/(part-\d{{5,}})\.failed\.json")


@dataclass(frozen=True)
class RunningPart:
    """A part that somebody is at, or was when it died.

    Parameters
    ----------
    host, pid
        Of the process.
    since
        When it began, by its own clock, in UTC.
    attempt
        1 where nobody began the part before.
    samples, seconds
        What the process has labelled since it began to, and the seconds that took.
    """

    part: int
    host: str
    pid: int
    since: str
    attempt: int
    samples: int
    seconds: float


@dataclass(frozen=True)
class FailedPart:
    """A part that was given up.

    Parameters
    ----------
    attempts
        How often it was tried.
    reason
        The last traceback.
    """

    part: int
    attempts: int
    reason: str


class RunningNotes:
    """Keeps the records of one process.

    Parameters
    ----------
    files
        Of the store.
    """

    def __init__(self, files: StoreFiles) -> None:
        self._files = files
        self._started = time.monotonic()
        self._samples = 0

    def begin(self, part: int) -> None:
        """Note that this process labels a part from now on."""
        name = _running_path(part)
        note = RunningPart(
            part=part,
            host=socket.gethostname(),
            pid=os.getpid(),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            attempt=self._attempts(name) + 1,
            samples=self._samples,
            seconds=round(time.monotonic() - self._started, 3),
        )
        self._files.write(name, canonical_json(asdict(note)))

    def end(self, part: int, samples: int) -> None:
        """Note that a part of so many samples is committed."""
        self._samples += samples
        self._files.remove([_running_path(part), _failed_path(part)])

    def _attempts(self, name: str) -> int:
        try:
            found = _read(RunningPart, self._files.read(name))
        except FileNotFoundError:
            return 0
        return 0 if found is None else found.attempt


def note_failure(files: StoreFiles, failed: FailedPart) -> None:
    """Record that a part was given up; the record goes when the part is committed after all."""
    files.remove([_running_path(failed.part)])
    files.write(_failed_path(failed.part), canonical_json(asdict(failed)))


def read_running(files: StoreFiles) -> tuple[list[RunningPart], list[FailedPart]]:
    """Return who is at which part, and which parts were given up, by part."""
    names = files.listing(spec.RUNNING_DIR)
    running: list[RunningPart] = []
    failed: list[FailedPart] = []
    wanted = [name for name in names if _RUNNING.fullmatch(name) or _FAILED.fullmatch(name)]
    for name, data in files.read_many(wanted):
        if data is None:
            continue  # committed meanwhile
        if _RUNNING.fullmatch(name):
            running += filter(None, [_read(RunningPart, data)])
        else:
            failed += filter(None, [_read(FailedPart, data)])
    return sorted(running, key=lambda note: note.part), sorted(failed, key=lambda note: note.part)


def _read(kind: type[Any], data: bytes) -> Any:
    """Return a record, or None where it is none: it is no more than a note."""
    try:
        document = read_json(data)
        return kind(**{field.name: document[field.name] for field in fields(kind)})
    except (ValueError, KeyError, TypeError):
        return None


def _running_path(part: int) -> str:
    return f"{spec.RUNNING_DIR}/{spec.part_name(part)}.running.json"


def _failed_path(part: int) -> str:
    return f"{spec.RUNNING_DIR}/{spec.part_name(part)}.failed.json"

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from relabel_store import spec
from relabel_store.canonical import canonical_json
from relabel_store.inspect.status import WorkerState, status_of
from relabel_store.schema import load_schema
from relabel_store.store.location import open_files
from relabel_store.store.reader import open_store
from relabel_store.store.running import FailedPart, RunningNotes, RunningPart, note_failure, read_running
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_store

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ELSEWHERE = RunningPart(1, "elsewhere", 7, NOW.isoformat(), attempt=1, samples=400, seconds=100.0)


@pytest.fixture
def location(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A store of two parts of four samples; the first is finished."""
    make_store(tmp_path / "s.zarr", rng, parts=[0])
    return tmp_path / "s.zarr"


def put(location: Path, note: RunningPart) -> None:
    document = canonical_json(note.__dict__)
    open_files(location).write(f"{spec.RUNNING_DIR}/{spec.part_name(note.part)}.running.json", document)


def valid(document: object) -> object:
    jsonschema.validate(document, load_schema("status-v1"))
    return json.loads(json.dumps(document))


def test_a_store_that_nobody_builds(location: Path):
    status = status_of(open_store(location))
    assert (status.parts_finished, status.parts, status.samples, status.num_samples) == (1, 2, 4, 8)
    assert (status.workers, status.failed, status.samples_per_s, status.time_left) == ((), (), None, None)
    valid(status.to_json())


def test_who_is_at_which_part_and_how_fast(location: Path):
    put(location, ELSEWHERE)
    status = status_of(open_store(location), NOW)
    (worker,) = status.workers
    assert (worker.part, worker.state, worker.samples_per_s) == (ELSEWHERE, WorkerState.RUNNING, 4.0)
    assert (status.samples_per_s, status.time_left) == (4.0, timedelta(seconds=1))
    valid(status.to_json())


def test_a_worker_in_its_first_part_counts_as_one_of_the_others(tmp_path: Path, rng: np.random.Generator):
    make_store(tmp_path / "s.zarr", rng, make_manifest(12), parts=[])
    put(tmp_path / "s.zarr", ELSEWHERE)
    put(tmp_path / "s.zarr", replace(ELSEWHERE, part=2, samples=0, seconds=0.0))
    assert status_of(open_store(tmp_path / "s.zarr"), NOW).samples_per_s == 8.0


@pytest.mark.parametrize(
    ("since", "state"),
    [
        (timedelta(seconds=0), WorkerState.RUNNING),
        (timedelta(seconds=-4), WorkerState.RUNNING),
        (timedelta(seconds=-6), WorkerState.SILENT),  # a part usually takes it a second
        (timedelta(hours=1), WorkerState.RUNNING),  # its clock is an hour ahead
    ],
    ids=["now", "a-while-ago", "long-ago", "in-the-future"],
)
def test_a_worker_that_says_nothing_for_long_is_silent(location: Path, since: timedelta, state: WorkerState):
    put(location, replace(ELSEWHERE, since=(NOW + since).isoformat()))
    (worker,) = status_of(open_store(location), NOW).workers
    assert worker.state is state


def test_a_process_of_this_host_that_is_no_more_is_dead(location: Path):
    process = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    notes = RunningNotes(open_files(location))
    notes.begin(1)
    (note,), _ = read_running(open_files(location))
    assert status_of(open_store(location)).workers[0].state is WorkerState.RUNNING
    put(location, replace(note, pid=int(process.stdout)))
    status = status_of(open_store(location))
    assert status.workers[0].state is WorkerState.DEAD
    assert status.samples_per_s is None


def test_attempts_are_counted_over_processes(location: Path):
    files = open_files(location)
    RunningNotes(files).begin(1)
    RunningNotes(files).begin(1)
    (note,), _ = read_running(files)
    assert (note.attempt, note.pid) == (2, os.getpid())


def test_a_process_knows_how_fast_it_was(location: Path, monkeypatch: pytest.MonkeyPatch):
    from relabel_store.store import running

    now = iter([100.0, 100.0, 150.0])
    monkeypatch.setattr(running.time, "monotonic", lambda: next(now))
    notes = RunningNotes(open_files(location))
    notes.begin(0)
    notes.end(0, samples=200)
    notes.begin(1)
    (note,), _ = read_running(open_files(location))
    assert (note.part, note.samples, note.seconds) == (1, 200, 50.0)


def test_a_part_that_was_given_up_is_listed_until_it_is_finished(location: Path, rng: np.random.Generator):
    files = open_files(location)
    RunningNotes(files).begin(1)
    note_failure(files, FailedPart(1, 5, "Traceback\nValueError: no"))
    status = status_of(open_store(location))
    assert status.failed == (FailedPart(1, 5, "Traceback\nValueError: no"),)
    assert status.workers == ()
    valid(status.to_json())
    writer = StoreWriter.resume(location)
    writer.write_part(1, make_part(writer.manifest, make_label_maps(rng, writer.manifest), 1))
    assert status_of(open_store(location)).failed == ()


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"part": 1}'], ids=["empty", "cut", "list", "too-little"]
)
def test_a_note_that_is_none_is_overlooked(location: Path, data: bytes):
    open_files(location).write(f"{spec.RUNNING_DIR}/part-00001.running.json", data)
    assert status_of(open_store(location)).workers == ()
    RunningNotes(open_files(location)).begin(1)
    assert status_of(open_store(location)).workers[0].part.attempt == 1


def test_a_finished_store_has_no_notes(location: Path, rng: np.random.Generator):
    writer = StoreWriter.resume(location)
    RunningNotes(writer.files).begin(1)
    writer.write_part(1, make_part(writer.manifest, make_label_maps(rng, writer.manifest), 1))
    writer.complete()
    assert status_of(open_store(location)).is_complete
    assert not (location / spec.RUNNING_DIR).exists()

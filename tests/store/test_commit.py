from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel_store.errors import DamagedFileError
from relabel_store.store.commit import commit_part, files_of, read_part, settle
from relabel_store.store.files import FileEntry, FileStamp
from relabel_store.store.journal import PartRecord, facts_path, record_path
from relabel_store.store.local_files import LocalFiles
from relabel_store.testing import make_manifest

MANIFEST = make_manifest()
SHARDS = ("indices/c/0/0/0/0", "values/c/0/0/0/0")
ASIDE = "journal/running/aside"


def contents_of(version: int, shared: int = 0) -> dict[str, bytes]:
    """The files of a part, all but the first `shared` of which differ between versions."""
    names = (*SHARDS, facts_path(0))
    return {name: b"%d of %d" % (at, version if at >= shared else 0) for at, name in enumerate(names)}


def record_of(contents: Mapping[str, bytes]) -> PartRecord:
    entries = {name: FileEntry.of_bytes(data) for name, data in contents.items()}
    facts = entries.pop(facts_path(0))
    return PartRecord(0, MANIFEST.rows_of_part(0), entries, facts, (), 0)


class Killed(BaseException):
    """What a process that is dead raises at every further file operation."""


class MemoryFiles:
    """Files in a dictionary; `before` is called before each operation."""

    location = "memory"
    path = None

    def __init__(self, found: dict[str, bytes], before: Callable[[], object] = lambda: None) -> None:
        self.found = found
        self._before = before

    def read(self, name: str) -> bytes:
        self._before()
        if name not in self.found:
            raise FileNotFoundError(name)
        return self.found[name]

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        return ((name, self.found.get(name)) for name in names)

    def entry(self, name: str) -> FileEntry:
        return FileEntry.of_bytes(self.read(name))

    def size(self, name: str) -> int | None:
        self._before()
        return len(self.found[name]) if name in self.found else None

    def write(self, name: str, data: bytes) -> None:
        self._before()
        self.found[name] = data

    def create(self, name: str, data: bytes) -> bool:
        self._before()
        return self.found.setdefault(name, data) is data

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._before()
            self.found.pop(name, None)

    def listing(self, folder: str, *, deep: bool = False) -> dict[str, FileStamp]:
        self._before()
        return {
            name: FileStamp(len(data), "") for name, data in self.found.items() if name.startswith(folder)
        }


def require_whole(found: Mapping[str, bytes], record: PartRecord) -> None:
    assert {name: FileEntry.of_bytes(found[name]) for name, _ in files_of(record)} == dict(files_of(record))


def commit(files: object, contents: Mapping[str, bytes]) -> PartRecord:
    return commit_part(files, MANIFEST, record_of(contents), contents)  # type: ignore[arg-type]


def test_a_part_is_its_files_and_its_record() -> None:
    found: dict[str, bytes] = {}
    record = commit(MemoryFiles(found), contents_of(1))
    assert found == {**contents_of(1), record_path(0): record.to_bytes()}


def test_the_second_of_two_leaves_everything_as_it_is() -> None:
    found: dict[str, bytes] = {}
    first = commit(MemoryFiles(found), contents_of(1))
    before = dict(found)
    assert commit(MemoryFiles(found), contents_of(2)) == first
    assert found == before


@pytest.mark.parametrize("written", [1, 2, 3], ids="{} files written".format)
@pytest.mark.parametrize("version", [1, 2], ids=["same bytes", "other bytes"])
def test_what_a_dead_writer_left_does_not_keep_the_next_from_its_part(written: int, version: int) -> None:
    found = dict(list(contents_of(1).items())[:written])
    record = commit(MemoryFiles(found), contents_of(version))
    assert record == record_of(contents_of(version))
    assert found == {**contents_of(version), record_path(0): record.to_bytes()}


def test_a_record_that_is_none_is_replaced() -> None:
    found = {record_path(0): b"{"}
    record = commit(MemoryFiles(found), contents_of(1))
    assert found[record_path(0)] == record.to_bytes()


def test_a_record_that_nobody_can_read_and_nobody_can_remove_is_an_error() -> None:
    class Stubborn(MemoryFiles):
        def remove(self, names: Iterable[str]) -> None:
            pass

    with pytest.raises(DamagedFileError, match=r"'journal/part-00000\.json': is no record"):
        commit(Stubborn({record_path(0): b"{"}), contents_of(1))


def test_a_record_whose_answer_was_lost_is_ours() -> None:
    class Lossy(MemoryFiles):
        def create(self, name: str, data: bytes) -> bool:
            super().create(name, data)
            return False

    found: dict[str, bytes] = {}
    record = commit(Lossy(found), contents_of(1))
    assert record == record_of(contents_of(1))
    require_whole(found, record)


def test_settling_spares_what_belongs_to_no_record() -> None:
    found: dict[str, bytes] = {}
    record = commit(MemoryFiles(found), contents_of(1))
    found[f"{ASIDE}/part-00000.abc/{FileEntry.of_bytes(b'other').sha256}"] = b"other"
    settle(MemoryFiles(found), {0: record})  # type: ignore[arg-type]
    require_whole(found, record)


def test_settling_does_not_trust_what_was_laid_aside() -> None:
    found: dict[str, bytes] = {}
    record = commit(MemoryFiles(found), contents_of(1))
    found[SHARDS[0]] = b"somebody else's"
    found[f"{ASIDE}/part-00000.abc/{record.files[SHARDS[0]].sha256}"] = b"rotten"
    settle(MemoryFiles(found), {0: record})  # type: ignore[arg-type]
    assert found[SHARDS[0]] == b"somebody else's"


class Turns:
    """Lets threads do one operation at a time, in an order that is given; some die before one of theirs."""

    def __init__(self, order: list[int], deaths: Mapping[int, int]) -> None:
        self._order = iter(order)
        self._deaths = deaths
        self._done: dict[int, int] = {}
        self._waiting: dict[int, threading.Event] = {}
        self._changed = threading.Condition()
        self._running = 0

    def wait(self, writer: int) -> None:
        with self._changed:
            go = self._waiting[writer] = threading.Event()
            self._running -= 1
            self._changed.notify()
        go.wait()
        self._done[writer] = self._done.get(writer, 0) + 1
        if self._done[writer] > self._deaths.get(writer, 1000):
            raise Killed

    def run(self, works: list[Callable[[], object]]) -> None:
        threads = [threading.Thread(target=self._live, args=(work,)) for work in works]
        self._running = len(threads)
        for thread in threads:
            thread.start()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._running == 0)
                if not self._waiting:
                    break
                writers = sorted(self._waiting)
                chosen = writers[next(self._order, 0) % len(writers)]
                self._running = 1
                self._waiting.pop(chosen).set()
        for thread in threads:
            thread.join()

    def _live(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Killed:
            pass
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify()


@settings(max_examples=150)
@given(
    versions=st.lists(st.integers(1, 3), min_size=2, max_size=3),
    shared=st.integers(0, 3),
    orphans=st.integers(0, 3),
    order=st.lists(st.integers(0, 5), max_size=60),
    deaths=st.dictionaries(st.integers(0, 2), st.integers(0, 14), max_size=2),
)
def test_however_writers_interleave_and_die_the_record_names_what_is_there(
    versions: list[int], shared: int, orphans: int, order: list[int], deaths: dict[int, int]
) -> None:
    found = dict(list(contents_of(9, shared).items())[:orphans])  # of a writer that died long ago
    turns = Turns(order, deaths)
    answers: dict[int, PartRecord] = {}

    def work(writer: int, version: int) -> None:
        files = MemoryFiles(found, lambda: turns.wait(writer))
        answers[writer] = commit(files, contents_of(version, shared))

    turns.run([lambda at=at, version=version: work(at, version) for at, version in enumerate(versions)])  # type: ignore[misc]
    left = MemoryFiles(found)
    record = read_part(left, MANIFEST, 0)  # type: ignore[arg-type]
    assert all(
        answer == record for answer in answers.values()
    )  # whoever came to an end was told of the one record
    if record is not None:
        settle(left, {0: record})  # type: ignore[arg-type]
    else:
        record = commit(left, contents_of(5, shared))  # everybody died: the next run builds the part
    require_whole(found, record)


def test_local_files_are_committed_the_same_way(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    files.write(SHARDS[0], b"of a dead writer")
    record = commit(files, contents_of(1))
    found = {name: data for name, data in files.read_many(files.listing("", deep=True)) if data is not None}
    require_whole(found, record)

"""What writes a store, killed or refused by the disk at each of its steps: nothing wrong is read, and it can go on."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from relabel_store.convert.into_files import convert_into_files
from relabel_store.convert.into_store import convert_into_store
from relabel_store.convert.observer import ConversionObserver
from relabel_store.convert.source import LabelSource
from relabel_store.convert.sources.stores import StoreSource
from relabel_store.errors import NotEnoughSpaceError, NotWritableError, RelabelStoreError, TargetExistsError
from relabel_store.labels.maps import LabelMaps
from relabel_store.manifest import Encoding, Manifest
from relabel_store.store import writer as writer_module
from relabel_store.store.complete import read_completion
from relabel_store.store.encodings import ENCODINGS
from relabel_store.store.files import FileEntry
from relabel_store.store.local_files import LocalFiles
from relabel_store.store.occupied import is_store
from relabel_store.store.part_labels import PartLabels
from relabel_store.store.reader import open_store
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import file_digests, make_label_maps, make_manifest, make_part, make_samples
from relabel_store.testing.probe import Answers, Truth, ask_rows, ask_samples
from relabel_store.testing.steps import REMOVALS, watched_steps

MANIFESTS = {encoding: make_manifest(encoding=encoding) for encoding in ENCODINGS}
MAPS = make_label_maps(np.random.default_rng(0), MANIFESTS["zarr"])
TIMEOUT_S = 60
GATED_STEPS = 3  # of a piece of work, spread over it; the slow run takes every one


class PartFiles:
    """A layout of others: a file a part, and one when all are written."""

    is_sequential = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, source: LabelSource) -> list[str]:
        self.path.mkdir(exist_ok=True)
        return []

    def write_part(self, manifest: Manifest, part: int, samples: pa.Table, labels: PartLabels) -> None:
        (self.path / str(part)).write_bytes(labels.indices.tobytes() + labels.values.tobytes())

    def finish(self, manifest: Manifest) -> None:
        (self.path / "last").write_text(str(manifest.num_samples))


def begin(folder: Path, encoding: str) -> None:
    path = folder / "store"
    if not is_store(path):
        StoreWriter.begin(path, MANIFESTS[encoding], make_samples(MANIFESTS[encoding]))


def write_part(folder: Path, encoding: str) -> None:
    begin(folder, encoding)
    writer = StoreWriter.resume(folder / "store")
    if not writer.is_complete:
        writer.write_part(0, make_part(writer.manifest, MAPS, 0))


def finish(folder: Path, encoding: str) -> None:
    begin(folder, encoding)
    writer = StoreWriter.resume(folder / "store")
    for part in writer.missing_parts():
        writer.write_part(part, make_part(writer.manifest, MAPS, part))
    writer.complete()


def drop_parts(folder: Path, encoding: str) -> None:
    StoreWriter.resume(folder / "store").drop_parts([0])


def convert_store(folder: Path, encoding: str) -> None:
    source = StoreSource(open_store(folder / "store"))
    convert_into_store(
        source,
        LocalFiles(folder / "converted"),
        Encoding.of(encoding),
        workers=1,
        observer=ConversionObserver(),
    )


def convert_files(folder: Path, encoding: str) -> None:
    source, path = StoreSource(open_store(folder / "store")), folder / "files"
    with contextlib.suppress(TargetExistsError):  # it is finished, and nothing of the attempt is left
        convert_into_files(source, path, "parts", PartFiles, workers=1, observer=ConversionObserver())


def materialize(folder: Path, encoding: str) -> None:
    open_store(folder / "store").materialize(folder / "cache", verify=True)


@dataclass(frozen=True)
class Work:
    """Something that writes.

    Parameters
    ----------
    before
        What is done before, undisturbed.
    again
        What finishes it after a disturbance.
    """

    do: Callable[[Path, str], None]
    before: Callable[[Path, str], None] | None
    again: Callable[[Path, str], None]

    def prepare(self, folder: Path, encoding: str) -> None:
        folder.mkdir()
        if self.before is not None:
            self.before(folder, encoding)


def write_parts(folder: Path, encoding: str) -> None:
    begin(folder, encoding)
    writer = StoreWriter.resume(folder / "store")
    for part in (0, 1):
        writer.write_part(part, make_part(writer.manifest, MAPS, part))


WORKS = {
    "beginning": Work(begin, None, finish),
    "writing a part": Work(write_part, begin, finish),
    "finishing": Work(finish, write_parts, finish),
    "dropping a part": Work(drop_parts, finish, finish),
    "converting into a store": Work(convert_store, finish, convert_store),
    "converting into files": Work(convert_files, finish, convert_files),
    "materializing": Work(materialize, finish, materialize),
}


@pytest.fixture(params=WORKS)
def work(request: pytest.FixtureRequest) -> Work:
    return WORKS[request.param]


def tree(folder: Path) -> dict[str, str]:
    """The digests of what was made, without the times in a cache and without locks that nobody holds."""
    return {name: digest for name, digest in file_digests(folder).items() if not name.endswith(".lock")}


@dataclass(frozen=True)
class Undisturbed:
    before: Path
    steps: list[str]
    tree: dict[str, str]
    truth: Truth


@pytest.fixture
def undisturbed(work: Work, encoding: str, tmp_path: Path) -> Undisturbed:
    folder = tmp_path / "undisturbed"
    work.prepare(folder, encoding)
    shutil.copytree(folder, tmp_path / "before")
    steps: list[str] = []
    with watched_steps(steps.append):
        work.do(folder, encoding)
    work.again(folder, encoding)
    return Undisturbed(tmp_path / "before", steps, tree(folder), Truth.of(folder / "store"))


def steps_to_try(steps: list[str], how_many: int | None) -> range:
    return range(0, len(steps), 1 if how_many is None else max(len(steps) // how_many, 1))


def require_no_other_labels(folder: Path, truth: Truth) -> None:
    """Ask whatever is there: nothing, or the right labels."""
    answers = Answers()
    for name in ("store", "converted"):
        with answers.collecting():
            store = open_store(folder / name)
            ask_rows(store, truth, answers)
            ask_samples(store, truth, answers)
    assert (answers.wrong, answers.leaked) == ([], [])
    assert not any("FormatError" in error or "Damaged" in error for error in answers.errors)


AMOUNT = [
    pytest.param(GATED_STEPS, id="some steps"),
    pytest.param(None, id="every step", marks=pytest.mark.slow),
]


def killed_before(step: int, work: Work, folder: Path, encoding: str) -> None:
    """Do some work in a process that kills itself before a step."""
    count = 0

    def die(name: str) -> None:
        nonlocal count
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads, which do nothing here
        child = os.fork()
    if child == 0:
        signal.alarm(TIMEOUT_S)
        try:
            with watched_steps(die):
                work.do(folder, encoding)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("amount", AMOUNT)
def test_killed_at_any_step_it_goes_on_and_ends_with_the_same_bytes(
    work: Work, encoding: str, undisturbed: Undisturbed, tmp_path: Path, amount: int | None
) -> None:
    assert len(undisturbed.steps) > 5
    for step in steps_to_try(undisturbed.steps, amount):
        folder = tmp_path / str(step)
        shutil.copytree(undisturbed.before, folder)
        killed_before(step, work, folder, encoding)
        require_no_other_labels(folder, undisturbed.truth)
        work.again(folder, encoding)
        assert tree(folder) == undisturbed.tree, f"killed before step {step}, {undisturbed.steps[step]}"


@contextmanager
def disk_that_refuses(step: int, code: int) -> Iterator[None]:
    """From a step on, let nothing be written; a full disk goes on removing files."""
    count = 0

    def refuse(name: str) -> None:
        nonlocal count
        count += 1
        if count > step and not (code == errno.ENOSPC and name in (*REMOVALS, "fsync")):
            raise OSError(code, os.strerror(code))

    with watched_steps(refuse):
        yield


@pytest.mark.parametrize("amount", AMOUNT)
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(errno.ENOSPC, NotEnoughSpaceError, id="full"),
        pytest.param(errno.EROFS, NotWritableError, id="read-only"),
        pytest.param(errno.EACCES, NotWritableError, id="forbidden", marks=pytest.mark.slow),
    ],
)
def test_refused_by_the_disk_at_any_step_it_says_so_and_goes_on_later(
    work: Work,
    encoding: str,
    undisturbed: Undisturbed,
    tmp_path: Path,
    amount: int | None,
    code: int,
    expected: type[RelabelStoreError],
) -> None:
    problems = []
    for step in steps_to_try(undisturbed.steps, amount):
        folder = tmp_path / f"{code}-{step}"
        shutil.copytree(undisturbed.before, folder)
        try:
            with disk_that_refuses(step, code):
                work.do(folder, encoding)
        except expected:
            pass
        except Exception as error:
            problems.append((step, undisturbed.steps[step], repr(error)))
        require_no_other_labels(folder, undisturbed.truth)
        work.again(folder, encoding)
        assert tree(folder) == undisturbed.tree, f"refused at step {step}, {undisturbed.steps[step]}"
    assert problems == []


# Two hosts at once: no lock reaches from one to the other


@pytest.fixture
def no_lock_between_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "hold_lock", lambda *args, **options: contextlib.nullcontext())


@contextmanager
def interrupted_before(step: int, act: Callable[[], object]) -> Iterator[None]:
    """Let somebody else do something before a step of the block."""
    count = 0

    def let_in(name: str) -> None:
        nonlocal count
        count += 1
        if count == step + 1:
            act()

    with watched_steps(let_in):
        yield


def require_whole(path: Path, choices: list[LabelMaps]) -> None:
    """Check that a finished store lists what is there, and that each part holds the labels of one writer."""
    completion = read_completion(LocalFiles(path))
    assert completion is not None
    found = {name: FileEntry.of_bytes((path / name).read_bytes()) for name in file_digests(path)}
    found.pop("complete.json")
    assert found == completion.files
    store = open_store(path)
    for part in store.parts:
        rows = store.manifest.rows_of_part(part)
        values = store.read_rows(rows).values
        assert any(np.array_equal(values, maps.values[rows.start : rows.stop]) for maps in choices)


@pytest.mark.usefixtures("no_lock_between_hosts")
@pytest.mark.parametrize("amount", AMOUNT)
@pytest.mark.parametrize("seed", [0, 1], ids=["same labels", "other labels"])
@pytest.mark.parametrize("extent", [pytest.param("a part", marks=pytest.mark.slow), "everything"])
def test_another_writer_at_any_step_leaves_a_whole_store(
    encoding: str, tmp_path: Path, amount: int | None, seed: int, extent: str
) -> None:
    theirs = make_label_maps(np.random.default_rng(seed), MANIFESTS[encoding])

    def work_through(path: Path, maps: LabelMaps, parts: list[int]) -> None:
        writer = StoreWriter.begin(path, MANIFESTS[encoding], make_samples(MANIFESTS[encoding]))
        for part in parts:
            writer.write_part(part, make_part(writer.manifest, maps, part))
        if len(parts) == writer.manifest.num_parts:
            writer.complete()

    steps: list[str] = []
    with watched_steps(steps.append):
        work_through(tmp_path / "undisturbed", MAPS, [0, 1])
    parts = [0] if extent == "a part" else [0, 1]
    for step in steps_to_try(steps, None if amount is None else 2 * amount):
        path = tmp_path / str(step)
        with interrupted_before(step, lambda path=path: work_through(path, theirs, parts)):  # type: ignore[misc]
            work_through(path, MAPS, [0, 1])
        StoreWriter.resume(path).complete()  # as whoever comes last does
        require_whole(path, [MAPS, theirs])

"""Stores to damage: in each encoding, finished and still being built, with another store beside each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from relabel_store import spec
from relabel_store.manifest import AbsentRule
from relabel_store.store.encodings import ENCODINGS
from relabel_store.testing import make_manifest, make_store
from relabel_store.testing.damage import Damage, every_damage
from relabel_store.testing.probe import Truth

STATES = ("finished", "unfinished")


@dataclass(frozen=True)
class Victim:
    """A store that is copied and then damaged, and what is in it.

    Parameters
    ----------
    other
        A store of the same manifest with other labels.
    """

    path: Path
    other: Path
    truth: Truth

    def damaged(self, damage: Damage, into: Path) -> Path:
        """Return a damaged copy, in place of the one before."""
        copy = self.copy(into)
        damage.do(copy)
        return copy

    def copy(self, into: Path) -> Path:
        """Return a sound copy, in place of the one before."""
        shutil.rmtree(into, ignore_errors=True)
        shutil.copytree(self.path, into)
        return into

    def damages(self, per_kind: int | None, stride: int) -> Iterator[Damage]:
        """Yield damages: all, or so many of each kind, evenly spread."""
        by_kind: dict[str, list[Damage]] = {}
        for damage in every_damage(self.path, self.other, stride=stride):
            by_kind.setdefault(damage.kind, []).append(damage)
        for found in by_kind.values():
            chosen = found if per_kind is None else found[:: max(len(found) // per_kind, 1)]
            yield from chosen


@pytest.fixture(autouse=True)
def fsync_that_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up stores need not survive a power cut, and on a busy disk fsync is most of a test's time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def _make_victim(folder: Path, encoding: str, state: str) -> Victim:
    manifest = make_manifest(grid=(2, 3), absent=AbsentRule.REST, encoding=encoding)
    parts = None if state == "finished" else [0]
    for name, seed in (("store", 0), ("other", 1)):
        rng = np.random.default_rng(seed)
        make_store(folder / name, rng, manifest, bad_images={2: "cut off"}, parts=parts)
    return Victim(folder / "store", folder / "other", Truth.of(folder / "store"))


@pytest.fixture(scope="session")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Victim]:
    """Make a store of an encoding and state, once."""
    made: dict[tuple[str, str], Victim] = {}

    def make(encoding: str, state: str) -> Victim:
        if (encoding, state) not in made:
            folder = tmp_path_factory.mktemp(f"{encoding}-{state}")
            made[encoding, state] = _make_victim(folder, encoding, state)
        return made[encoding, state]

    return make


@pytest.fixture(params=list(ENCODINGS))
def encoding(request: pytest.FixtureRequest) -> str:
    """Each encoding of a store."""
    return str(request.param)


@pytest.fixture(params=STATES)
def victim(encoding: str, request: pytest.FixtureRequest, victims: Callable[[str, str], Victim]) -> Victim:
    """A store in each encoding, finished and not."""
    return victims(encoding, request.param)


@pytest.fixture
def finished(encoding: str, victims: Callable[[str, str], Victim]) -> Victim:
    """A finished store in each encoding."""
    return victims(encoding, "finished")


def parts_of_files(path: Path) -> dict[str, int]:
    """Return the part that each file of labels belongs to."""
    from relabel_store.store.reader import open_store

    return {name: part for part, record in open_store(path).parts.items() for name in record.files}


@pytest.fixture
def part_of_file() -> Callable[[Path], dict[str, int]]:
    """The part that each file of labels belongs to."""
    return parts_of_files


def describe(problems: Iterable[tuple[Damage, object]]) -> str:
    """Return problems as text, a line each."""
    return "\n".join(f"{damage}: {problem}" for damage, problem in problems)


@pytest.fixture
def speaks_for_itself() -> Callable[[Damage], bool]:
    """Tell of a damage whether readers may meet it without naming its file.

    A store that lost its completion is one that is being built; a part that lost its record is one that is not
    built; and a completion of another store is sound as such, so that what it lists is not.
    """
    quiet = (spec.COMPLETE_FILE, spec.BEGUN_FILE)

    def speaks(damage: Damage) -> bool:
        return all(name in quiet or name.startswith(f"{spec.JOURNAL_DIR}/part-") for name in damage.files)

    return speaks

"""Asks every reader of a store for every row, and compares what comes back with what was written."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from relabel_store.errors import NoLabelError, RelabelStoreError
from relabel_store.labels.maps import LabelMap, LabelMaps
from relabel_store.store.reader import LabelStore, open_store
from relabel_store.store.samples import Status


@dataclass(frozen=True)
class Truth:
    """What a store holds, taken from it while it was sound."""

    maps: Mapping[int, LabelMap]  # by row
    samples: list[dict[str, Any]]

    @classmethod
    def of(cls, path: Path) -> Truth:
        """Return what is in a sound store, finished or not."""
        store = open_store(path)
        rows = [row for row in range(len(store)) if store.has_label(row)]
        return cls({row: store[row] for row in rows}, store.samples.to_pylist())


@dataclass
class Answers:
    """What the readers of a store said.

    Attributes
    ----------
    right, wrong
        Labels and samples that are, or are not, what was written, as text where wrong.
    errors
        Those of ours that say that something is not what it should be.
    leaked
        Tracebacks of those that are not ours.
    """

    right: int = 0
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    served_rows: set[int] = field(default_factory=set)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep what the block raises."""
        try:
            yield
        except RelabelStoreError as error:
            self.errors.append(f"{type(error).__name__}: {error}")
        except Exception:
            self.leaked.append(traceback.format_exc())

    def require(self, is_right: bool, what: str) -> None:
        """Count an answer."""
        if is_right:
            self.right += 1
        else:
            self.wrong.append(what)


def ask_every_reader(path: Path, cache_dir: Path, truth: Truth) -> Answers:
    """Open a store and ask for everything in every way."""
    answers = Answers()
    with answers.collecting():
        store = open_store(path)
        ask_rows(store, truth, answers)
        ask_samples(store, truth, answers)
        for decode in (store.load, lambda: store.materialize(cache_dir)):
            with answers.collecting():
                decoded = decode()
                ask_rows(decoded, truth, answers)
                ask_samples(decoded, truth, answers)
        with answers.collecting():  # from the entry that was made, by another process
            ask_rows(open_store(path).materialize(cache_dir, verify=True), truth, answers)
    return answers


def ask_rows(store: LabelStore, truth: Truth, answers: Answers) -> None:
    """Ask a store for its labels: all at once, one by one, and one after the other."""
    rows = list(range(len(store))) if len(store) < 1000 else list(range(len(truth.samples)))
    with answers.collecting():
        _compare_maps(store.read_rows(sorted(truth.maps)), sorted(truth.maps), truth, answers)
    for row in rows:
        with answers.collecting():
            try:
                found = store[row]
            except NoLabelError:
                continue  # not a wrong label; whether it is damage the other errors tell
            answers.served_rows.add(row)
            _compare(found, row, truth, answers)
    with answers.collecting():
        for found in store:
            ids = {kept.sample_id: row for row, kept in truth.maps.items()}
            _compare(found, ids.get(found.sample_id, -1), truth, answers)


def _compare_maps(maps: LabelMaps, rows: list[int], truth: Truth, answers: Answers) -> None:
    for at, row in enumerate(rows):
        _compare(maps[at], row, truth, answers)


def _compare(found: LabelMap, row: int, truth: Truth, answers: Answers) -> None:
    kept = truth.maps.get(row)
    is_right = (
        kept is not None
        and found.sample_id == kept.sample_id
        and np.array_equal(found.indices, kept.indices)
        and np.array_equal(found.values, kept.values)
        and (found.rest is None) == (kept.rest is None)
        and (found.rest is None or kept.rest is None or np.array_equal(found.rest, kept.rest))
    )
    answers.require(is_right, f"row {row}: {found!r}")


def ask_samples(store: LabelStore, truth: Truth, answers: Answers) -> None:
    """Ask a store for its sample table and the row of each sample."""
    with answers.collecting():
        found = store.samples.to_pylist()
        answers.require(len(found) == len(truth.samples), f"{len(found)} samples")
        for sample, kept in zip(found, truth.samples, strict=False):
            # What was found out about images of a part that is not there any more is not there any more.
            names = (
                ("row", "sample_id", "path", "class_index", "class_name")
                if sample["status"] == Status.MISSING.value
                else tuple(kept)
            )
            is_right = all(sample[name] == kept[name] for name in names)
            answers.require(is_right, f"sample {sample}")
    for row, kept in enumerate(truth.samples):
        with answers.collecting():
            answers.require(store.row_of(kept["sample_id"]) == row, f"row of {kept['sample_id']!r}")

"""A label store whose maps lie decoded in arrays."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relabel_store.errors import NotEnoughSpaceError
from relabel_store.manifest import Manifest
from relabel_store.store.arrays import Arrays, array_specs
from relabel_store.store.encoded import EncodedStore
from relabel_store.store.reader import LabelStore
from relabel_store.store.samples import SampleIndex

_REQUESTS = 16  # with 18 MB of room each, at 15x15x5


@dataclass(frozen=True)
class StoreFacts:
    """What a store knows beside its maps and its sample table."""

    manifest: Manifest
    digest: str | None
    finished_parts: tuple[int, ...]
    bad_images: dict[int, str]

    @classmethod
    def of(cls, store: EncodedStore) -> StoreFacts:
        """Return the facts of a store."""
        return cls(store.manifest, store.digest, tuple(sorted(store.parts)), store.bad_images)


class DecodedStore(LabelStore):
    """Label maps in arrays, in memory or mapped from files.

    Parameters
    ----------
    arrays
        By name, as the format names them, each with a row for every sample.
    """

    def __init__(self, facts: StoreFacts, samples: pa.Table, arrays: Arrays) -> None:
        self.manifest = facts.manifest
        self._facts = facts
        self._samples = samples
        self._arrays = arrays

    @property
    def digest(self) -> str | None:
        """Identity of the store that was decoded."""
        return self._facts.digest

    @property
    def bad_images(self) -> dict[int, str]:
        """The rows that got no label although their part is finished, and why."""
        return self._facts.bad_images

    @property
    def samples(self) -> pa.Table:
        """The sample table, as `LabelStore.samples` describes it."""
        return self._samples

    def load(self) -> LabelStore:
        """Return this store with its arrays in memory."""
        return DecodedStore(
            self._facts, self._samples, {name: np.array(array) for name, array in self._arrays.items()}
        )

    def materialize(
        self, cache_dir: str | os.PathLike[str] | None = None, *, verify: bool = False
    ) -> LabelStore:
        """Return this store: it is decoded already."""
        del cache_dir, verify
        return self

    @property
    def _finished_parts(self) -> Iterable[int]:
        return self._facts.finished_parts

    @cached_property
    def _index(self) -> SampleIndex:
        return SampleIndex(self._samples["sample_id"])

    def _gather(self, rows: NDArray[np.int64]) -> Arrays:
        return {name: array.take(rows, axis=0) for name, array in self._arrays.items()}


def load_store(store: EncodedStore) -> DecodedStore:
    """Return a store wholly in memory."""
    samples = store.samples  # first: it shows that the store has so many rows
    _require_memory(store)
    arrays: Arrays = {name: array.empty(len(store)) for name, array in array_specs(store.manifest).items()}

    def decode(part: int) -> None:
        rows = store.manifest.rows_of_part(part)
        store.decode_part(part, {name: array[rows.start : rows.stop] for name, array in arrays.items()})

    for_each_part(store, decode)
    return DecodedStore(StoreFacts.of(store), samples, arrays)


def decoded_size(manifest: Manifest) -> int:
    """Return the size of all arrays of a store, decoded."""
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in array_specs(manifest).values())


def _require_memory(store: EncodedStore) -> None:
    needed, there = decoded_size(store.manifest), _memory_bytes()
    if there is not None and needed > there:
        raise NotEnoughSpaceError(
            f"store {store.location!r}: takes {needed / 1e9:.1f} GB decoded, expected at most the {there / 1e9:.1f} GB "
            "of memory of this machine; use store.materialize(), which keeps it on disk"
        )


def _memory_bytes() -> int | None:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def for_each_part(store: EncodedStore, decode: Callable[[int], None]) -> None:
    """Call a function with every finished part of a store, on all cores; many at once where a network is to be hidden.

    Threads do: reading, hashing, decompressing and copying all let others run meanwhile.
    """
    least = 1 if store.files.path is not None else _REQUESTS
    with ThreadPoolExecutor(max(usable_cores(), least), thread_name_prefix="decode") as threads:
        running = [threads.submit(decode, part) for part in sorted(store.parts)]
        try:
            for future in running:
                future.result()
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""LabelStore: open, length, one row, many rows, row of a sample id."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from relabel_store import spec
from relabel_store.errors import NoLabelError
from relabel_store.labels.maps import LabelMap, LabelMaps
from relabel_store.manifest import Manifest
from relabel_store.store.arrays import Arrays
from relabel_store.store.samples import SampleIndex, Status

if TYPE_CHECKING:
    from relabel_store.store.encoded import EncodedStore


def open_store(path: str | os.PathLike[str]) -> EncodedStore:
    """Return the label store at a path or URL, finished or still being built.

    Parameters
    ----------
    path
        A directory, or a URL as text: ``s3://`` and ``gs://``, and any other that fsspec reads (``hf://``,
        ``https://``) where the store is finished.

    Raises
    ------
    ObjectStoreError
        The service cannot be reached, or refuses.
    MissingDependencyError
        The extra ``remote`` is not installed.
    StoreNotFoundError
        There is no store there.
    FormatError
        What is there does not follow the format, or is of a version that this release does not read.
    DamagedFileError
        The manifest or the completion record is not what was written.
    """
    from relabel_store.store.encoded import EncodedStore
    from relabel_store.store.location import is_url, open_files

    return EncodedStore(open_files(path if is_url(path) else Path(path).absolute()))


class LabelStore(ABC):
    """Label maps of a set of images: on disk as they were written, or decoded.

    Rows come back only where their part is finished and their image was good; any other row raises
    `NoLabelError`. What is read from a file is checked against its recorded size and digest before its first
    chunk is decoded.

    Examples
    --------
    >>> store = open_store("labels.zarr")        # doctest: +SKIP
    >>> store[0].indices.shape                   # doctest: +SKIP
    (5, 15, 15)
    """

    manifest: Manifest

    @property
    @abstractmethod
    def digest(self) -> str | None:
        """Identity of a finished store, which covers every byte of it; None while it is being built."""

    @property
    @abstractmethod
    def bad_images(self) -> dict[int, str]:
        """The rows that got no label although their part is finished, and why."""

    @property
    @abstractmethod
    def samples(self) -> pa.Table:
        """The sample table.

        Returns
        -------
        pyarrow.Table
            ``row``, ``sample_id``, ``path`` below the images' root, ``class_index`` (the teacher's class
            of the folder, null when unknown), ``class_name`` (the folder), ``width`` and ``height`` in
            pixels as stored in the file, ``sha256`` of the file in hexadecimal, ``status``
            (``labelled``, ``bad-image``, ``missing``).
        """

    @abstractmethod
    def load(self) -> LabelStore:
        """Return the same store wholly in memory; about 4.5 kB a sample at 15x15x5."""

    @abstractmethod
    def materialize(
        self, cache_dir: str | os.PathLike[str] | None = None, *, verify: bool = False
    ) -> LabelStore:
        """Return the same store decoded into memory-mapped files: what training reads.

        They are made once, by the first process that asks, and shared by all processes of a machine.

        Parameters
        ----------
        cache_dir
            Where they lie; None is ``RELABEL_STORE_CACHE``, or the platform's directory for caches.
        verify
            Read all of an entry that is there already and compare it with its checksums.

        Raises
        ------
        UnfinishedStoreError
            The store is still being built.
        NotEnoughSpaceError
            The disk is too small for it.
        CacheError
            The directory cannot be written to.
        DamagedFileError
            A file of the store is not what was written.
        """

    @property
    @abstractmethod
    def _finished_parts(self) -> Iterable[int]: ...

    @property
    @abstractmethod
    def _index(self) -> SampleIndex: ...

    def _sample_ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids of some rows, in the order asked."""
        return self._index.sample_ids(rows)

    @abstractmethod
    def _gather(self, rows: NDArray[np.int64]) -> Arrays:
        """Return the arrays of some rows that have labels, in the order asked, as copies."""

    def __repr__(self) -> str:
        rows, columns = self.grid
        state = self.manifest.state.value
        maps = f"{len(self)} samples x {rows}x{columns} cells x top {self.k}"
        return f"<LabelStore {self.manifest.name!r}: {maps}, {state}>"

    def __len__(self) -> int:
        return self.manifest.num_samples

    @property
    def grid(self) -> tuple[int, int]:
        """``(n_rows, n_cols)`` of a label map."""
        return self.manifest.label_map.grid

    @property
    def k(self) -> int:
        """Number of classes kept in each cell."""
        return self.manifest.label_map.k

    @property
    def num_classes(self) -> int:
        """Number of classes that the teacher tells apart."""
        return self.manifest.label_map.num_classes

    @property
    def is_complete(self) -> bool:
        """Whether the store is finished."""
        return self.digest is not None

    def row_of(self, sample_id: str) -> int:
        """Return the row of a sample.

        Raises
        ------
        SampleNotFoundError
            There is none of this id; the message names what is near.
        """
        return self._index.row_of(sample_id)

    @cached_property
    def _sorted_parts(self) -> NDArray[np.int64]:
        """The finished parts. As many as there are records: a manifest may claim a million million parts."""
        return np.array(sorted(self._finished_parts), np.int64)

    @cached_property
    def _bad_rows(self) -> NDArray[np.int64]:
        return np.array([row for row in self.bad_images if 0 <= row < len(self)], np.int64)

    def rows_of(self, sample_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each sample, int64 ``(n,)``; -1 where there is none of its id."""
        return self._index.rows_of(sample_ids)

    def has_label(self, row: int) -> bool:
        """Tell whether a row has a label."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row}: out of range, expected {-len(self)} to {len(self) - 1}")
        return bool(self.has_labels(np.array([row % len(self)]))[0])

    def has_labels(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell of each row whether it has a label: bool ``(n,)``."""
        at = np.asarray(rows, np.int64)
        parts, finished = at // self.manifest.layout.shard_rows, self._sorted_parts
        places = np.searchsorted(finished, parts)
        has: NDArray[np.bool_] = places < len(finished)
        has[has] = finished[places[has]] == parts[has]
        if self.bad_images:
            has &= ~np.isin(at, self._bad_rows)
        return has

    def __getitem__(self, row: int) -> LabelMap:
        """Return the label map of a row; negative rows count from the end.

        Raises
        ------
        IndexError
            There is no such row.
        NoLabelError
            The row has no label.
        DamagedFileError
            The file that holds it is not what was written.
        """
        return self.read_rows([row])[0]

    def __iter__(self) -> Iterator[LabelMap]:
        """Yield the label maps of all rows that have one, in row order."""
        rows = (row for part in self._sorted_parts.tolist() for row in self.manifest.rows_of_part(part))
        return (self[row] for row in rows if self.has_label(row))

    def read_rows(self, rows: ArrayLike | Iterable[int]) -> LabelMaps:
        """Return the label maps of many rows, in the order asked; each chunk is decoded once.

        Parameters
        ----------
        rows
            Integers, in any order, repeated or not; negative ones count from the end.

        Raises
        ------
        IndexError, NoLabelError, DamagedFileError
            As for one row; nothing is returned then.
        """
        wanted = self._require_rows(rows)
        arrays = self._gather(wanted)
        return LabelMaps(
            self._sample_ids(wanted),
            arrays[spec.INDICES],
            arrays[spec.VALUES],
            arrays.get(spec.REST),
        )

    def _require_rows(self, rows: ArrayLike | Iterable[int]) -> NDArray[np.int64]:
        """Return rows that have labels, counted from the start."""
        asked, n = _as_integers(rows), len(self)
        is_outside = (asked < -n) | (asked >= n)
        if is_outside.any():
            row = asked[int(np.argmax(is_outside))]
            raise IndexError(f"row {row}: out of range, expected {-n} to {n - 1}")
        wanted: NDArray[np.int64] = np.where(asked < 0, asked + n, asked).astype(np.int64)
        self._require_labels(wanted)
        return wanted

    def _require_labels(self, rows: NDArray[np.int64]) -> None:
        without = rows[~self.has_labels(rows)].tolist()
        if not without:
            return
        row = without[0]
        more = f" (and {len(without) - 1} more of the rows asked for)" if len(without) > 1 else ""
        if row in self.bad_images:
            is_bad = self.samples["status"][row].as_py() == Status.BAD_IMAGE.value
            what = "image could not be decoded" if is_bad else "label could not be converted"
            why = f"its {what}: {self.bad_images[row]}"
        else:
            why = "its part is not built; run the same build again to finish the store"
        raise NoLabelError(
            f"row {row}, sample {self._sample_ids(np.array([row]))[0]!r}: has no label, {why}{more}"
        )


def _as_integers(rows: ArrayLike | Iterable[int]) -> NDArray[Any]:
    """Return integers ``(n,)``; Python's own where one is too large for NumPy's."""
    if isinstance(rows, np.ndarray):
        found = rows
    else:
        listed: list[Any] = list(rows)  # type: ignore[arg-type]
        if not all(isinstance(row, int | np.integer) and not isinstance(row, bool) for row in listed):
            kinds = sorted({type(row).__name__ for row in listed})
            raise TypeError(f"rows: {', '.join(kinds)}, expected integers (n,)")
        found = np.array(listed) if listed else np.zeros(0, np.int64)
        if np.issubdtype(found.dtype, np.floating):  # NumPy's answer to integers past 64 bits
            found = np.array(listed, dtype=object)
    if found.ndim != 1 or not (found.dtype == object or np.issubdtype(found.dtype, np.integer)):
        raise TypeError(f"rows: {found.dtype} of shape {found.shape}, expected integers (n,)")
    return found

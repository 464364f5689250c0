"""LabelStore: open, length, one row, many rows, row of a sample id."""

from __future__ import annotations

import operator
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from relabel_store import spec
from relabel_store.errors import DamagedFileError, FormatError, NoLabelError, StoreNotFoundError
from relabel_store.labels.maps import LabelMap, LabelMaps
from relabel_store.labels.topk import IndexArray
from relabel_store.manifest import Manifest
from relabel_store.store import samples as sample_tables
from relabel_store.store.complete import Completion, read_completion
from relabel_store.store.files import entry_of, read_verified, require_entry
from relabel_store.store.journal import PartRecord, facts_path, is_part_of, read_journal
from relabel_store.store.samples import SampleIndex
from relabel_store.store.zarr_v1 import Array, ZarrArrays, manifest_of_group

_CACHED_CHUNKS = 8  # 8 x 1.1 MiB at 15x15x5: row-by-row reading in order decodes each chunk once


def open_store(path: str | os.PathLike[str]) -> LabelStore:
    """Return the label store at a path, finished or still being built.

    Raises
    ------
    StoreNotFoundError
        There is no store there.
    FormatError
        What is there does not follow the format, or is of a version that this release does not read.
    DamagedFileError
        The manifest or the completion record is not what was written.
    """
    return LabelStore(Path(path))


class LabelStore:
    """Label maps of a set of images.

    Rows come back only where their part is finished and their image was good; any other row raises
    `NoLabelError`. The file of a shard is checked against its recorded size and digest before its first
    chunk is decoded.

    Examples
    --------
    >>> store = open_store("labels.zarr")        # doctest: +SKIP
    >>> store[0].indices.shape                   # doctest: +SKIP
    (5, 15, 15)
    """

    def __init__(self, path: Path) -> None:
        self.path = path = path.absolute()
        self._completion = read_completion(path)
        self.manifest = _read_manifest(path, self._completion)
        if self._completion is not None:
            _require_all_parts(self._completion, self.manifest)
        self._arrays = ZarrArrays(
            path, self.manifest, None if self._completion is None else self._completion.files
        )
        self._lock = threading.RLock()
        self._verified: set[str] = set()
        self._chunks: OrderedDict[int, dict[str, Array]] = OrderedDict()

    def __reduce__(self) -> tuple[type[LabelStore], tuple[Path]]:
        return LabelStore, (self.path,)

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
        return self._completion is not None

    @property
    def digest(self) -> str | None:
        """Identity of a finished store, which covers every byte of it; None while it is being built."""
        return None if self._completion is None else self._completion.digest

    @cached_property
    def parts(self) -> Mapping[int, PartRecord]:
        """The finished parts, as they were when this was first asked."""
        if self._completion is None:
            found = read_journal(self.path)[0]
            return {part: record for part, record in found.items() if is_part_of(record, self.manifest)}
        return self._completion.parts

    @cached_property
    def bad_images(self) -> dict[int, str]:
        """The rows whose image could not be decoded, and why."""
        return {bad.row: bad.reason for part in self.parts.values() for bad in part.bad_images}

    @cached_property
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
        samples = sample_tables.from_parquet(self._samples_file, sample_tables.SCHEMA)
        if self._completion is None:
            facts = {part: self._facts_of(record) for part, record in self.parts.items()}
            samples = sample_tables.with_facts(samples, facts, self.manifest.layout.shard_rows)
        return samples

    @cached_property
    def _samples_file(self) -> Path:
        """The file of the sample table, checked once."""
        name = spec.SAMPLES_FILE
        if self._completion is not None:
            require_entry(self.path / name, name, entry_of(self._completion.files, name))
        return self.path / name

    def _facts_of(self, record: PartRecord) -> pa.Table | None:
        name = facts_path(record.part)
        if not (self.path / name).exists():
            return None
        return sample_tables.from_parquet(
            read_verified(self.path / name, name, record.facts), sample_tables.FACTS_SCHEMA
        )

    @cached_property
    def _index(self) -> SampleIndex:
        ids = sample_tables.from_parquet(self._samples_file, sample_tables.SCHEMA, ["sample_id"])
        return SampleIndex(ids["sample_id"])

    def row_of(self, sample_id: str) -> int:
        """Return the row of a sample.

        Raises
        ------
        SampleNotFoundError
            There is none of this id; the message names what is near.
        """
        return self._index.row_of(sample_id)

    def rows_of(self, sample_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each sample, int64 ``(n,)``; -1 where there is none of its id."""
        return self._index.rows_of(sample_ids)

    def has_label(self, row: int) -> bool:
        """Tell whether a row has a label."""
        row = self._require_row(row)
        return row // self.manifest.layout.shard_rows in self.parts and row not in self.bad_images

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
        return (self[row] for row in range(len(self)) if self.has_label(row))

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
        wanted = np.array([self._require_row(row) for row in _as_integers(rows)], np.int64)
        self._require_labels(wanted)
        chunk_rows = self.manifest.layout.chunk_rows
        arrays = {
            name: np.empty((len(wanted), *array.shape[1:]), array.dtype)
            for name, array in self._arrays.specs.items()
        }
        for chunk, at in _group(wanted // chunk_rows):
            decoded = self._read_chunk(chunk)
            for name, array in arrays.items():
                array[at] = decoded[name][wanted[at] - chunk * chunk_rows]
        indices: IndexArray = arrays[spec.INDICES]
        return LabelMaps(
            [self._index.sample_id(row) for row in wanted.tolist()],
            indices,
            arrays[spec.VALUES],
            arrays.get(spec.REST),
        )

    def _require_row(self, row: int) -> int:
        n = len(self)
        if not -n <= row < n:
            raise IndexError(f"row {row}: out of range, expected {-n} to {n - 1}")
        return row % n

    def _require_labels(self, rows: NDArray[np.int64]) -> None:
        without = [row for row in rows.tolist() if not self.has_label(row)]
        if not without:
            return
        row = without[0]
        more = f" (and {len(without) - 1} more of the rows asked for)" if len(without) > 1 else ""
        if row in self.bad_images:
            why = f"its image could not be decoded: {self.bad_images[row]}"
        else:
            why = "its part is not built; run the same build again to finish the store"
        raise NoLabelError(f"row {row}, sample {self._index.sample_id(row)!r}: has no label, {why}{more}")

    def _read_chunk(self, chunk: int) -> dict[str, Array]:
        with self._lock:
            if chunk in self._chunks:
                self._chunks.move_to_end(chunk)
                return self._chunks[chunk]
            decoded = {name: self._decode(name, chunk) for name in self._arrays.specs}
            self._chunks[chunk] = decoded
            if len(self._chunks) > _CACHED_CHUNKS:
                self._chunks.popitem(last=False)
            return decoded

    def _decode(self, name: str, chunk: int) -> Array:
        layout = self.manifest.layout
        start = chunk * layout.chunk_rows
        self._require_sound_shard(name, start // layout.shard_rows)
        return self._arrays.read(name, range(start, min(start + layout.chunk_rows, len(self))))

    def _require_sound_shard(self, name: str, part: int) -> None:
        shard = self._arrays.specs[name].shard_path(part)
        if shard in self._verified:
            return
        entry = self.parts[part].files.get(shard)
        if entry is None:
            raise DamagedFileError(
                f"journal record of part {part}: does not list {shard!r}; build the part again"
            )
        require_entry(self.path / shard, shard, entry)
        self._verified.add(shard)


def _require_all_parts(completion: Completion, manifest: Manifest) -> None:
    sound = [part for part, record in completion.parts.items() if is_part_of(record, manifest)]
    if len(sound) != manifest.num_parts or len(completion.parts) != manifest.num_parts:
        raise FormatError(
            f"store file {spec.COMPLETE_FILE!r}: records of {len(completion.parts)} parts, {len(sound)} of them of "
            f"this store, expected {manifest.num_parts} as the manifest says; restore it from a copy"
        )


def _group(keys: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each key with the positions that hold it, keys rising."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    for at in np.split(order, starts[1:]) if len(order) else ():
        yield int(keys[at[0]]), at


def _as_integers(rows: ArrayLike | Iterable[int]) -> list[int]:
    if isinstance(rows, np.ndarray) and (rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer)):
        raise TypeError(f"rows: {rows.dtype} of shape {rows.shape}, expected integers (n,)")
    listed: list[Any] = rows.tolist() if isinstance(rows, np.ndarray) else list(rows)  # type: ignore[arg-type]
    if any(isinstance(row, bool) for row in listed):
        raise TypeError("rows: bool, expected integers (n,)")
    return [operator.index(row) for row in listed]


def _read_manifest(path: Path, completion: Completion | None) -> Manifest:
    name = spec.GROUP_FILE
    if not (path / name).is_file() and completion is None:
        what = (
            "a directory without zarr.json"
            if path.is_dir()
            else "not a directory"
            if path.exists()
            else "nothing"
        )
        raise StoreNotFoundError(
            f"store {str(path)!r}: {what}, expected a store made by `relabel-store build`"
        )
    if completion is None:
        return manifest_of_group((path / name).read_bytes())
    return manifest_of_group(read_verified(path / name, name, entry_of(completion.files, name)))

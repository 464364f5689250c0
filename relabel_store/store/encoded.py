"""A label store as it was written: chunks that are decoded as they are asked for."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relabel_store import spec
from relabel_store.errors import DamagedFileError, FormatError, StoreNotFoundError
from relabel_store.manifest import Manifest
from relabel_store.store import samples as sample_tables
from relabel_store.store.arrays import Arrays, array_specs, require_sane_chunks
from relabel_store.store.begun import require_vouched
from relabel_store.store.complete import Completion, read_completion
from relabel_store.store.encodings import ENCODINGS, encoding_of, read_manifest
from relabel_store.store.files import (
    FileEntry,
    StoreFiles,
    entry_of,
    read_verified,
    require_entry,
    require_same,
)
from relabel_store.store.journal import PartRecord, facts_path, is_part_of, read_journal
from relabel_store.store.reader import LabelStore
from relabel_store.store.samples import SampleIndex

_HELD_BYTES = 128 * 1024**2  # of shards that came over a network: ten parts of 4,096 maps at 15x15x5
_CACHED_CHUNKS = 8  # 8 x 1.1 MiB at 15x15x5: row-by-row reading in order decodes each chunk once


class EncodedStore(LabelStore):
    """A store on disk; made by `open_store`."""

    def __init__(self, files: StoreFiles) -> None:
        self.files = files
        self._completion = read_completion(files)
        self.manifest = _require_manifest(files, self._completion)
        if self._completion is not None:
            _require_all_parts(self._completion, self.manifest)
        self._encoding = encoding_of(self.manifest)
        if self._completion is None:
            require_vouched(files, self._encoding.manifest_file)
        self._specs = array_specs(self.manifest)
        require_sane_chunks(self.manifest)
        self._shards = self._encoding.open_shards(
            files, self.manifest, None if self._completion is None else self._completion.files
        )
        self._lock = threading.RLock()
        self._verified: set[str] = set()
        self._chunks: OrderedDict[int, Arrays] = OrderedDict()
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._part_indexes: dict[int, SampleIndex] = {}  # of parts that hold their samples

    def __reduce__(self) -> tuple[type[EncodedStore], tuple[StoreFiles]]:
        return EncodedStore, (self.files,)

    @property
    def location(self) -> str:
        """Path or URL of the store."""
        return self.files.location

    @property
    def digest(self) -> str | None:
        """Identity of a finished store, which covers every byte of it; None while it is being built."""
        return None if self._completion is None else self._completion.digest

    @property
    def size_bytes(self) -> int:
        """Size of all files of a finished store as they were written."""
        assert self._completion is not None
        recorded = sum(entry.size_bytes for entry in self._completion.files.values())
        return recorded + (self.files.size(spec.COMPLETE_FILE) or 0)

    @cached_property
    def parts(self) -> Mapping[int, PartRecord]:
        """The finished parts, as they were when this was first asked."""
        if self._completion is None:
            found = read_journal(self.files)[0]
            return {part: record for part, record in found.items() if is_part_of(record, self.manifest)}
        return self._completion.parts

    @property
    def _finished_parts(self) -> Iterable[int]:
        return self.parts

    @cached_property
    def bad_images(self) -> dict[int, str]:
        """The rows that got no label although their part is finished, and why."""
        return {bad.row: bad.reason for part in self.parts.values() for bad in part.bad_images}

    @cached_property
    def samples(self) -> pa.Table:
        """The sample table, as `LabelStore.samples` describes it."""
        if self._are_samples_in_parts:
            pieces = [self.samples_of_part(part) for part in sorted(self.parts)]
            return pa.concat_tables(pieces).combine_chunks()
        samples = self._read_samples()
        if self._completion is None:
            facts = self._read_facts()
            samples = sample_tables.with_facts(samples, facts, self.manifest.layout.shard_rows)
        return samples

    def samples_that_are_sound(self, planned: pa.Table) -> pa.Table:
        """Return the sample table where those of some parts may be damaged: their rows are taken from another.

        Parameters
        ----------
        planned
            The table that the store was begun with.
        """
        if not self._are_samples_in_parts:
            return self.samples
        pieces = []
        for part in sorted(self.parts):
            rows = self.manifest.rows_of_part(part)
            try:
                pieces.append(self.samples_of_part(part))
            except FormatError:
                pieces.append(planned.slice(rows.start, len(rows)))
        return pa.concat_tables(pieces).combine_chunks()

    def samples_of_part(self, part: int) -> pa.Table:
        """Return the sample table of a part, of a finished store whose parts hold their samples.

        Raises
        ------
        DamagedFileError
            The file of the part is not what was written.
        """
        table = self._shards.read_samples(part, partial(self._sound_file, part))
        for name in self.parts[part].files:
            sample_tables.require_rows(table, self.manifest.rows_of_part(part), name)
        return table

    @cached_property
    def _samples_file(self) -> Path | bytes:
        """The file of the sample table, checked once; its bytes where there is no such file on this host."""
        name = self._encoding.samples_file
        entry = None if self._completion is None else entry_of(self._completion.files, name)
        if entry is None:
            require_vouched(self.files, name)
        if self.files.path is None:
            return self._read_present(name) if entry is None else read_verified(self.files, name, entry)
        if entry is not None:
            require_entry(self.files, name, entry)
        elif self.files.size(name) is None:  # also where it is a pipe, at which Arrow would wait
            raise _missing(name)
        return self.files.path / name

    def _read_facts(self) -> dict[int, pa.Table | None]:
        """Return the facts of each finished part, None where they are in the sample table."""
        names = {facts_path(part): record for part, record in self.parts.items()}
        facts: dict[int, pa.Table | None] = {}
        for name, data in self.files.read_many(names):
            record = names[name]
            if data is not None:
                require_same(name, FileEntry.of_bytes(data), record.facts)
            facts[record.part] = (
                None if data is None else sample_tables.from_parquet(data, sample_tables.FACTS_SCHEMA)
            )
        return facts

    def _read_present(self, name: str) -> bytes:
        try:
            return self.files.read(name)
        except FileNotFoundError:
            raise _missing(name) from None

    def _read_samples(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the table of its file, after comparing its rows with those of the store."""
        source = self._samples_file
        name = self._encoding.samples_file
        try:
            table = sample_tables.from_parquet(source, sample_tables.SCHEMA, columns)
        except FormatError as error:
            raise FormatError(f"store file {name!r}: {error}") from error
        sample_tables.require_rows(table, range(len(self)), name)
        return table

    @property
    def _are_samples_in_parts(self) -> bool:
        return self._encoding.is_self_contained and self._completion is not None

    @cached_property
    def _index(self) -> SampleIndex:
        if self._are_samples_in_parts:
            return SampleIndex(self.samples["sample_id"])
        return SampleIndex(self._read_samples(["row", "sample_id"])["sample_id"])

    def _sample_ids(self, rows: NDArray[np.int64]) -> list[str]:
        if not self._are_samples_in_parts or "_index" in self.__dict__:
            return super()._sample_ids(rows)
        # Of the parts asked for only: a damaged one does not keep the others from being read.
        ids = np.empty(len(rows), object)
        for part, at in _group(rows // self.manifest.layout.shard_rows):
            ids[at] = self._index_of_part(part).sample_ids(rows[at] - self.manifest.rows_of_part(part).start)
        return list(ids)

    def _index_of_part(self, part: int) -> SampleIndex:
        if part not in self._part_indexes:
            self._part_indexes[part] = SampleIndex(self.samples_of_part(part)["sample_id"])
        return self._part_indexes[part]

    def load(self) -> LabelStore:
        """Return the same store wholly in memory."""
        from relabel_store.store.decoded import load_store

        return load_store(self)

    def materialize(
        self, cache_dir: str | os.PathLike[str] | None = None, *, verify: bool = False
    ) -> LabelStore:
        """Return the same store decoded into memory-mapped files; see `LabelStore.materialize`."""
        from relabel_store.store.cache import materialize_store

        return materialize_store(self, cache_dir, verify=verify)

    def decode_part(self, part: int, into: Arrays) -> None:
        """Decode every row of a finished part in one go, rows of bad images included.

        For whoever decodes a whole store. The file of each shard is read once, and checked.

        Parameters
        ----------
        into
            C-contiguous arrays of as many rows as the part has, by name, to be overwritten: new ones for each
            part would take a seventh of the time.

        Raises
        ------
        DamagedFileError
            It is not what was written.
        """
        self._shards.read_part(part, partial(self._read_file, part), into)
        self._require_classes(self.manifest.rows_of_part(part), into)

    def _gather(self, rows: NDArray[np.int64]) -> Arrays:
        chunk_rows = self.manifest.layout.chunk_rows
        arrays = {name: array.empty(len(rows)) for name, array in self._specs.items()}
        for chunk, at in _group(rows // chunk_rows):
            decoded = self._read_chunk(chunk)
            for name, array in arrays.items():
                array[at] = decoded[name][rows[at] - chunk * chunk_rows]
        return arrays

    def _read_chunk(self, chunk: int) -> Arrays:
        with self._lock:
            if chunk in self._chunks:
                self._chunks.move_to_end(chunk)
                return self._chunks[chunk]
            decoded = self._decode(chunk)
            self._chunks[chunk] = decoded
            if len(self._chunks) > _CACHED_CHUNKS:
                self._chunks.popitem(last=False)
            return decoded

    def _decode(self, chunk: int) -> Arrays:
        layout = self.manifest.layout
        start = chunk * layout.chunk_rows
        rows, part = range(start, min(start + layout.chunk_rows, len(self))), start // layout.shard_rows
        found = self._shards.read_rows(part, rows, partial(self._sound_file, part))
        self._require_classes(rows, found)
        return found

    def _require_classes(self, rows: range, found: Arrays) -> None:
        """Check that rows with a label hold classes of the teacher: whoever pools them uses them as addresses."""
        highest = found[spec.INDICES].reshape(len(rows), -1).max(axis=1)
        is_wrong = (highest >= self.num_classes) & self.has_labels(np.arange(rows.start, rows.stop))
        if is_wrong.any():
            at = int(np.argmax(is_wrong))
            part = rows.start // self.manifest.layout.shard_rows
            name = next(iter(self._encoding.files_of_part(self.manifest, part)))
            raise FormatError(
                f"store file {name!r}: class index {highest[at]} in row {rows[at]}, expected below {self.num_classes}; "
                "its maker has to build it again"
            )

    def _sound_file(self, part: int, name: str) -> Path | bytes:
        """Return a file of a part, checked once: its path, or its bytes where this host has no such file.

        Whole, although a chunk would do: only then there is a digest to check it with. Those asked for last stay
        in memory.
        """
        with self._lock:
            if self.files.path is not None:
                if name not in self._verified:
                    require_entry(self.files, name, self._entry(part, name))
                    self._verified.add(name)
                return self.files.path / name
            data = self._held.pop(name, None) or self._read_file(part, name)
            self._held[name] = data
            while len(self._held) > 1 and sum(map(len, self._held.values())) > _HELD_BYTES:
                self._held.popitem(last=False)
            return data

    def _read_file(self, part: int, name: str) -> bytes:
        return read_verified(self.files, name, self._entry(part, name))

    def _entry(self, part: int, name: str) -> FileEntry:
        listed = self.parts[part].files
        expected = self._encoding.files_of_part(self.manifest, part)
        if listed.keys() != expected.keys():
            raise DamagedFileError(
                f"journal record of part {part}: lists {', '.join(map(repr, sorted(listed)))}, expected "
                f"{', '.join(map(repr, sorted(expected)))} as the manifest says; build the part again"
            )
        return listed[name]


def _missing(name: str) -> DamagedFileError:
    return DamagedFileError(f"store file {name!r}: missing; restore it from a copy")


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


def _require_no_parts_alone(files: StoreFiles) -> None:
    names = files.children()
    if any(map(ENCODINGS[spec.ENCODING_PARQUET].is_ours, names)):
        raise StoreNotFoundError(
            f"store {files.location!r}: parts of a Parquet store without {spec.COMPLETE_FILE!r}; copy that too, "
            "or read them with a Parquet library"
        )
    if any(map(ENCODINGS[spec.ENCODING_PACKED].is_ours, names)):
        raise StoreNotFoundError(
            f"store {files.location!r}: parts of a packed store without {spec.COMPLETE_FILE!r}; copy that too"
        )


def _require_manifest(files: StoreFiles, completion: Completion | None) -> Manifest:
    manifest = read_manifest(files, completion)
    if manifest is None:
        _require_no_parts_alone(files)
        raise StoreNotFoundError(
            f"store {files.location!r}: {files.describe()}, expected a store made by `relabel-store build`"
        )
    return manifest

"""Writing a store: parts that are there whole or not at all, and the commit of the whole."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from relabel_store import spec
from relabel_store.canonical import canonical_json
from relabel_store.errors import DamagedFileError, FormatError, StoreNotFoundError, TargetExistsError
from relabel_store.labels.topk import IndexArray, has_repeated_classes, is_sorted
from relabel_store.labels.values import as_float32
from relabel_store.manifest import AbsentRule, LabelSpec, Manifest, State
from relabel_store.store import samples as sample_tables
from relabel_store.store.arrays import Arrays, array_specs
from relabel_store.store.begun import claim, require_vouched, vouch_for, write_unless_vouched
from relabel_store.store.commit import commit_part, files_of, read_part, settle
from relabel_store.store.complete import Completion, read_completion
from relabel_store.store.encoded import EncodedStore
from relabel_store.store.encodings import ENCODINGS, encoding_of, read_manifest
from relabel_store.store.files import (
    FileEntry,
    StoreFiles,
    entry_of,
    read_verified,
    require_entry,
    require_same,
    require_size,
)
from relabel_store.store.journal import (
    BadImage,
    Journal,
    PartRecord,
    facts_path,
    is_part_of,
    mtimes_path,
    record_path,
)
from relabel_store.store.location import open_files
from relabel_store.store.locks import hold_lock
from relabel_store.store.samples import Status
from relabel_store.store.statistics import Counts

_COUNTS_KEY = b"relabel_store.counts"
_CHECKED_AT_ONCE = 128  # samples, whose temporaries stay in the cache of a core


@dataclass(frozen=True)
class PartLabels:
    """The work of one part, ready to be written.

    Parameters
    ----------
    indices, values, rest
        As in `LabelMaps`, a row for each of the part's samples; rows without a label may hold anything.
    facts
        What was found out about the images, in `samples.FACTS_SCHEMA`, one row a sample.
    mtimes_ns
        When each image was last changed, int64 ``(n,)``.
    exif_oriented
        Number of images with an EXIF orientation.
    """

    indices: IndexArray
    values: NDArray[np.float16]
    rest: NDArray[np.float16] | None
    facts: pa.Table
    mtimes_ns: NDArray[np.int64]
    bad_images: tuple[BadImage, ...] = ()
    exif_oriented: int = 0

    @property
    def arrays(self) -> Arrays:
        """The arrays by name."""
        found = {spec.INDICES: self.indices, spec.VALUES: self.values, spec.REST: self.rest}
        return {name: rows for name, rows in found.items() if rows is not None}

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """Bool ``(n,)``."""
        return np.asarray(self.facts["status"].to_numpy() == Status.LABELLED.value)


def _are_multiples(values: NDArray[np.float16], step: float) -> bool:
    steps = as_float32(values, 1 / step)  # exact: a step is a power of two
    return bool(np.all(steps == np.rint(steps)))


def _labelled(array: NDArray[Any], is_labelled: NDArray[np.bool_]) -> NDArray[Any]:
    return array if is_labelled.all() else array[is_labelled]


Location = str | os.PathLike[str] | StoreFiles


def is_store(location: Location) -> bool:
    """Tell whether there is a store here, finished or not."""
    files = open_files(location)
    if any(files.size(encoding.manifest_file) is not None for encoding in ENCODINGS.values()):
        return True
    completion = read_completion(files)
    return completion is not None and completion.manifest is not None


def require_free_target(location: Location) -> None:
    """Check that a store can be begun, or gone on with, at a path.

    Raises
    ------
    TargetExistsError
        Something else is there.
    FormatError
        A Zarr group that is no label store, or one whose manifest cannot be read.
    """
    files = open_files(location)
    files.require_folder()
    if read_manifest(files, None) is None:  # raises where it is somebody else's Zarr group
        strangers = sorted(name for name in files.children() if not _is_ours(name))
        if strangers:
            raise TargetExistsError(
                f"output {files.location!r}: holds {len(strangers)} things that are no part of a store, "
                f"{strangers[0]!r} first; choose a path that is free"
            )


def _is_ours(name: str) -> bool:
    return (
        name in (spec.JOURNAL_DIR, spec.COMPLETE_FILE)
        or (name.startswith(".") and name.endswith(".partial"))
        or any(encoding.is_ours(name) for encoding in ENCODINGS.values())
    )


def require_fitting(manifest: Manifest, part: int, labels: PartLabels) -> None:
    """Check the labels of a part against the format: what is wrong here is wrong for years.

    Raises
    ------
    ValueError
        They do not fit the manifest, or each other.
    """
    label_map, rows = manifest.label_map, manifest.rows_of_part(part)
    if not 0 <= part < manifest.num_parts:
        raise ValueError(f"part {part}: expected 0 to {manifest.num_parts - 1}")
    if (labels.rest is None) != (label_map.absent is AbsentRule.ZERO):
        raise ValueError(f"part {part}: rest does not fit absent = {label_map.absent.value!r}")
    arrays = {spec.INDICES: labels.indices, spec.VALUES: labels.values, spec.REST: labels.rest}
    for name, array in array_specs(manifest).items():
        found = arrays[name]
        expected = (len(rows), *array.shape[1:])
        if found is None or found.shape != expected or found.dtype != array.dtype:
            raise ValueError(f"part {part}: {name} do not have dtype {array.dtype} and shape {expected}")
    statuses = labels.facts["status"].to_pylist()
    without = [row for row, status in zip(rows, statuses, strict=True) if status != Status.LABELLED.value]
    if set(statuses) - set(Status):
        raise ValueError(f"part {part}: statuses {sorted(set(statuses))}")
    if sorted(image.row for image in labels.bad_images) != without:
        raise ValueError(f"part {part}: reasons for having no label do not fit the statuses, {without}")
    indices = _labelled(labels.indices, labels.is_labelled)
    values = _labelled(labels.values, labels.is_labelled)
    rest = None if labels.rest is None else _labelled(labels.rest, labels.is_labelled)
    for start in range(0, len(indices), _CHECKED_AT_ONCE):
        few = slice(start, start + _CHECKED_AT_ONCE)
        _require_sound(label_map, part, indices[few], values[few], None if rest is None else rest[few])


def _require_sound(
    label_map: LabelSpec,
    part: int,
    indices: IndexArray,
    values: NDArray[np.float16],
    rest: NDArray[np.float16] | None,
) -> None:
    """Check label maps of samples that have one."""
    if int(indices.max()) >= label_map.num_classes:
        raise ValueError(f"part {part}: class index {indices.max()}, expected below {label_map.num_classes}")
    if not np.isfinite(values).all() or not is_sorted(indices, values).all():
        raise ValueError(f"part {part}: ranks are not in stored order, or not finite")
    if has_repeated_classes(indices).any():
        raise ValueError(f"part {part}: a class twice in a cell")
    step = label_map.value_step
    if not isinstance(step, str) and not _are_multiples(values, step):
        raise ValueError(f"part {part}: values are no multiples of value step {step}")
    if rest is not None and label_map.k < label_map.num_classes and not np.isfinite(rest).all():
        raise ValueError(f"part {part}: rest is not finite")


def filled_arrays(manifest: Manifest, labels: PartLabels) -> Arrays:
    """Return the arrays of a part as they are stored: rows without a label hold fill values."""
    is_labelled, found = labels.is_labelled, labels.arrays
    if is_labelled.all():
        return {name: np.ascontiguousarray(found[name]) for name in array_specs(manifest)}
    arrays: Arrays = {}
    for name, array in array_specs(manifest).items():
        arrays[name] = array.full(len(is_labelled))
        arrays[name][is_labelled] = found[name][is_labelled]
    return arrays


def encode_part(manifest: Manifest, part: int, labels: PartLabels, samples: pa.Table) -> dict[str, bytes]:
    """Return the files of a part by name; rows without a label hold fill values.

    Parameters
    ----------
    samples
        The part's rows of the sample table, without facts.
    """
    n = len(samples)
    arrays = filled_arrays(manifest, labels)
    with_facts = sample_tables.with_facts(samples, {0: labels.facts}, n)
    return encoding_of(manifest).encode_part(manifest, part, arrays, with_facts)


def count_labels(
    manifest: Manifest, arrays: Arrays, is_labelled: NDArray[np.bool_], samples: pa.Table
) -> Counts:
    """Return what is counted of the labels of a part.

    Parameters
    ----------
    arrays
        A row for each of the part's samples; rows without a label may hold anything.
    is_labelled
        ``(n,)``.
    samples
        The part's rows of the sample table.
    """
    classes = samples["class_index"].fill_null(-1).to_numpy().astype(np.int64)
    rest = arrays.get(spec.REST)
    return Counts.of(
        _labelled(arrays[spec.INDICES], is_labelled),
        _labelled(arrays[spec.VALUES], is_labelled),
        None if rest is None else _labelled(rest, is_labelled),
        classes[is_labelled],
        num_classes=manifest.label_map.num_classes,
    )


class StoreWriter:
    """A store that is being built.

    Several processes may write parts of one store at the same time; each part is committed by its
    record in the journal, which is created last and only if there is none.
    """

    def __init__(self, files: StoreFiles, manifest: Manifest, samples: pa.Table) -> None:
        self.files = files
        self.manifest = manifest
        self._encoding = encoding_of(manifest)
        self._journal = Journal(files)
        self.samples = samples

    @classmethod
    def begin(cls, location: Location, manifest: Manifest, samples: pa.Table) -> StoreWriter:
        """Begin a store, or join the one that another process began at the same moment.

        Parameters
        ----------
        samples
            In `samples.SCHEMA`, in row order, without facts.
        """
        files = open_files(location)
        require_free_target(files)
        if is_store(files):
            return cls.resume(files)
        encoding = encoding_of(manifest)
        if files.size(spec.COMPLETE_FILE) is not None or Journal(files).records():
            raise TargetExistsError(
                f"output {files.location!r}: a store that lost its {encoding.manifest_file!r}; restore it, "
                "or choose a path that is free"
            )
        table = sample_tables.to_parquet(samples)
        document = encoding.manifest_document(manifest)
        begun = {
            encoding.manifest_file: FileEntry.of_bytes(document),
            encoding.samples_file: FileEntry.of_bytes(table),
        }
        files.require_creation()
        try:
            claim(files, begun)
            write_unless_vouched(files, encoding.samples_file, table)
            for name, data in encoding.fixed_files(manifest).items():
                files.write(name, data)
            files.create(encoding.manifest_file, document)
        except FileNotFoundError:
            # Another host finished the store meanwhile and swept our half-written file away.
            if not is_store(files):
                raise
        return cls.resume(files)

    @classmethod
    def resume(cls, location: Location, planned: pa.Table | None = None) -> StoreWriter:
        """Go on with a store.

        Parameters
        ----------
        planned
            The sample table that it was begun with. A finished store whose parts hold their samples is gone on with
            although some of them are damaged only if it is known.

        Raises
        ------
        StoreNotFoundError
            There is none.
        FormatError
            What is there is no label store.
        DamagedFileError
            The manifest or the sample table is not what the build began with.
        """
        files = open_files(location)
        completion = read_completion(files)
        if completion is not None and completion.manifest is not None:
            store = EncodedStore(files)
            samples = store.samples if planned is None else store.samples_that_are_sound(planned)
            return cls(files, store.manifest, samples)
        manifest = read_manifest(files, None)
        if manifest is None:
            names = " or ".join(repr(encoding.manifest_file) for encoding in ENCODINGS.values())
            raise StoreNotFoundError(f"store {files.location!r}: no {names}, so there is no store here")
        samples_file = encoding_of(manifest).samples_file
        try:
            samples = files.read(samples_file)
        except FileNotFoundError:
            raise StoreNotFoundError(
                f"store {files.location!r}: no {samples_file!r}, so there is no store here"
            ) from None
        if completion is None:
            require_vouched(files, encoding_of(manifest).manifest_file)
            require_vouched(files, samples_file)
        else:
            require_same(samples_file, FileEntry.of_bytes(samples), entry_of(completion.files, samples_file))
        table = sample_tables.from_parquet(samples, sample_tables.SCHEMA)
        sample_tables.require_rows(table, range(manifest.num_samples), samples_file)
        return cls(files, manifest, table)

    def damaged_parts(self) -> dict[int, str]:
        """Return the finished parts whose files are not what was written, and what is wrong with each.

        Of a finished store, and of one that does not lie in a directory, only the sizes are compared; reading it
        compares the digests.
        """
        records = self.records()
        settle(self.files, records)
        sizes = self._listed_sizes()
        # What an object store took in whole it keeps whole; to read all of it again would take hours.
        are_sizes_enough = self.is_complete or self.files.path is None
        found = {}
        for part, record in records.items():
            for name, entry in files_of(record):
                if name == facts_path(part) and name not in sizes and self._is_merged(record):
                    continue
                try:
                    require_size(sizes.get(name), name, entry)
                    if not are_sizes_enough:
                        require_entry(self.files, name, entry)
                except DamagedFileError as error:
                    found[part] = str(error)
        return found

    def _listed_sizes(self) -> dict[str, int]:
        """Return the size in bytes of every shard and slice of facts by name, as listings tell it."""
        folders = [*self._encoding.folders(self.manifest), spec.JOURNAL_DIR]
        listings = (
            self.files.listing(folder, deep=folder not in ("", spec.JOURNAL_DIR)) for folder in folders
        )
        return {name: stamp.size_bytes for listing in listings for name, stamp in listing.items()}

    def records(self) -> dict[int, PartRecord]:
        """Return the records of the parts that are finished now."""
        found: Mapping[int, PartRecord] = self._journal.records()
        if self._encoding.is_self_contained:
            # Whoever finishes such a store removes the journal, once there is a completion record.
            completion = read_completion(self.files)
            found = found if completion is None else completion.parts
        return {part: record for part, record in found.items() if is_part_of(record, self.manifest)}

    def record(self, part: int) -> PartRecord | None:
        """Return the record of a part, or None where it is not finished."""
        found = read_part(self.files, self.manifest, part)
        return self.records().get(part) if found is None and self._encoding.is_self_contained else found

    @property
    def is_complete(self) -> bool:
        """Whether the store is finished."""
        return self.files.size(spec.COMPLETE_FILE) is not None

    def write_part(self, part: int, labels: PartLabels) -> PartRecord:
        """Write a part and commit it; if another process was faster, its work stays and ours is dropped.

        Returns
        -------
        PartRecord
            Of the part as it is in the store now.

        Raises
        ------
        NotEnoughSpaceError
            The disk is full; the part does not exist.
        """
        require_fitting(self.manifest, part, labels)
        self.files.require_creation()
        contents = self._encode(part, labels)
        record = PartRecord(
            part=part,
            rows=self.manifest.rows_of_part(part),
            files={
                name: FileEntry.of_bytes(data) for name, data in contents.items() if name != facts_path(part)
            },
            facts=FileEntry.of_bytes(contents[facts_path(part)]),
            bad_images=labels.bad_images,
            exif_oriented=labels.exif_oriented,
        )
        # The lock keeps a second process of this host from replacing the files of a committed part.
        with self._locked(spec.part_name(part)):
            return self._commit(record, contents, labels.mtimes_ns.tobytes())

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Keep other processes of this host from the same work; other hosts cannot be kept from it."""
        if self.files.path is None:
            yield
        else:
            with hold_lock(self.files.path / spec.RUNNING_DIR / f"{name}.lock", wait=True):
                yield

    def _encode(self, part: int, labels: PartLabels) -> dict[str, bytes]:
        rows = self.manifest.rows_of_part(part)
        samples = self.samples.slice(rows.start, len(rows))
        contents = encode_part(self.manifest, part, labels, samples)
        counts = count_labels(self.manifest, labels.arrays, labels.is_labelled, samples)
        facts = labels.facts.replace_schema_metadata({_COUNTS_KEY: canonical_json(counts.to_json())})
        contents[facts_path(part)] = sample_tables.to_parquet(facts)
        return contents

    def _commit(self, record: PartRecord, contents: Mapping[str, bytes], mtimes: bytes) -> PartRecord:
        try:
            if self.record(record.part) is None:
                self.files.write(mtimes_path(record.part), mtimes)
            winner = commit_part(self.files, self.manifest, record, contents)
        except FileNotFoundError:
            # Another host finished the store and swept our half-written file away.
            found = self.record(record.part)
            if found is None:
                raise
            winner = found
        if self.is_complete:
            self._clean()  # of what we left beside a store that others finished
        return winner

    def drop_parts(self, parts: Iterable[int]) -> None:
        """Forget finished parts, so that they are built again; a finished store becomes unfinished."""
        if self.manifest.state is State.COMPLETE or self.is_complete:
            self._reopen()
        dropped = list(parts)
        self.files.remove(map(record_path, dropped))
        self.files.remove(map(facts_path, dropped))

    def _reopen(self) -> None:
        completion = read_completion(self.files)
        self.manifest = self.manifest.reopened()
        if self._encoding.is_self_contained and completion is not None:
            # What finishing it removed. Nobody looks at it before the completion record is gone.
            for part, record in completion.parts.items():
                self.files.write(record_path(part), record.to_bytes())
            table = sample_tables.to_parquet(self.samples)
            vouch_for(self.files, self._entries_of(table))
            self.files.write(self._encoding.samples_file, table)
            self._write_manifest()
            self.files.remove([spec.COMPLETE_FILE])
            return
        names = self._encoding.manifest_file, self._encoding.samples_file
        if completion is not None:
            vouch_for(self.files, {name: entry_of(completion.files, name) for name in names})
        vouch_for(self.files, self._entries_of(None))
        self.files.remove([spec.COMPLETE_FILE])
        self._write_manifest()

    def _entries_of(self, table: bytes | None) -> dict[str, FileEntry]:
        """Return what the manifest, and a sample table if there is one, will be."""
        document = self._encoding.manifest_document(self.manifest)
        entries = {self._encoding.manifest_file: FileEntry.of_bytes(document)}
        return (
            entries if table is None else {**entries, self._encoding.samples_file: FileEntry.of_bytes(table)}
        )

    def _write_manifest(self) -> None:
        self.files.write(self._encoding.manifest_file, self._encoding.manifest_document(self.manifest))

    def missing_parts(self) -> list[int]:
        """Return the parts that nobody has finished yet."""
        finished = self.records()
        return [part for part in range(self.manifest.num_parts) if part not in finished]

    def complete(self) -> Completion:
        """Finish the store: merge what the parts found out, then commit the whole.

        Every step can be repeated after a crash: facts stay in the journal until the merged table is
        in place, and ``complete.json`` comes last. Two processes that finish the same store write the
        same bytes.

        Raises
        ------
        FormatError
            A part is missing.
        """
        finished = read_completion(self.files)
        if finished is not None:
            self._clean()  # of what others left who came late and were killed
            self._reload()
            return finished
        with self._locked("complete"):
            finished = read_completion(self.files)
            try:
                if finished is None:
                    return self._finish()
            except FileNotFoundError:
                # Another host finished the store and swept our half-written file away.
                finished = read_completion(self.files)
                if finished is None:
                    raise
            self._clean()  # of our lock, who waited for whoever finished the store
            self._reload()
            return finished

    def _finish(self) -> Completion:
        records = self.records()
        missing = [part for part in range(self.manifest.num_parts) if part not in records]
        if missing:
            raise FormatError(f"store: {len(missing)} of {self.manifest.num_parts} parts are not built")
        settle(self.files, records)
        self._require_shards(records)
        facts = self._read_facts(records)
        # Facts go only after the merged table and the manifest are in place: whoever finds them gone
        # finds these there, and what we read when we began is old.
        self._reload()
        self._require_merged(records, facts)
        self._merge(records, facts)
        if self._encoding.is_self_contained:
            completion = self._commit_whole(records)
            self._clean()
            return completion
        self._clean()
        completion = self._commit_whole(records)
        self.remove_locks()  # of whoever came in between
        return completion

    def _require_shards(self, records: Mapping[int, PartRecord]) -> None:
        sizes = self._listed_sizes()
        for record in records.values():
            for name, entry in record.files.items():
                require_size(sizes.get(name), name, entry)

    def _reload(self) -> None:
        now = StoreWriter.resume(self.files)
        self.manifest, self.samples = now.manifest, now.samples

    def _is_merged(self, record: PartRecord) -> bool:
        """Tell whether the sample table holds what was found out about the images of a part."""
        statuses = self.samples["status"].slice(record.rows.start, len(record.rows)).to_pylist()
        missing = {row for row, status in zip(record.rows, statuses, strict=True) if status == Status.MISSING}
        return missing <= {
            bad.row for bad in record.bad_images
        }  # of what was converted some may be missing for good

    def _require_merged(
        self, records: Mapping[int, PartRecord], facts: Mapping[int, pa.Table | None]
    ) -> None:
        for part, found in facts.items():
            if found is None and not self._is_merged(records[part]):
                raise DamagedFileError(
                    f"store file {facts_path(part)!r}: missing; remove {record_path(part)!r} to build the part again"
                )

    def _read_facts(self, records: Mapping[int, PartRecord]) -> dict[int, pa.Table | None]:
        names = {facts_path(part): record for part, record in records.items()}
        facts: dict[int, pa.Table | None] = {}
        for name, data in self.files.read_many(names):
            record = names[name]
            if data is not None:
                require_same(name, FileEntry.of_bytes(data), record.facts)
            # Read without a schema cast, which would drop the counts in the metadata.
            facts[record.part] = None if data is None else pq.read_table(pa.BufferReader(data))
        return facts

    def _merge(self, records: Mapping[int, PartRecord], facts: Mapping[int, pa.Table | None]) -> None:
        if self.manifest.state is State.COMPLETE and all(found is None for found in facts.values()):
            return  # a crash came after the merge, and only cleaning up is left
        self.samples = sample_tables.with_facts(self.samples, facts, self.manifest.layout.shard_rows)
        counts = (self._counts_of(record, facts[part]) for part, record in sorted(records.items()))
        statistics = Counts.total(counts, self.manifest.label_map.num_classes).summary(
            bad_images=sum(len(record.bad_images) for record in records.values()),
            exif_oriented=sum(record.exif_oriented for record in records.values()),
        )
        self.manifest = self.manifest.completed(statistics)
        if not self._encoding.is_self_contained:
            table = sample_tables.to_parquet(self.samples)
            vouch_for(self.files, self._entries_of(table))
            self.files.write(self._encoding.samples_file, table)
            self._write_manifest()

    def _counts_of(self, record: PartRecord, facts: pa.Table | None) -> Counts:
        if facts is not None:
            document: dict[str, Any] = json.loads(facts.schema.metadata[_COUNTS_KEY])
            return Counts.from_json(document)
        # The part was merged before, then another one was built again: count it anew.
        read = {name: array.empty(len(record.rows)) for name, array in array_specs(self.manifest).items()}
        shards = self._encoding.open_shards(self.files, self.manifest, None)
        shards.read_part(record.part, lambda name: read_verified(self.files, name, record.files[name]), read)
        samples = self.samples.slice(record.rows.start, len(record.rows))
        return count_labels(
            self.manifest, read, samples["status"].to_numpy() == Status.LABELLED.value, samples
        )

    def _clean(self) -> None:
        """Remove everything that a finished store does not hold."""
        if self._encoding.is_self_contained:
            self.files.remove_folder(spec.JOURNAL_DIR)
            self.files.sweep()
            return
        self.files.remove(name for name in self.files.listing(spec.JOURNAL_DIR) if name.endswith(".parquet"))
        self.files.sweep()
        self.remove_locks()

    def _commit_whole(self, records: Mapping[int, PartRecord]) -> Completion:
        files = {name: entry for record in records.values() for name, entry in record.files.items()}
        if self._encoding.is_self_contained:
            completion = Completion(files, records, self.manifest.to_dict())
        else:
            fixed = self._encoding.fixed_files(self.manifest)
            for name, data in fixed.items():
                self.files.write(name, data)
            names = [self._encoding.manifest_file, self._encoding.samples_file, *fixed]
            files.update((name, self.files.entry(name)) for name in names)
            files.update((record_path(part), self._journal.entry(part)) for part in records)
            completion = Completion(files, records)
        self.files.write(spec.COMPLETE_FILE, completion.to_bytes())
        return completion

    def remove_locks(self) -> None:
        """Remove the lock files, which a finished store does not hold."""
        self.files.remove_folder(spec.RUNNING_DIR)

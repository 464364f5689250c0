"""A store that is being built: each part, and then the whole, is there or is not."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from relabel_store import spec
from relabel_store.canonical import canonical_json
from relabel_store.errors import DamagedFileError, FormatError, StoreNotFoundError, TargetExistsError
from relabel_store.manifest import Manifest, State
from relabel_store.store import samples as sample_tables
from relabel_store.store.arrays import array_specs
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
    Journal,
    PartRecord,
    facts_path,
    is_part_of,
    mtimes_path,
    record_path,
)
from relabel_store.store.location import Location, open_files
from relabel_store.store.locks import hold_lock
from relabel_store.store.occupied import is_store, require_free_target
from relabel_store.store.part_labels import PartLabels, count_labels, encode_part, require_fitting
from relabel_store.store.samples import Status
from relabel_store.store.statistics import Counts

_COUNTS_KEY = b"relabel_store.counts"


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
            self.open_again(completion.parts)
            return
        names = self._encoding.manifest_file, self._encoding.samples_file
        if completion is not None:
            vouch_for(self.files, {name: entry_of(completion.files, name) for name in names})
        vouch_for(self.files, self._entries_of(None))
        self.files.remove([spec.COMPLETE_FILE])
        self._write_manifest()

    def open_again(self, records: Mapping[int, PartRecord]) -> None:
        """Make a finished store whose parts hold their samples one that is being built.

        Parameters
        ----------
        records
            Of its parts, which lie in the journal afterwards.
        """
        self.manifest = self.manifest.reopened()
        # What finishing it removed. Nobody looks at it before the completion record is gone.
        for part, record in records.items():
            self.files.write(record_path(part), record.to_bytes())
        table = sample_tables.to_parquet(self.samples)
        vouch_for(self.files, self._entries_of(table))
        self.files.write(self._encoding.samples_file, table)
        self._write_manifest()
        self.files.remove([spec.COMPLETE_FILE])

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
            facts[record.part] = None if data is None else sample_tables.read_facts(data, name)
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
        version = self.manifest.format_version
        if self._encoding.is_self_contained:
            completion = Completion(files, records, self.manifest.to_dict(), version)
        else:
            fixed = self._encoding.fixed_files(self.manifest)
            for name, data in fixed.items():
                self.files.write(name, data)
            names = [self._encoding.manifest_file, self._encoding.samples_file, *fixed]
            files.update((name, self.files.entry(name)) for name in names)
            files.update((record_path(part), self._journal.entry(part)) for part in records)
            completion = Completion(files, records, format_version=version)
        self.files.write(spec.COMPLETE_FILE, completion.to_bytes())
        return completion

    def remove_locks(self) -> None:
        """Remove the lock files, which a finished store does not hold."""
        self.files.remove_folder(spec.RUNNING_DIR)

"""Writing a store: parts that are there whole or not at all, and the commit of the whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from relabel_store import spec
from relabel_store.canonical import canonical_json, read_json
from relabel_store.errors import DamagedFileError, FormatError, StoreNotFoundError, TargetExistsError
from relabel_store.labels.topk import IndexArray, is_sorted
from relabel_store.manifest import AbsentRule, Manifest, State
from relabel_store.store import samples as sample_tables
from relabel_store.store.complete import Completion, read_completion
from relabel_store.store.files import (
    FileEntry,
    create_file,
    read_verified,
    remove_partials,
    require_entry,
    require_size,
    sync_directory,
    write_file,
)
from relabel_store.store.journal import (
    BadImage,
    PartRecord,
    facts_path,
    is_part_of,
    mtimes_path,
    read_journal,
    record_path,
)
from relabel_store.store.locks import hold_lock
from relabel_store.store.samples import Status
from relabel_store.store.statistics import Counts
from relabel_store.store.zarr_v1 import (
    ZarrArrays,
    array_documents,
    array_specs,
    encode_shard,
    group_document,
    manifest_of_group,
)

_COUNTS_KEY = b"relabel_store.counts"
_BEGUN_FILE = f"{spec.RUNNING_DIR}/begun.json"  # size and digest of what a build begins with
_OURS = {
    spec.JOURNAL_DIR,
    spec.SAMPLES_FILE,
    spec.INDICES,
    spec.VALUES,
    spec.REST,
    spec.GROUP_FILE,
    spec.COMPLETE_FILE,
}


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
    def is_labelled(self) -> NDArray[np.bool_]:
        """Bool ``(n,)``."""
        return np.asarray(self.facts["status"].to_numpy() == Status.LABELLED.value)


def is_store(path: Path) -> bool:
    """Tell whether there is a store here, finished or not."""
    return (path / spec.GROUP_FILE).is_file()


def require_free_target(path: Path) -> None:
    """Check that a store can be begun, or gone on with, at a path.

    Raises
    ------
    TargetExistsError
        Something else is there.
    FormatError
        A Zarr group that is no label store, or one whose manifest cannot be read.
    """
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        what = "a link that leads nowhere" if path.is_symlink() else "a file"
        raise TargetExistsError(f"output {str(path)!r}: is {what}, expected a store or a path that is free")
    if is_store(path):
        manifest_of_group((path / spec.GROUP_FILE).read_bytes())  # raises where it is somebody else's group
    strangers = sorted(entry.name for entry in path.iterdir() if not _is_ours(entry.name))
    if strangers and not is_store(path):
        raise TargetExistsError(
            f"output {str(path)!r}: holds {len(strangers)} things that are no part of a store, {strangers[0]!r} first; "
            "choose a path that is free"
        )


def _is_ours(name: str) -> bool:
    return name in _OURS or (name.startswith(".") and name.endswith(".partial"))


def _require_as_begun(path: Path) -> None:
    """Check the files that nothing else vouches for until the store is finished."""
    try:
        document = read_json((path / _BEGUN_FILE).read_bytes())
        begun = {name: FileEntry.from_json(entry) for name, entry in document.items()}
    except (FileNotFoundError, ValueError, AttributeError):
        return  # a finished store that was opened again has none
    for name, entry in begun.items():
        try:
            require_entry(path / name, name, entry)
        except DamagedFileError as error:
            raise DamagedFileError(
                f"store {str(path)!r}: {name!r} is not what the build began with; restore it, or build into another "
                "path"
            ) from error


class StoreWriter:
    """A store that is being built.

    Several processes may write parts of one store at the same time; each part is committed by its
    record in the journal, which is created last and only if there is none.
    """

    def __init__(self, path: Path, manifest: Manifest, samples: pa.Table) -> None:
        self.path = path
        self.manifest = manifest
        self.samples = samples

    @classmethod
    def begin(cls, path: Path, manifest: Manifest, samples: pa.Table) -> StoreWriter:
        """Begin a store, or join the one that another process began at the same moment.

        Parameters
        ----------
        samples
            In `samples.SCHEMA`, in row order, without facts.
        """
        require_free_target(path)
        if is_store(path):
            return cls.resume(path)
        if (path / spec.COMPLETE_FILE).exists() or any((path / spec.JOURNAL_DIR).glob("part-*.json")):
            raise TargetExistsError(
                f"output {str(path)!r}: a store that lost its {spec.GROUP_FILE!r}; restore it, "
                "or choose a path that is free"
            )
        table = sample_tables.to_parquet(samples)
        group = canonical_json(group_document(manifest, is_consolidated=False))
        write_file(path / spec.SAMPLES_FILE, table)
        for name, document in array_documents(manifest).items():
            write_file(path / name / spec.GROUP_FILE, canonical_json(document))
        begun = {spec.GROUP_FILE: FileEntry.of_bytes(group), spec.SAMPLES_FILE: FileEntry.of_bytes(table)}
        document = {name: entry.to_json() for name, entry in begun.items()}
        create_file(path / _BEGUN_FILE, canonical_json(document))
        create_file(path / spec.GROUP_FILE, group)
        return cls.resume(path)

    @classmethod
    def resume(cls, path: Path) -> StoreWriter:
        """Go on with a store.

        Raises
        ------
        StoreNotFoundError
            There is none.
        FormatError
            What is there is no label store.
        DamagedFileError
            The manifest or the sample table is not what the build began with.
        """
        try:
            manifest = manifest_of_group((path / spec.GROUP_FILE).read_bytes())
            samples = (path / spec.SAMPLES_FILE).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreNotFoundError(
                f"store {str(path)!r}: no {Path(error.filename).name!r}, so there is no store here"
            ) from None
        if manifest.state is State.BUILDING:
            _require_as_begun(path)
        table = sample_tables.from_parquet(samples, sample_tables.SCHEMA)
        if len(table) != manifest.num_samples:
            raise FormatError(
                f"sample table: {len(table)} rows, expected {manifest.num_samples} as the manifest says"
            )
        return cls(path, manifest, table)

    def damaged_parts(self) -> dict[int, str]:
        """Return the finished parts whose files are not what was written, and what is wrong with each.

        Of a finished store only the sizes are compared; reading it compares the digests.
        """
        found = {}
        for part, record in self.records().items():
            files = dict(record.files)
            if (self.path / facts_path(part)).exists() or not self._is_merged(part):
                files[facts_path(part)] = record.facts
            for name, entry in files.items():
                try:
                    if self.is_complete:
                        require_size(self.path / name, name, entry)
                    else:
                        require_entry(self.path / name, name, entry)
                except DamagedFileError as error:
                    found[part] = str(error)
        return found

    def records(self) -> dict[int, PartRecord]:
        """Return the records of the parts that are finished now."""
        found = read_journal(self.path)[0]
        return {part: record for part, record in found.items() if is_part_of(record, self.manifest)}

    @property
    def is_complete(self) -> bool:
        """Whether the store is finished."""
        return (self.path / spec.COMPLETE_FILE).exists()

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
        self._require_fitting(part, labels)
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
        with hold_lock(self.path / spec.RUNNING_DIR / f"{spec.part_name(part)}.lock", wait=True):
            return self._commit(record, contents | {mtimes_path(part): labels.mtimes_ns.tobytes()})

    def _require_fitting(self, part: int, labels: PartLabels) -> None:
        """Check the labels of a part against the format: what is wrong here is wrong for years."""
        label_map, rows = self.manifest.label_map, self.manifest.rows_of_part(part)
        if not 0 <= part < self.manifest.num_parts:
            raise ValueError(f"part {part}: expected 0 to {self.manifest.num_parts - 1}")
        if (labels.rest is None) != (label_map.absent is AbsentRule.ZERO):
            raise ValueError(f"part {part}: rest does not fit absent = {label_map.absent.value!r}")
        arrays = {spec.INDICES: labels.indices, spec.VALUES: labels.values, spec.REST: labels.rest}
        for name, array in array_specs(self.manifest).items():
            found = arrays[name]
            expected = (len(rows), *array.shape[1:])
            if found is None or found.shape != expected or found.dtype != array.dtype:
                raise ValueError(f"part {part}: {name} do not have dtype {array.dtype} and shape {expected}")
        statuses = labels.facts["status"].to_pylist()
        bad = [row for row, status in zip(rows, statuses, strict=True) if status == Status.BAD_IMAGE.value]
        if set(statuses) - {Status.LABELLED.value, Status.BAD_IMAGE.value}:
            raise ValueError(f"part {part}: statuses {sorted(set(statuses))}")
        if sorted(image.row for image in labels.bad_images) != bad:
            raise ValueError(f"part {part}: bad images do not fit the statuses, {bad}")
        good = labels.is_labelled
        indices, values = labels.indices[good], labels.values[good]
        if indices.size and int(indices.max()) >= label_map.num_classes:
            raise ValueError(
                f"part {part}: class index {indices.max()}, expected below {label_map.num_classes}"
            )
        if not is_sorted(indices, values).all() or not np.isfinite(values).all():
            raise ValueError(f"part {part}: ranks are not in stored order, or not finite")
        if label_map.k > 1 and np.any(np.diff(np.sort(indices, axis=1).astype(np.int64), axis=1) == 0):
            raise ValueError(f"part {part}: a class twice in a cell")
        step = label_map.value_step
        if not isinstance(step, str) and np.any(values.astype(np.float32) % step):
            raise ValueError(f"part {part}: values are no multiples of value step {step}")
        rest = labels.rest if label_map.k < label_map.num_classes else None
        if rest is not None and not np.isfinite(rest[good]).all():
            raise ValueError(f"part {part}: rest is not finite")

    def _encode(self, part: int, labels: PartLabels) -> dict[str, bytes]:
        is_labelled = labels.is_labelled
        contents = {}
        arrays = {spec.INDICES: labels.indices, spec.VALUES: labels.values, spec.REST: labels.rest}
        for name, array in array_specs(self.manifest).items():
            rows = np.full((len(is_labelled), *array.shape[1:]), array.fill_value, array.dtype)
            found = arrays[name]
            assert found is not None
            rows[is_labelled] = found[is_labelled]
            contents[array.shard_path(part)] = encode_shard(array, rows)
        counts = self._count(part, labels.indices, labels.values, labels.rest, is_labelled)
        facts = labels.facts.replace_schema_metadata({_COUNTS_KEY: canonical_json(counts.to_json())})
        contents[facts_path(part)] = sample_tables.to_parquet(facts)
        return contents

    def _count(
        self,
        part: int,
        indices: IndexArray,
        values: NDArray[np.float16],
        rest: NDArray[np.float16] | None,
        is_labelled: NDArray[np.bool_],
    ) -> Counts:
        rows = self.manifest.rows_of_part(part)
        classes = (
            self.samples["class_index"].slice(rows.start, len(rows)).fill_null(-1).to_numpy().astype(np.int64)
        )
        return Counts.of(
            indices[is_labelled],
            values[is_labelled],
            None if rest is None else rest[is_labelled],
            classes[is_labelled],
            num_classes=self.manifest.label_map.num_classes,
        )

    def _commit(self, record: PartRecord, contents: Mapping[str, bytes]) -> PartRecord:
        existing = self.records().get(record.part)
        if existing is not None:
            if self.is_complete:
                self.remove_locks()
            return existing
        try:
            self._write(contents)
            if create_file(self.path / record_path(record.part), record.to_bytes()):
                return record
        except FileNotFoundError:
            # Another host finished the store and swept our half-written file away.
            if record.part not in self.records():
                raise
        winner = self.records().get(record.part)
        if winner == record:
            if self.is_complete:
                self._clean()
            return winner
        # A process of another host, where the lock does not reach, committed other bytes between our
        # look and our record. Whose files lie there now is unknown, so ours are written again; a store
        # that was finished with theirs has to be finished again.
        if self.is_complete:
            self.drop_parts([])
        self._write(contents)
        write_file(self.path / record_path(record.part), record.to_bytes())
        return record

    def _write(self, contents: Mapping[str, bytes]) -> None:
        for name, data in contents.items():
            write_file(self.path / name, data)

    def drop_parts(self, parts: Iterable[int]) -> None:
        """Forget finished parts, so that they are built again; a finished store becomes unfinished."""
        if self.manifest.state is State.COMPLETE or self.is_complete:
            (self.path / spec.COMPLETE_FILE).unlink(missing_ok=True)
            sync_directory(self.path)
            (self.path / _BEGUN_FILE).unlink(missing_ok=True)  # the manifest is another now
            self.manifest = self.manifest.reopened()
            self._write_group(is_consolidated=False)
        for part in parts:
            (self.path / record_path(part)).unlink(missing_ok=True)
            (self.path / facts_path(part)).unlink(missing_ok=True)
        if (self.path / spec.JOURNAL_DIR).is_dir():
            sync_directory(self.path / spec.JOURNAL_DIR)

    def _write_group(self, *, is_consolidated: bool) -> None:
        document = group_document(self.manifest, is_consolidated=is_consolidated)
        write_file(self.path / spec.GROUP_FILE, canonical_json(document))

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
        finished = read_completion(self.path)
        if finished is not None:
            self._reload()
            return finished
        with hold_lock(self.path / spec.RUNNING_DIR / "complete.lock", wait=True):
            finished = read_completion(self.path)
            if finished is not None:
                self.remove_locks()  # made again by us, who waited for whoever finished the store
                self._reload()
                return finished
            records = self.records()
            missing = [part for part in range(self.manifest.num_parts) if part not in records]
            if missing:
                raise FormatError(f"store: {len(missing)} of {self.manifest.num_parts} parts are not built")
            facts = {part: self._facts_of(record) for part, record in records.items()}
            # Facts go only after the merged table and the manifest are in place: whoever finds them gone
            # finds these there, and what we read when we began is old.
            self._reload()
            self._require_merged(facts)
            self._merge(records, facts)
            self._clean()
            completion = self._commit_whole(records)
            self.remove_locks()  # of whoever came in between
            return completion

    def _reload(self) -> None:
        now = StoreWriter.resume(self.path)
        self.manifest, self.samples = now.manifest, now.samples

    def _is_merged(self, part: int) -> bool:
        """Tell whether the sample table holds what was found out about the images of a part."""
        rows = self.manifest.rows_of_part(part)
        return Status.MISSING.value not in self.samples["status"].slice(rows.start, len(rows)).to_pylist()

    def _require_merged(self, facts: Mapping[int, pa.Table | None]) -> None:
        for part, found in facts.items():
            if found is None and not self._is_merged(part):
                raise DamagedFileError(
                    f"store file {facts_path(part)!r}: missing; remove {record_path(part)!r} to build the part again"
                )

    def _facts_of(self, record: PartRecord) -> pa.Table | None:
        path = facts_path(record.part)
        if not (self.path / path).exists():
            return None
        # Read without a schema cast, which would drop the counts in the metadata.
        data = read_verified(self.path / path, path, record.facts)
        return pq.read_table(pa.BufferReader(data))

    def _merge(self, records: Mapping[int, PartRecord], facts: Mapping[int, pa.Table | None]) -> None:
        if self.manifest.state is State.COMPLETE and all(found is None for found in facts.values()):
            return  # a crash came after the merge, and only cleaning up is left
        (self.path / _BEGUN_FILE).unlink(
            missing_ok=True
        )  # what follows changes both files that it vouches for
        sync_directory(self.path)
        self.samples = sample_tables.with_facts(self.samples, facts, self.manifest.layout.shard_rows)
        counts = (self._counts_of(record, facts[part]) for part, record in sorted(records.items()))
        statistics = Counts.total(counts, self.manifest.label_map.num_classes).summary(
            bad_images=sum(len(record.bad_images) for record in records.values()),
            exif_oriented=sum(record.exif_oriented for record in records.values()),
        )
        write_file(self.path / spec.SAMPLES_FILE, sample_tables.to_parquet(self.samples))
        self.manifest = self.manifest.completed(statistics)
        self._write_group(is_consolidated=True)

    def _counts_of(self, record: PartRecord, facts: pa.Table | None) -> Counts:
        if facts is not None:
            document: dict[str, Any] = json.loads(facts.schema.metadata[_COUNTS_KEY])
            return Counts.from_json(document)
        # The part was merged before, then another one was built again: count it anew.
        for name, entry in record.files.items():
            require_entry(self.path / name, name, entry)
        arrays = ZarrArrays(self.path, self.manifest)
        read = {name: arrays.read(name, record.rows) for name in arrays.specs}
        statuses = self.samples["status"].slice(record.rows.start, len(record.rows)).to_numpy()
        return self._count(
            record.part,
            read[spec.INDICES],  # type: ignore[arg-type]  # the array specs give the dtypes
            read[spec.VALUES],  # type: ignore[arg-type]
            read.get(spec.REST),  # type: ignore[arg-type]
            statuses == Status.LABELLED.value,
        )

    def _clean(self) -> None:
        """Remove everything that a finished store does not hold."""
        journal = self.path / spec.JOURNAL_DIR
        for slice_file in journal.glob("part-*.parquet"):
            slice_file.unlink(missing_ok=True)
        remove_partials(self.path)
        self.remove_locks()
        sync_directory(journal)

    def _commit_whole(self, records: Mapping[int, PartRecord]) -> Completion:
        files = {name: entry for record in records.values() for name, entry in record.files.items()}
        names = [spec.GROUP_FILE, spec.SAMPLES_FILE]
        names += [f"{array}/{spec.GROUP_FILE}" for array in array_specs(self.manifest)]
        names += [record_path(part) for part in records]
        for name, document in array_documents(self.manifest).items():
            write_file(self.path / name / spec.GROUP_FILE, canonical_json(document))
        files.update((name, FileEntry.of_file(self.path / name)) for name in names)
        completion = Completion(files=files, parts=records)
        write_file(self.path / spec.COMPLETE_FILE, completion.to_bytes())
        return completion

    def remove_locks(self) -> None:
        """Remove the lock files, which a finished store does not hold."""
        shutil.rmtree(self.path / spec.RUNNING_DIR, ignore_errors=True)

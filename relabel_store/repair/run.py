"""repair_store: a damaged store made whole, and nothing else in it touched."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from relabel_store import spec
from relabel_store.errors import DamagedFileError, ImagesChangedError, OptionError, StoreNotFoundError
from relabel_store.generate.limit import LimitedImages
from relabel_store.generate.observer import BuildObserver
from relabel_store.images.recognise import open_images
from relabel_store.images.source import ImageSource
from relabel_store.manifest import Manifest, State
from relabel_store.repair.damage import find_damage
from relabel_store.repair.damaged_completion import digest_in, read_damaged, salvage_store
from relabel_store.repair.documents import mend_documents, mend_fixed_files, mend_manifest
from relabel_store.repair.lost_completion import require_nothing_else_wrong
from relabel_store.repair.report import Remedy, RepairedPart, RepairReport
from relabel_store.repair.samples import open_writer
from relabel_store.store.complete import Completion, read_completion
from relabel_store.store.dropped import without_labels
from relabel_store.store.encodings import ENCODINGS, encoding_of, read_manifest
from relabel_store.store.files import StoreFiles
from relabel_store.store.journal import PartRecord
from relabel_store.store.location import open_files
from relabel_store.store.locks import hold_lock
from relabel_store.store.samples import to_parquet
from relabel_store.store.writer import StoreWriter
from relabel_store.validate.run import validate_store

if TYPE_CHECKING:
    from relabel_store.generate.teacher import Teacher

log = logging.getLogger("relabel_store.repair")


def repair_store(
    location: str | os.PathLike[str] | StoreFiles,
    *,
    images: str | os.PathLike[str] | ImageSource | None = None,
    drop: bool = False,
    teacher: str | Teacher | None = None,
    weights: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    observer: BuildObserver | None = None,
) -> RepairReport:
    """Make again what is damaged of a store, and say what was done.

    A part is labelled again with the recorded teacher and settings; where its files come out as they were recorded,
    the store is the same as before, to its digest. A file that describes the store is made from the others, and taken
    only if it is byte for byte the recorded one. A repair that was stopped goes on when it is run again.

    Parameters
    ----------
    location
        A directory, or a URL as text.
    images
        Those that were labelled, as for `build`. Without them only files that describe the store are made again.
    drop
        Do not label damaged parts again: make all their rows ``missing``. `images` then only tell the names of
        samples, and only where nothing else does.
    teacher
        ``module:factory`` or the object, of a store whose teacher is not known by name; None is the recorded name.
    weights
        The file of the teacher's weights, if the store records a file.
    workers
        Processes that decode images; None chooses by the device.
    observer
        Is told of the labelling.

    Raises
    ------
    StoreNotFoundError, UnsupportedVersionError, UnknownEncodingError
        There is no store there that this release reads.
    DamagedFileError
        Something is damaged that nothing else in the store holds, or the samples of a part cannot be told.
    ImagesChangedError
        The images are not those that were labelled.
    TeacherError, WeightsError
        The recorded teacher cannot be had, or is another one.
    StoreBusyError
        Another process of this host repairs the store.
    OptionError
        A teacher without images, or with `drop`.
    """
    if (drop or images is None) and (teacher is not None or weights is not None):
        why = "with drop, which labels nothing" if drop else "without images to label"
        raise OptionError(f"teacher, weights: given {why}")
    repair = _Repair(
        files=open_files(location),
        images=images,
        drop=drop,
        teacher=teacher,
        weights=None if weights is None else Path(weights),
        workers=workers,
        observer=observer or BuildObserver(),
    )
    return repair.run(str(location) if isinstance(location, str | os.PathLike) else location.location)


@dataclass(frozen=True)
class _Repair:
    files: StoreFiles
    images: str | os.PathLike[str] | ImageSource | None
    drop: bool
    teacher: str | Teacher | None
    weights: Path | None
    workers: int | None
    observer: BuildObserver

    def run(self, location: str) -> RepairReport:
        completion = self._read_completion()
        is_root_lost = completion is None and self._was_finished()
        if completion is None:
            damaged = read_damaged(self.files)
            digest = digest_in(damaged)
            written, parts = self._mend_unfinished(damaged)
        else:
            digest = completion.digest
            written, parts = self._mend_finished(completion)
        left = validate_store(self.files)
        return RepairReport(
            location=location,
            digest_before=digest,
            digest_after=left.digest,
            is_root_new=is_root_lost and spec.COMPLETE_FILE in written and digest != left.digest,
            files=tuple(sorted(written)),
            parts=tuple(parts),
            left=tuple(
                finding.message for group in left.groups for finding in group.findings if group.is_error
            ),
        )

    def _was_finished(self) -> bool:
        if self.files.size(spec.COMPLETE_FILE) is not None:
            return True
        manifest = read_manifest(self.files, None)
        return manifest is not None and manifest.state is State.COMPLETE

    def _read_completion(self) -> Completion | None:
        try:
            return read_completion(self.files)
        except DamagedFileError as error:
            log.warning("%s", error)
            return None

    def _mend_finished(self, completion: Completion) -> tuple[list[str], list[RepairedPart]]:
        damage = find_damage(self.files, completion)
        is_left_over = bool(self.files.listing(spec.RUNNING_DIR, deep=True))  # of a repair that was killed
        if not damage and not is_left_over:
            return [], []
        with self._alone():
            manifest = mend_manifest(self.files, completion, damage.documents)
            encoding = encoding_of(manifest)
            written = [name for name in damage.documents if name == encoding.manifest_file]
            written += mend_documents(
                self.files,
                completion,
                manifest,
                damage.documents,
                None if self.images is None else self._make_samples,
            )
            lacks_samples = encoding.samples_file in set(damage.documents) - set(written)
            if not damage.parts or lacks_samples or not (self.drop or self.images is not None):
                return written, []
            writer = open_writer(self.files, manifest, damage.parts, self._source_for(manifest))
            return written, self._mend_parts(writer, damage.parts, completion.parts)

    def _mend_unfinished(self, damaged_completion: bytes) -> tuple[list[str], list[RepairedPart]]:
        """Finish a store that is being built, or whose ``complete.json`` was lost: its journal says what there is.

        Where it has no journal, the part records in what is left of ``complete.json`` say it.
        """
        manifest, salvage = read_manifest(self.files, None), None
        if manifest is None:
            self._require_completion()
            salvage = salvage_store(self.files, damaged_completion)
            manifest = salvage.manifest
        if manifest.state is State.COMPLETE:
            require_nothing_else_wrong(self.files, manifest)
        with self._alone():
            if salvage is not None:
                salvage.open_again(self.files)
            # Where it is there it is damaged, and the journal holds all that it told of parts.
            self.files.remove([spec.COMPLETE_FILE])
            written = mend_fixed_files(self.files, manifest)
            writer = StoreWriter.resume(self.files)
            recorded = writer.records()
            damaged = {part: what.partition(";")[0] for part, what in writer.damaged_parts().items()}
            damaged |= {part: f"part {part}: has no record" for part in writer.missing_parts()}
            if damaged and not (self.drop or self.images is not None):
                return written, []
            parts = self._mend_parts(writer, dict(sorted(damaged.items())), recorded) if damaged else []
            writer.complete()
            return [*written, spec.COMPLETE_FILE], parts

    def _require_completion(self) -> None:
        """Check that there is something left to go by."""
        if self.files.size(spec.COMPLETE_FILE) is not None:
            return
        kinds = [encoding for encoding in ENCODINGS.values() if encoding.is_self_contained]
        if any(kind.is_ours(name) for name in self.files.children() for kind in kinds):
            raise StoreNotFoundError(
                f"store {self.files.location!r}: files of parts without {spec.COMPLETE_FILE!r}, which alone holds the "
                "part records: why images are bad, how many have an EXIF orientation, the digests of facts; restore it "
                "from a copy, or build into another path"
            )
        raise StoreNotFoundError(
            f"store {self.files.location!r}: {self.files.describe()}, expected a store made by `relabel-store build`"
        )

    def _mend_parts(
        self, writer: StoreWriter, damaged: Mapping[int, str], recorded: Mapping[int, PartRecord]
    ) -> list[RepairedPart]:
        mended = self._drop(writer, damaged) if self.drop else self._label(writer, list(damaged), recorded)
        found = [
            RepairedPart(part, writer.manifest.rows_of_part(part), damaged[part], remedy)
            for part, remedy in mended
        ]
        writer.complete()
        return found

    def _label(
        self, writer: StoreWriter, parts: Sequence[int], recorded: Mapping[int, PartRecord]
    ) -> Iterator[tuple[int, Remedy]]:
        from relabel_store.repair.label import label_again  # which loads torch

        source = self._source_for(writer.manifest)
        assert source is not None
        self.observer.on_images(source)
        return label_again(
            writer,
            source,
            parts,
            recorded,
            teacher=self.teacher,
            weights=self.weights,
            workers=self.workers,
            observer=self.observer,
        )

    def _drop(self, writer: StoreWriter, damaged: Mapping[int, str]) -> Iterator[tuple[int, Remedy]]:
        writer.drop_parts(damaged)
        for part, what in damaged.items():
            rows = writer.manifest.rows_of_part(part)
            samples = writer.samples.slice(rows.start, len(rows))
            writer.write_part(
                part, without_labels(writer.manifest, part, samples, f"dropped by a repair: {what}")
            )
            yield part, Remedy.DROPPED

    def _make_samples(self, manifest: Manifest) -> bytes:
        from relabel_store.generate.look import looked_at_samples  # which loads torch

        source = self._source_for(manifest)
        assert source is not None
        return to_parquet(looked_at_samples(manifest, source, workers=self.workers or 0))

    def _source_for(self, manifest: Manifest) -> ImageSource | None:
        """Return the images of the store: of more, those that a limit had left."""
        source = self._source
        if source is not None and len(source) < manifest.num_samples:
            raise ImagesChangedError(
                f"images {source.name!r}: {len(source)}, expected {manifest.num_samples} as the store records; give "
                "all that were labelled"
            )
        if source is None or len(source) == manifest.num_samples:
            return source
        return LimitedImages(source, manifest.num_samples)

    @cached_property
    def _source(self) -> ImageSource | None:
        images = self.images
        return (
            open_images(images, beside=self.files.path) if isinstance(images, str | os.PathLike) else images
        )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other repairs of this host away; leave nothing of ours in a store that is finished."""
        path = self.files.path
        busy = f"store {self.files.location!r}: another process is repairing it; wait for it"
        with (
            contextlib.nullcontext()  # nobody can be kept from it there
            if path is None
            else hold_lock(path / spec.RUNNING_DIR / "repair.lock", busy=busy)
        ):
            try:
                yield
            finally:
                self._tidy()

    def _tidy(self) -> None:
        completion = self._read_completion()
        if completion is not None:
            is_self_contained = completion.manifest is not None
            self.files.remove_folder(spec.JOURNAL_DIR if is_self_contained else spec.RUNNING_DIR)
            self.files.sweep()

"""Converting labels into a layout of others: beside its final name until all of it is there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from relabel_store import spec
from relabel_store.canonical import canonical_json, digest_of, read_json
from relabel_store.convert.observer import ConversionObserver
from relabel_store.convert.source import LabelSource
from relabel_store.convert.target import LabelTarget
from relabel_store.convert.workers import each_part
from relabel_store.errors import SettingsChangedError, TargetExistsError
from relabel_store.manifest import Encoding, Manifest
from relabel_store.store.disk import explaining
from relabel_store.store.journal import BadImage
from relabel_store.store.local_files import create_file, sync_directory
from relabel_store.store.locks import hold_lock
from relabel_store.store.part_labels import count_labels, require_fitting
from relabel_store.store.samples import with_facts
from relabel_store.store.statistics import Counts

_IDENTITY_FILE = "identity"
_CONTENT = "content"


@dataclass(frozen=True)
class Outcome:
    """What a conversion into files has to say.

    Attributes
    ----------
    without_label
        Rows that have none.
    notes
        What users of the layout should know, a sentence each.
    """

    without_label: list[BadImage]
    notes: tuple[str, ...]


def convert_into_files(
    source: LabelSource,
    path: Path,
    form: str,
    make_target: Callable[[Path], LabelTarget],
    *,
    workers: int,
    observer: ConversionObserver,
) -> Outcome:
    """Write labels in a layout of others, or go on where an earlier attempt was stopped.

    Parameters
    ----------
    path
        Where the file or folder is to be; it appears there whole. Until then it grows in ``.NAME.converting`` beside.
    make_target
        Called with the path where the layout grows.
    workers
        Processes that read and write parts; 1 does it in this one.

    Raises
    ------
    TargetExistsError
        Something is at the path already.
    OptionError
        The layout cannot hold these labels.
    SettingsChangedError
        Another conversion was begun there.
    StoreBusyError
        Another process of this host is at it.
    EngineError
        A worker was killed.
    """
    workshop = path.with_name(f".{path.name}.converting")
    if workshop.is_dir() and path.exists() and not (workshop / _CONTENT).exists():
        return _clear_up(source, form, workshop, path)
    _require_free(path)
    was_there = workshop.exists()
    with explaining(f"output {str(path)!r}"), hold_lock(workshop / "lock", busy=_busy(path)):
        _require_free(path)
        try:
            _require_same_conversion(source, form, workshop, path)
            target = make_target(workshop / _CONTENT)
            outcome = _write(source, target, workshop, workers=workers, observer=observer)
        except BaseException:
            if not was_there and not any(workshop.glob("part-*")) and not (workshop / _CONTENT).exists():
                shutil.rmtree(workshop)  # refused before anything was written
            raise
        (workshop / _CONTENT).rename(path)
        sync_directory(path.parent)
        _remove_workshop(workshop)
    return outcome


def _clear_up(source: LabelSource, form: str, workshop: Path, path: Path) -> Outcome:
    """Remove what is left of an attempt that was stopped when everything was in place; return what it had to say.

    Raises
    ------
    TargetExistsError
        What is in place was made from other labels, or nothing says from which.
    """
    with explaining(f"output {str(path)!r}"), hold_lock(workshop / "lock", busy=_busy(path)):
        file = workshop / _IDENTITY_FILE
        is_ours = file.exists() and file.read_bytes() == _identity(source, form)
        _remove_workshop(workshop)
    if not is_ours:
        _require_free(path)
    parts = range(source.manifest.num_parts)
    return Outcome([bad for part in parts for bad in source.read_part(part).bad_images], notes=())


def _remove_workshop(workshop: Path) -> None:
    """Remove it, last what says whose it was."""
    for leftover in workshop.iterdir():
        if leftover.name not in (_IDENTITY_FILE, "lock"):
            _remove(leftover)
    (workshop / _IDENTITY_FILE).unlink(missing_ok=True)
    shutil.rmtree(workshop)


def _busy(path: Path) -> str:
    return f"output {str(path)!r}: another process is converting into it; wait for it, or choose another path"


def _identity(source: LabelSource, form: str) -> bytes:
    return digest_of(canonical_json({"form": form, "manifest": source.manifest.to_dict()})).encode()


def _require_free(path: Path) -> None:
    if os.path.lexists(path):
        raise TargetExistsError(
            f"output {str(path)!r}: is there already, expected a path that is free; remove it, or choose another"
        )
    if not path.parent.is_dir():
        raise TargetExistsError(
            f"output {str(path)!r}: there is no folder {str(path.parent)!r}; make it first"
        )


def _require_same_conversion(source: LabelSource, form: str, workshop: Path, path: Path) -> None:
    identity = _identity(source, form)
    file = workshop / _IDENTITY_FILE
    if not create_file(file, identity) and file.read_bytes() != identity:
        raise SettingsChangedError(
            f"output {str(path)!r}: a conversion of other labels, or into another form, was begun in "
            f"{workshop.name!r}; run the command that it was begun with, or remove that folder"
        )


def _write(
    source: LabelSource, target: LabelTarget, workshop: Path, *, workers: int, observer: ConversionObserver
) -> Outcome:
    manifest = source.manifest
    write_part = _WritePart(source, target, workshop)
    parts = list(range(manifest.num_parts))
    if target.is_sequential:
        workers = 1
        _remove(workshop / _CONTENT)
        for part in parts:
            write_part.marker(part).unlink(missing_ok=True)
    missing = [part for part in parts if not write_part.marker(part).exists()]
    left = sum(len(manifest.rows_of_part(part)) for part in missing)
    observer.on_start(manifest.num_samples, manifest.num_samples - left)
    with explaining(f"writing {workshop.name!r}"):
        notes = tuple(target.begin(source))
    for written in each_part(write_part, missing, workers):
        observer.on_part(written)
    records = [write_part.read_marker(part) for part in parts]
    with explaining(f"writing {workshop.name!r}"):
        target.finish(_completed(manifest, records))
    return Outcome([bad for record in records for bad in record.without_label], notes)


def _completed(manifest: Manifest, records: list[_Record]) -> Manifest:
    counts = Counts.total((record.counts for record in records), manifest.label_map.num_classes)
    statistics = counts.summary(
        bad_images=sum(len(record.without_label) for record in records),
        exif_oriented=sum(record.exif_oriented for record in records),
    )
    # In which encoding the labels lay is nothing that these files know of.
    return replace(manifest.completed(statistics), encoding=Encoding())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


@dataclass(frozen=True)
class _Record:
    """What is known of a part once it is written."""

    without_label: list[BadImage]
    exif_oriented: int
    counts: Counts

    def to_bytes(self) -> bytes:
        without_label = [[bad.row, bad.reason] for bad in self.without_label]
        return canonical_json(
            {
                "without_label": without_label,
                "exif_oriented": self.exif_oriented,
                "counts": self.counts.to_json(),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> _Record:
        document = read_json(data)
        without_label = [BadImage(row, reason) for row, reason in document["without_label"]]
        return cls(without_label, document["exif_oriented"], Counts.from_json(document["counts"]))


class _WritePart:
    """Reads a part, writes it, and marks it as written."""

    def __init__(self, source: LabelSource, target: LabelTarget, workshop: Path) -> None:
        self._source, self._target, self._workshop = source, target, workshop
        self._samples = source.samples

    def marker(self, part: int) -> Path:
        """Return the file that says that a part is written."""
        return self._workshop / spec.part_name(part)

    def __call__(self, part: int) -> int:
        manifest = self._source.manifest
        rows, labels = manifest.rows_of_part(part), self._source.read_part(part)
        require_fitting(manifest, part, labels)
        planned = self._samples.slice(rows.start, len(rows))
        samples = with_facts(planned, {0: labels.facts}, max(len(rows), 1))
        with explaining(f"writing {spec.part_name(part)!r}"):
            self._target.write_part(manifest, part, samples, labels)
        counts = count_labels(manifest, labels.arrays, labels.is_labelled, samples)
        record = _Record(list(labels.bad_images), labels.exif_oriented, counts)
        create_file(self.marker(part), record.to_bytes())
        return len(rows)

    def read_marker(self, part: int) -> _Record:
        """Return what is known of a written part."""
        return _Record.from_bytes(self.marker(part).read_bytes())

"""Converting labels into a store: parts by several processes, each committed when it is done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from relabel_store import spec
from relabel_store.convert.observer import ConversionObserver
from relabel_store.convert.source import LabelSource
from relabel_store.convert.workers import each_part
from relabel_store.errors import SettingsChangedError
from relabel_store.manifest import Encoding
from relabel_store.store.files import StoreFiles
from relabel_store.store.journal import PartRecord
from relabel_store.store.locks import hold_lock
from relabel_store.store.occupied import is_store, require_free_target
from relabel_store.store.writer import StoreWriter


def convert_into_store(
    source: LabelSource,
    files: StoreFiles,
    encoding: Encoding,
    *,
    workers: int,
    observer: ConversionObserver,
) -> StoreWriter:
    """Write labels as a store, or go on where an earlier attempt was stopped; return its writer, finished.

    Parameters
    ----------
    workers
        Processes that read and write parts; 1 does it in this one.

    Raises
    ------
    SettingsChangedError
        Another conversion was begun there.
    StoreBusyError
        Another process of this host is at it.
    EngineError
        A worker was killed.
    """
    require_free_target(files)
    with _alone(files):
        writer = _open_writer(files, source, encoding)
        missing = _missing_parts(writer)
        manifest = writer.manifest
        left = sum(len(manifest.rows_of_part(part)) for part in missing)
        observer.on_start(manifest.num_samples, manifest.num_samples - left)
        for record in each_part(_ConvertPart(source, files), missing, workers):
            observer.on_part(len(record.rows))
        writer.complete()
    return writer


class _ConvertPart:
    """Reads a part and writes it."""

    def __init__(self, source: LabelSource, files: StoreFiles) -> None:
        self._source, self._files = source, files
        self._writer: StoreWriter | None = None

    def __call__(self, part: int) -> PartRecord:
        if self._writer is None:
            self._writer = StoreWriter.resume(self._files)
        return self._writer.write_part(part, self._source.read_part(part))


@contextlib.contextmanager
def _alone(files: StoreFiles) -> Iterator[None]:
    if files.path is None:  # nobody can be kept from it there, and the work of two is harmless
        yield
        return
    was_there = files.path.exists()
    busy = f"store {files.location!r}: another process is converting into it; wait for it, or choose another path"
    try:
        with hold_lock(files.path / spec.RUNNING_DIR / "convert.lock", busy=busy):
            yield
    finally:
        if files.size(spec.COMPLETE_FILE) is not None:
            files.remove_folder(spec.RUNNING_DIR)
            _remove_empty(files, spec.JOURNAL_DIR)
        elif not was_there and not is_store(files):  # refused before it was begun
            files.remove_folder(spec.RUNNING_DIR)
            _remove_empty(files, spec.JOURNAL_DIR, "")


def _remove_empty(files: StoreFiles, *folders: str) -> None:
    assert files.path is not None
    with contextlib.suppress(OSError):
        for folder in folders:
            (files.path / folder).rmdir()


def _open_writer(files: StoreFiles, source: LabelSource, encoding: Encoding) -> StoreWriter:
    manifest = replace(source.manifest, encoding=encoding)
    if not is_store(files):
        return StoreWriter.begin(files, manifest, source.samples)
    writer = StoreWriter.resume(files, source.samples)
    found = writer.manifest.reopened().to_dict()
    differing = list(_differences(found, manifest.to_dict()))
    if differing:
        raise SettingsChangedError(
            f"store {files.location!r}: holds other labels: {', '.join(differing)}; run the command that it was begun "
            "with, or choose a path that is free"
        )
    return writer


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words which fields are others, with what they hold where that is short."""
    for name, value in wanted.items():
        there = found.get(name)
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            yield from (f"{name}.{difference}" for difference in _differences(there, value))
        elif there != value:
            is_short = not isinstance(value, list | Mapping) and not isinstance(there, list | Mapping)
            yield f"{name} {there!r}, expected {value!r}" if is_short else name


def _missing_parts(writer: StoreWriter) -> list[int]:
    damaged = list(writer.damaged_parts())
    if damaged:
        writer.drop_parts(damaged)
    return [] if writer.is_complete else writer.missing_parts()

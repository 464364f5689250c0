"""Labelling damaged parts again with the recorded teacher, images and settings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from relabel_store.errors import DamagedFileError, ImagesChangedError, TeacherError
from relabel_store.generate.arithmetic import fixed_arithmetic
from relabel_store.generate.device import choose_device, default_workers
from relabel_store.generate.observer import BuildObserver
from relabel_store.generate.part import PartLabeller
from relabel_store.generate.precision import Precision
from relabel_store.generate.recorded import load_recorded_teacher, require_built
from relabel_store.generate.resume import require_same_images
from relabel_store.generate.teacher import Teacher, compile_teacher, probe_grid
from relabel_store.images.source import ImageSource
from relabel_store.repair.report import Remedy
from relabel_store.store.files import FileEntry, require_entry
from relabel_store.store.journal import PartRecord
from relabel_store.store.part_labels import PartLabels, encode_part
from relabel_store.store.writer import StoreWriter


def label_again(
    writer: StoreWriter,
    source: ImageSource,
    parts: Sequence[int],
    recorded: Mapping[int, PartRecord],
    *,
    teacher: str | Teacher | None,
    weights: Path | None,
    workers: int | None,
    observer: BuildObserver,
) -> Iterator[tuple[int, Remedy]]:
    """Label parts of a store and put their files in place, one after the other.

    Parameters
    ----------
    recorded
        What their files were, as far as that is known.
    teacher, weights
        As for `load_recorded_teacher`.
    workers
        Processes that decode images; None chooses by the device.

    Raises
    ------
    ImagesChangedError
        The images are not those that were labelled.
    TeacherError, WeightsError
        The recorded teacher cannot be had, or another one was given.
    """
    manifest = writer.manifest
    require_built(manifest)
    require_same_images(writer, source)
    _require_recorded_images(writer, source, parts)
    loaded = load_recorded_teacher(manifest, teacher=teacher, weights=weights)
    assert manifest.build is not None
    device = choose_device(manifest.teacher.device)
    loaded.to(device)
    grid = probe_grid(loaded, device)
    if grid != manifest.label_map.grid:
        raise TeacherError(f"teacher {loaded.facts.name!r}: grid {grid}, recorded {manifest.label_map.grid}")
    if manifest.build.is_compiled:
        compile_teacher(loaded, device, Precision(manifest.teacher.precision), manifest.build.batch_size)
    observer.on_teacher(manifest.teacher)
    rows = sum(len(manifest.rows_of_part(part)) for part in parts)
    observer.on_start(samples=rows, finished_samples=0, parts=len(parts))
    labeller = PartLabeller(loaded, source, writer, device=device, on_batch=observer.on_batch)
    decoders = default_workers(device) if workers is None else workers
    with fixed_arithmetic(labeller.threads):
        for labels in labeller.label_parts(parts, workers=decoders):
            yield (
                labels.part,
                put_in_place(writer, labels.part, labeller.encode(labels), recorded.get(labels.part)),
            )


def put_in_place(writer: StoreWriter, part: int, labels: PartLabels, recorded: PartRecord | None) -> Remedy:
    """Write the files of a part again; only what differs from its record is touched.

    Where other bytes came out than those recorded, the store is opened again, and has another identity when it is
    finished.

    Raises
    ------
    TeacherError
        Other bytes came out, and nothing but the bytes could have shown that it is the same teacher.
    """
    rows = writer.manifest.rows_of_part(part)
    samples = writer.samples.slice(rows.start, len(rows))
    contents = encode_part(writer.manifest.reopened(), part, labels, samples)
    entries = {name: FileEntry.of_bytes(data) for name, data in contents.items()}
    is_same = recorded is not None and entries == recorded.files
    if is_same and writer.is_complete:
        for name, data in contents.items():
            if not _is_there(writer, name, entries[name]):
                writer.files.write(name, data)
        return Remedy.RESTORED
    if recorded is not None:
        if not is_same and writer.manifest.teacher.weights.digest is None:
            raise TeacherError(
                f"teacher {writer.manifest.teacher.name!r}: gives other labels for part {part} than those recorded, "
                "and has no digest of weights that would show it to be the same on another device or version; give the "
                "one that the store was built with, or drop the part"
            )
        writer.drop_parts([part])
    writer.write_part(part, labels)
    return Remedy.RESTORED if is_same else Remedy.RELABELLED


def _is_there(writer: StoreWriter, name: str, entry: FileEntry) -> bool:
    with suppress(DamagedFileError):
        require_entry(writer.files, name, entry)
        return True
    return False


def _require_recorded_images(writer: StoreWriter, source: ImageSource, parts: Sequence[int]) -> None:
    """Check the images of some parts against the SHA-256 in the sample table, as far as it holds one."""
    for part in parts:
        rows = writer.manifest.rows_of_part(part)
        recorded = writer.samples["sha256"].slice(rows.start, len(rows)).to_pylist()
        for row, sha256 in zip(rows, recorded, strict=True):
            if sha256 is None:
                continue
            try:
                found = hashlib.sha256(source.read(row)).hexdigest()
            except FileNotFoundError:
                found = None
            if found != sha256:
                what = "missing" if found is None else f"SHA-256 {found[:12]}…"
                raise ImagesChangedError(
                    f"images {source.name!r}: {source.paths[row]!r} is not the file that was labelled: {what}, "
                    f"expected {sha256[:12]}…; put it back as it was, or drop part {part}"
                )

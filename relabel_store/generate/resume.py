"""Going on with a build: are the labels and the images still the same?"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from relabel_store.errors import DamagedFileError, ImagesChangedError, SettingsChangedError
from relabel_store.images.source import ImageSource, describe_changes
from relabel_store.manifest import Manifest
from relabel_store.store.journal import PartRecord, facts_path, mtimes_path
from relabel_store.store.samples import Status, planned_samples, read_facts
from relabel_store.store.writer import StoreWriter

log = logging.getLogger("relabel_store.build")

_NAMED = 5  # changed images named in a message


def require_same_labels(found: Manifest, wanted: Manifest, *, is_batch_size_given: bool) -> None:
    """Check that a store was begun with arguments that make the same labels.

    Raises
    ------
    SettingsChangedError
        It was not; the message names every difference.
    """
    differences = list(_differences(found, wanted, is_batch_size_given))
    if differences:
        raise SettingsChangedError(
            f"store {found.name!r} was begun with other labels in mind: {'; '.join(differences)}; "
            "run the command it was begun with, or build into another path"
        )
    for name, ours in wanted.teacher.versions.items():
        theirs = found.teacher.versions.get(name)
        if theirs != ours:
            log.warning(
                "%s is %s, the store was begun with %s: values may differ in the last step",
                name,
                ours,
                theirs,
            )


def _differences(found: Manifest, wanted: Manifest, is_batch_size_given: bool) -> Iterator[str]:
    for what, theirs, ours in _compared(found, wanted):
        if theirs != ours:
            hint = f" (--name {theirs!r} keeps it)" if what == "name of the labels" else ""
            yield f"{what} {_shown(theirs)}, now {_shown(ours)}{hint}"
    if (
        is_batch_size_given
        and found.build
        and wanted.build
        and found.build.batch_size != wanted.build.batch_size
    ):
        yield f"batch size {found.build.batch_size}, now {wanted.build.batch_size}"
    if found.build and wanted.build and found.build.is_compiled != wanted.build.is_compiled:
        yield f"compiled {found.build.is_compiled}, now {wanted.build.is_compiled}"


def _compared(found: Manifest, wanted: Manifest) -> Iterator[tuple[str, Any, Any]]:
    """Yield what makes the labels, as (what, found, wanted)."""
    for what, field in (
        ("teacher", "name"),
        ("architecture", "architecture"),
        ("precision", "precision"),
        ("device", "device"),
    ):
        yield what, getattr(found.teacher, field), getattr(wanted.teacher, field)
    yield "head", found.teacher.dense.head, wanted.teacher.dense.head
    yield "flip", found.teacher.flip, wanted.teacher.flip
    yield "weights", found.teacher.weights.digest, wanted.teacher.weights.digest
    yield "classes", found.classes.digest, wanted.classes.digest
    for field in ("input_size", "interpolation", "mean", "std"):
        yield field.replace("_", " "), getattr(found.geometry, field), getattr(wanted.geometry, field)
    for field in ("grid", "k", "num_classes", "value_step", "absent"):
        yield field.replace("_", " "), getattr(found.label_map, field), getattr(wanted.label_map, field)
    yield "rows a shard", found.layout.shard_rows, wanted.layout.shard_rows
    yield "rows a chunk", found.layout.chunk_rows, wanted.layout.chunk_rows
    yield "encoding", found.encoding.name, wanted.encoding.name
    for field in ("name", "licence", "citation"):
        yield f"{field} of the labels", getattr(found, field), getattr(wanted, field)


def _shown(value: Any) -> str:
    text = str(value)
    return f"{text[:19]}…" if text.startswith("sha256:") else text


def require_same_images(writer: StoreWriter, source: ImageSource) -> None:
    """Check that the images are those that the store was begun with.

    The list is compared whole. Of images that are labelled already, size and time of change are compared,
    and the SHA-256 where only the time is another.

    Raises
    ------
    ImagesChangedError
        They are not; the message names the first differences.
    """
    paths = writer.samples["path"].combine_chunks()
    is_same = paths.equals(
        pa.array(source.paths, paths.type)
    )  # before two sets of a million strings are made
    changes = None if is_same else describe_changes(paths.to_pylist(), source.paths)
    if changes is not None:
        limit = ", or was another --limit given?" if len(writer.samples) != len(source) else ""
        raise ImagesChangedError(
            f"images {source.name!r}: {changes} since the store was begun; "
            f"put them back as they were, or build into another path{limit}"
        )
    planned = planned_samples(
        source.sample_ids, source.paths, source.class_names, writer.manifest.classes.index_of_folder()
    )
    for column in ("sample_id", "path", "class_index", "class_name"):
        if not writer.samples[column].combine_chunks().equals(planned[column].combine_chunks()):
            raise DamagedFileError(
                f"store {writer.files.location!r}: column {column!r} of its sample table is not that of the images; "
                "restore the table, or build into another path"
            )
    records = {facts_path(record.part): record for record in writer.records().values()}
    changed: list[str] = []
    for name, data in writer.files.read_many(records):
        if data is not None:  # merged: sizes are gone with it, `validate --images` compares digests
            changed += _changed_images(writer, source, records[name], data)
    if changed:
        raise ImagesChangedError(
            f"images {source.name!r}: {len(changed)} changed after they were labelled: "
            f"{', '.join(map(repr, changed[:_NAMED]))}{', …' if len(changed) > _NAMED else ''}; "
            "put them back as they were, or build into another path"
        )


def _changed_images(
    writer: StoreWriter, source: ImageSource, record: PartRecord, data: bytes
) -> Iterator[str]:
    facts = read_facts(data, facts_path(record.part))
    columns = [facts[name].to_pylist() for name in ("size_bytes", "sha256", "status")]
    mtimes_ns = _read_mtimes(writer, record)
    for row, mtime_ns, size_bytes, sha256, status in zip(record.rows, mtimes_ns, *columns, strict=True):
        if status != Status.LABELLED.value:
            continue  # a bad image may well be mended before it is tried again
        try:
            size_now, mtime_now = source.fingerprint(row)
            is_same = size_now == size_bytes and (
                mtime_now == mtime_ns or hashlib.sha256(source.read(row)).hexdigest() == sha256
            )
        except FileNotFoundError:
            is_same = False
        if not is_same:
            yield source.paths[row]


def _read_mtimes(writer: StoreWriter, record: PartRecord) -> list[int | None]:
    """Return when each image of a part was last changed; None where that is not known any more."""
    try:
        found = np.frombuffer(writer.files.read(mtimes_path(record.part)), np.int64)
    except (FileNotFoundError, ValueError):
        return [None] * len(record.rows)
    return found.tolist() if len(found) == len(record.rows) else [None] * len(record.rows)

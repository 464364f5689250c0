"""The manifest of other people's labels: what they do not say is unknown, never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from relabel_store import spec
from relabel_store.class_names import read_class_names
from relabel_store.convert.source import SourceOptions
from relabel_store.manifest import (
    AbsentRule,
    Classes,
    Dense,
    Geometry,
    ImagesInfo,
    LabelSpec,
    Layout,
    Manifest,
    Resize,
    TeacherInfo,
    Weights,
)
from relabel_store.sample_ids import digest_of_ids

_UNKNOWN = "unknown"
_UNKNOWN_GEOMETRY = Geometry(None, None, None, None, resize=Resize.UNKNOWN, exif_orientation=_UNKNOWN)


def foreign_manifest(
    name: str,
    sample_ids: Sequence[str],
    *,
    grid: tuple[int, int],
    k: int,
    num_classes: int,
    classes: Classes,
    options: SourceOptions,
    order: str,
    geometry: Geometry = _UNKNOWN_GEOMETRY,
) -> Manifest:
    """Return the manifest of labels about whose teacher and images nothing is known.

    Parameters
    ----------
    name
        Of the label set: a file's own name, never a path.
    classes
        See `known_classes`.
    order
        How the rows are ordered, e.g. ``sample-id``.
    geometry
        How images were made ready and which part of one a map covers, as far as the form says so.
    """
    n = len(sample_ids)
    whole_chunks = -(-n // spec.CHUNK_ROWS) * spec.CHUNK_ROWS
    return Manifest(
        name=name,
        num_samples=n,
        label_map=LabelSpec(
            grid=grid,
            k=k,
            num_classes=num_classes,
            value_step=spec.DEFAULT_VALUE_STEP
            if options.value_step is None
            else options.value_step.to_json(),
            absent=AbsentRule.ZERO if options.absent is None else options.absent,
        ),
        classes=classes,
        geometry=geometry,
        teacher=TeacherInfo(
            name=_UNKNOWN,
            architecture=None,
            tag=None,
            weights=Weights(_UNKNOWN, None),
            dense=Dense(_UNKNOWN, None),
            precision=_UNKNOWN,
            device=_UNKNOWN,
            versions={},
        ),
        images=ImagesInfo(_UNKNOWN, _UNKNOWN, n, digest_of_ids(sample_ids), order),
        layout=Layout(shard_rows=min(spec.SHARD_ROWS, whole_chunks), chunk_rows=spec.CHUNK_ROWS),
    )


def known_classes(class_names: Path | None, num_classes: int) -> Classes:
    """Return the classes of a file of the caller's; none is unknown.

    Raises
    ------
    TeacherError
        The file cannot be read, or holds another number of classes.
    """
    if class_names is None:
        return Classes.of(None, None, None)
    return Classes.of(None, read_class_names(class_names, num_classes), "given")

"""The sample table of images, made without a teacher: what labelling them would find out about each."""

from __future__ import annotations

import pyarrow as pa

from relabel_store.errors import TeacherError
from relabel_store.generate.batches import decoded_batches, split_rows
from relabel_store.generate.decode import Interpolation
from relabel_store.generate.part import facts_table
from relabel_store.generate.teacher import TeacherInput
from relabel_store.images.source import ImageSource
from relabel_store.manifest import Manifest
from relabel_store.store.samples import planned_samples, with_facts

_ROWS = 64  # images decoded at once


def looked_at_samples(manifest: Manifest, source: ImageSource, *, workers: int) -> pa.Table:
    """Return the sample table of a store whose images these are, each of which is decoded.

    Parameters
    ----------
    workers
        Processes that decode.

    Raises
    ------
    ImageReadError
        An image cannot be read.
    TeacherError
        Nobody recorded how images were decoded: the labels were converted.
    """
    planned = planned_samples(
        source.sample_ids, source.paths, source.class_names, manifest.classes.index_of_folder()
    )
    batches = split_rows(range(len(source)), _ROWS)
    decoded = decoded_batches(source, recorded_input(manifest), batches, workers=workers, pin_memory=False)
    facts = [facts_table(batch.facts) for batch in decoded]
    return with_facts(planned, {0: pa.concat_tables(facts)}, len(planned))


def recorded_input(manifest: Manifest) -> TeacherInput:
    """Return what the teacher of a store was shown of an image.

    Raises
    ------
    TeacherError
        Nobody recorded it: the labels were converted.
    """
    geometry = manifest.geometry
    size, interpolation, mean, std = (
        geometry.input_size,
        geometry.interpolation,
        geometry.mean,
        geometry.std,
    )
    if size is None or interpolation is None or mean is None or std is None:
        raise TeacherError(
            f"store {manifest.name!r}: does not record what its teacher was shown, because its labels were converted; "
            "convert them again"
        )
    return TeacherInput(
        size=size,
        interpolation=Interpolation(interpolation),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )

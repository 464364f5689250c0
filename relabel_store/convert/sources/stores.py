"""A store of ours as what is converted: into another encoding, or with coarser values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from relabel_store import spec
from relabel_store.convert.source import Location, SourceOptions, encode_scores
from relabel_store.errors import OptionError, UnfinishedStoreError
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import Manifest
from relabel_store.store.arrays import array_specs
from relabel_store.store.encoded import EncodedStore
from relabel_store.store.occupied import is_store
from relabel_store.store.part_labels import PartLabels
from relabel_store.store.reader import open_store
from relabel_store.store.samples import FACTS_SCHEMA, SCHEMA, Status

FORMAT = "store"


def recognise(location: Location) -> bool:
    """Tell whether there is a store of ours, in whatever encoding."""
    return is_store(location)


def open_source(location: Location, options: SourceOptions) -> StoreSource:
    """Return the labels of a store; see `StoreSource`."""
    options.require_only(FORMAT, "value_step")
    return StoreSource(open_store(location), options.value_step)


class StoreSource:
    """The label maps of a finished store.

    Parameters
    ----------
    value_step
        What its values are rounded to; None leaves them as they are.

    Raises
    ------
    UnfinishedStoreError
        It is still being built.
    OptionError
        The values are rounded to something coarser already.
    """

    notes = ()

    def __init__(self, store: EncodedStore, value_step: ValueStep | None = None) -> None:
        if not store.is_complete:
            raise UnfinishedStoreError(
                f"store {store.location!r}: still being built, expected a finished one; "
                "run the build again to finish it"
            )
        self._store = store
        found = ValueStep.parse(store.manifest.label_map.value_step)
        self._is_rounded_anew = value_step is not None and value_step != found
        if value_step is not None:
            _require_coarser(found, value_step)
        step = (value_step or found).to_json()
        self._manifest = replace(
            store.manifest.reopened(), label_map=replace(store.manifest.label_map, value_step=step)
        )

    @property
    def manifest(self) -> Manifest:
        """Of the store to be: the same but for its state and values."""
        return self._manifest

    @property
    def samples(self) -> pa.Table:
        """The sample table without what was found out about the images."""
        table, n = self._store.samples, len(self._store)
        for name in ("width", "height", "sha256"):
            field = SCHEMA.field(name)
            table = table.set_column(SCHEMA.get_field_index(name), field, pa.nulls(n, field.type))
        missing = pa.repeat(pa.scalar(Status.MISSING.value, pa.string()), n)
        return table.set_column(SCHEMA.get_field_index("status"), SCHEMA.field("status"), missing)

    def read_part(self, part: int) -> PartLabels:
        """Return the labels of a part, with the facts of its images."""
        rows, record = self._manifest.rows_of_part(part), self._store.parts[part]
        arrays = {name: array.empty(len(rows)) for name, array in array_specs(self._manifest).items()}
        self._store.decode_part(part, arrays)
        indices, values = arrays[spec.INDICES], arrays[spec.VALUES]
        samples = self._store.samples.slice(rows.start, len(rows))
        if self._is_rounded_anew:
            has_label = np.asarray(samples["status"].to_numpy() == Status.LABELLED.value)
            indices[has_label], values[has_label] = encode_scores(
                indices[has_label], values[has_label].astype(np.float32), self._manifest
            )
        nowhen = np.zeros(len(rows), np.int64)
        facts = samples.select([name for name in FACTS_SCHEMA.names if name in SCHEMA.names])
        return PartLabels(
            indices=indices,
            values=values,
            rest=arrays.get(spec.REST),
            facts=facts.append_column(FACTS_SCHEMA.field("size_bytes"), pa.array(nowhen)).cast(FACTS_SCHEMA),
            mtimes_ns=nowhen,
            bad_images=record.bad_images,
            exif_oriented=record.exif_oriented,
        )


def _require_coarser(found: ValueStep, wanted: ValueStep) -> None:
    if found.step is not None and found != wanted and (wanted.step is None or wanted.step < found.step):
        raise OptionError(
            f"value step: {wanted.to_json()}, expected {found.to_json()} or more, to which the values are rounded "
            "already"
        )

"""Parts without any label: what is left of those that nobody can make again."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from relabel_store import spec
from relabel_store.manifest import Manifest
from relabel_store.store.arrays import array_specs
from relabel_store.store.journal import BadImage
from relabel_store.store.part_labels import PartLabels
from relabel_store.store.samples import FACTS_SCHEMA, Status


def without_labels(manifest: Manifest, part: int, samples: pa.Table, reason: str) -> PartLabels:
    """Return a part all of whose rows are ``missing``.

    Parameters
    ----------
    samples
        The part's rows of the sample table; what they tell of the images stays.
    reason
        Why there is no label, as it is recorded of each row.
    """
    rows = manifest.rows_of_part(part)
    arrays = {name: array.full(len(rows)) for name, array in array_specs(manifest).items()}
    columns = {name: samples[name].combine_chunks() for name in ("width", "height", "sha256")}
    facts = {
        **columns,
        "status": pa.array([Status.MISSING.value] * len(rows), pa.string()),
        "size_bytes": np.zeros(len(rows), np.int64),
    }
    return PartLabels(
        indices=arrays[spec.INDICES],
        values=arrays[spec.VALUES],
        rest=arrays.get(spec.REST),
        facts=pa.table(facts, schema=FACTS_SCHEMA),
        mtimes_ns=np.zeros(len(rows), np.int64),
        bad_images=tuple(BadImage(row, reason) for row in rows),
    )

"""How large a store will be, before it is built."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa

from relabel_store.canonical import canonical_json
from relabel_store.manifest import Manifest
from relabel_store.store.complete import Completion
from relabel_store.store.files import FileEntry
from relabel_store.store.journal import PartRecord
from relabel_store.store.samples import FACTS_SCHEMA, Status, to_parquet, with_facts
from relabel_store.store.zarr_v1 import array_documents, array_specs, group_document

_SAMPLED_ROWS = 65_536


def estimated_size_bytes(manifest: Manifest, samples: pa.Table, encoded_row_bytes: float) -> int:
    """Return about how many bytes the files of a finished store will have.

    Parameters
    ----------
    samples
        Its sample table, with facts or without.
    encoded_row_bytes
        Bytes of a row in the shards of all arrays together.
    """
    sampled = samples.slice((len(samples) - min(len(samples), _SAMPLED_ROWS)) // 2, _SAMPLED_ROWS)
    a_row = encoded_row_bytes + len(to_parquet(_with_made_up_facts(sampled))) / max(len(sampled), 1)
    # The names of all classes are in the group's.
    documents = [group_document(manifest, is_consolidated=True), *array_documents(manifest).values()]
    fixed = sum(len(canonical_json(document)) for document in documents)
    return int(manifest.num_samples * a_row + manifest.num_parts * _bytes_a_part(manifest) + fixed)


def _with_made_up_facts(samples: pa.Table) -> pa.Table:
    """Return samples with facts that compress as badly as real ones."""
    n, rng = len(samples), np.random.default_rng(0)
    facts = {
        "width": rng.integers(300, 600, n),
        "height": rng.integers(300, 600, n),
        "sha256": [rng.bytes(32).hex() for _ in range(n)],
        "status": [Status.LABELLED.value] * n,
        "size_bytes": np.zeros(n, np.int64),
    }
    return with_facts(samples, {0: pa.table(facts).cast(FACTS_SCHEMA)}, max(n, 1))


def _bytes_a_part(manifest: Manifest) -> int:
    """Return the bytes of a part's record, which is in the journal and in ``complete.json``, and of its listing."""
    part = manifest.num_parts - 1
    entry = FileEntry(10**6, "0" * 64)
    shards = {array.shard_path(part): entry for array in array_specs(manifest).values()}
    record = PartRecord(part, manifest.rows_of_part(part), shards, entry, (), 0)
    completion = partial(Completion, recorded_digest="")
    whole = len(completion(files={**shards, "record": entry}, parts={part: record}).to_bytes())
    return len(record.to_bytes()) + whole - len(completion(files={}, parts={}).to_bytes())

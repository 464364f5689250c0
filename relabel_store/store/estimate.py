"""How large a store will be, before it is built."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa

from relabel_store.manifest import Manifest
from relabel_store.store.complete import Completion
from relabel_store.store.encodings import encoding_of
from relabel_store.store.files import FileEntry
from relabel_store.store.journal import PartRecord, record_path
from relabel_store.store.samples import FACTS_SCHEMA, Status, to_parquet, with_facts

_SAMPLED_ROWS = 65_536


def estimated_size_bytes(manifest: Manifest, samples: pa.Table, encoded_row_bytes: float) -> int:
    """Return about how many bytes the files of a finished store will have.

    Parameters
    ----------
    samples
        Its sample table, with facts or without.
    encoded_row_bytes
        Bytes of a row in the files of parts.
    """
    encoding = encoding_of(manifest)
    sampled = samples.slice((len(samples) - min(len(samples), _SAMPLED_ROWS)) // 2, _SAMPLED_ROWS)
    a_row = encoded_row_bytes
    if not encoding.is_self_contained:
        a_row += len(to_parquet(_with_made_up_facts(sampled))) / max(len(sampled), 1)
    # The names of all classes are in the manifest's, and once finished it repeats what the others say.
    documents = [encoding.manifest_document(manifest), *2 * list(encoding.fixed_files(manifest).values())]
    return int(
        manifest.num_samples * a_row
        + manifest.num_parts * (encoding.part_overhead(manifest) + _bytes_a_part(manifest))
        + sum(len(document) for document in documents)
    )


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
    encoding = encoding_of(manifest)
    shards = dict.fromkeys(encoding.files_of_part(manifest, part), entry)
    record = PartRecord(part, manifest.rows_of_part(part), shards, entry, (), 0)
    completion = partial(Completion, recorded_digest="")
    listed = shards if encoding.is_self_contained else {**shards, record_path(part): entry}
    whole = len(completion(files=listed, parts={part: record}).to_bytes())
    journal = 0 if encoding.is_self_contained else len(record.to_bytes())
    return journal + whole - len(completion(files={}, parts={}).to_bytes())

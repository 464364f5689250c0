from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from relabel_store import spec
from relabel_store.manifest import AbsentRule, Manifest
from relabel_store.store.estimate import estimated_size_bytes
from relabel_store.store.part_labels import PartLabels
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_samples


def make_real_looking_part(manifest: Manifest, part: int, rng: np.random.Generator) -> PartLabels:
    """Return a part whose digests and sizes of images differ, as those of real images do."""
    labels = make_part(manifest, make_label_maps(rng, manifest), part)
    rows = manifest.rows_of_part(part)
    facts = labels.facts
    for name, column in (
        ("sha256", pa.array([hashlib.sha256(str(row).encode()).hexdigest() for row in rows])),
        ("width", pa.array(rng.integers(300, 600, len(rows)), pa.int32())),
        ("height", pa.array(rng.integers(300, 600, len(rows)), pa.int32())),
    ):
        facts = facts.set_column(facts.schema.get_field_index(name), facts.schema.field(name), column)
    return replace(labels, facts=facts)


@pytest.mark.parametrize("absent", list(AbsentRule), ids=str)
def test_the_estimate_is_the_size_of_the_files(tmp_path: Path, rng: np.random.Generator, absent: AbsentRule):
    manifest = make_manifest(1000, absent=absent, shard_rows=128, chunk_rows=64)
    writer = StoreWriter.begin(tmp_path / "s", manifest, make_samples(manifest))
    for part in range(manifest.num_parts):
        writer.write_part(part, make_real_looking_part(manifest, part, rng))
    writer.complete()
    sizes = {path: path.stat().st_size for path in (tmp_path / "s").rglob("*") if path.is_file()}
    arrays = {spec.INDICES, spec.VALUES, spec.REST}
    is_shard = {path: bool(arrays & set(path.parts)) and path.name != spec.GROUP_FILE for path in sizes}
    shards = sum(size for path, size in sizes.items() if is_shard[path])
    estimate = estimated_size_bytes(manifest, make_samples(manifest), shards / 1000)
    assert sum(sizes.values()) == pytest.approx(estimate, rel=0.05)


def test_each_part_makes_a_store_larger():
    few, many = (make_manifest(64, shard_rows=rows, chunk_rows=2) for rows in (64, 2))
    samples = make_samples(few)
    assert estimated_size_bytes(many, samples, 10) > estimated_size_bytes(few, samples, 10) + 31 * 500


def test_each_row_makes_a_store_larger():
    few, many = (make_manifest(rows, shard_rows=1024, chunk_rows=256) for rows in (300, 1000))
    smaller, larger = (
        estimated_size_bytes(manifest, make_samples(manifest), 100) for manifest in (few, many)
    )
    assert larger > smaller + 700 * 100

"""A store of ImageNet's size: time to open, memory, row_of, and reading.

    python benchmarks/large_store.py WORK_DIR [--rows 1281167] [--keep]

The maps are made up (one real-looking chunk written again and again); the sample table has ImageNet's kind of names.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import describe_machine

from relabel_store.labels.maps import LabelMaps
from relabel_store.manifest import Manifest
from relabel_store.sample_ids import digest_of_ids
from relabel_store.store import zarr_v1
from relabel_store.store.arrays import Array, ArraySpec
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_sample_ids, make_samples

MEASURE = """
import json, random, resource, sys, time

def rss_mb():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6

class Timed:
    def __init__(self, name, scale=1.0):
        self.name, self.scale = name, scale
    def __enter__(self):
        self.started = time.perf_counter()
    def __exit__(self, *_):
        found[self.name] = (time.perf_counter() - self.started) * self.scale

found = {}
with Timed("import, s"):
    from relabel_store import open_store
    import relabel_store.store.reader
before = rss_mb()
with Timed("open, ms", 1e3):
    store = open_store(sys.argv[1])
opened = rss_mb()
found["memory to open, MB"] = opened - before
with Timed("first row_of, ms", 1e3):
    store.row_of(sys.argv[2])
found["memory of the index, MB"] = rss_mb() - opened
ids = store.samples["sample_id"].take(sorted(random.Random(0).sample(range(len(store)), 10000))).to_pylist()
with Timed("row_of, us", 1e2):
    for sample_id in ids:
        store.row_of(sample_id)
with Timed("first row of a shard, ms", 1e3):
    store[len(store) // 2]
with Timed("next row, ms", 1e3):
    store[len(store) // 2 + 1]
rows = min(65536, len(store))
started = time.perf_counter()
store.read_rows(range(rows))
found["read in order, rows/s"] = rows / (time.perf_counter() - started)
found["resident at the end, MB"] = rss_mb()
print(json.dumps(found))
"""


def main() -> None:
    """Write the store, then measure it in fresh interpreters."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=1_281_167)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    path = arguments.work / "large.zarr"
    ids = sample_ids(arguments.rows)
    if not (path / "complete.json").exists():
        write(path, ids)
    found = [measure(path, ids[-1]) for _ in range(3)]
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(describe_machine())
    print(f"{arguments.rows} rows at 15x15x5, {size / 1e9:.2f} GB")
    for name in found[0]:
        print(f"{name:>26} {statistics.median(run[name] for run in found):12,.3f}")
    if not arguments.keep:
        shutil.rmtree(path)


def sample_ids(n: int) -> list[str]:
    """Return ids like ImageNet's, sorted."""
    per_class = -(-n // 1000)
    ids = [
        f"n{10_000_000 + i // per_class * 7}/n{10_000_000 + i // per_class * 7}_{i % per_class}"
        for i in range(n)
    ]
    return sorted(ids)


def large_manifest(ids: list[str]) -> Manifest:
    """Return the manifest of the store."""
    manifest = make_manifest(len(ids), grid=(15, 15), k=5, num_classes=1000, shard_rows=4096, chunk_rows=256)
    return replace(manifest, images=replace(manifest.images, digest=digest_of_ids(ids)))


def write(path: Path, ids: list[str], manifest: Manifest | None = None) -> None:
    """Write the store: one chunk of made-up maps again and again, compressed once.

    Random maps compress badly and slowly, which would measure nothing here but the compressor.
    """
    zarr_v1.encode_shard = cache_by_size(zarr_v1.encode_shard)
    manifest = large_manifest(ids) if manifest is None else manifest
    part = replace(manifest, num_samples=4096, images=replace(manifest.images, count=4096))
    first = make_part(part, part_maps(part), 0)
    writer = StoreWriter.begin(path, manifest, make_samples(manifest, ids))
    for number in range(manifest.num_parts):
        n = len(manifest.rows_of_part(number))
        labels = replace(
            first, indices=first.indices[:n], values=first.values[:n], facts=first.facts.slice(0, n)
        )
        writer.write_part(number, labels)
    started = time.perf_counter()
    writer.complete()
    print(f"completed in {time.perf_counter() - started:.1f} s")


def part_maps(part: Manifest) -> LabelMaps:
    """Return the maps of a part: those of a chunk again and again, as each chunk is compressed on its own."""
    n, chunk_rows = part.num_samples, part.layout.chunk_rows
    chunk = replace(part, num_samples=chunk_rows, images=replace(part.images, count=chunk_rows))
    maps = make_label_maps(np.random.default_rng(0), chunk)
    times = (n // chunk_rows, 1, 1, 1)
    return LabelMaps(make_sample_ids(n), np.tile(maps.indices, times), np.tile(maps.values, times))


def cache_by_size(
    encode: Callable[[ArraySpec, Manifest, Array], bytes],
) -> Callable[[ArraySpec, Manifest, Array], bytes]:
    """Return an encoder that answers the same for every part of one size."""
    known: dict[tuple[str, int], bytes] = {}

    def cached(array: ArraySpec, manifest: Manifest, rows: Array) -> bytes:
        key = array.name, len(rows)
        if key not in known:
            known[key] = encode(array, manifest, rows)
        return known[key]

    return cached


def measure(path: Path, sample_id: str) -> dict[str, float]:
    """Open and read the store in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), sample_id], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()

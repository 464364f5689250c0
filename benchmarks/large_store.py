"""A store of ImageNet's size: time to open, memory, row_of, and reading.

    python benchmarks/large_store.py WORK_DIR [--rows 1281167] [--keep]

The maps are made up (one real-looking part written again and again); the sample table has ImageNet's kind of names.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import describe_machine

from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_samples

MEASURE = """
import json, random, resource, sys, time
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
started = time.perf_counter(); from relabel_store import open_store; import numpy; imported = time.perf_counter() - started
before = rss(); started = time.perf_counter(); store = open_store(sys.argv[1]); opened = time.perf_counter() - started; after = rss()
n = len(store); started = time.perf_counter(); first = store.row_of(sys.argv[2]); first_row_of = time.perf_counter() - started; indexed = rss()
rng = random.Random(0); ids = [store._index.sample_id(rng.randrange(n)) for _ in range(10000)]
started = time.perf_counter(); rows = [store.row_of(i) for i in ids]; row_of = (time.perf_counter() - started) / len(ids)
started = time.perf_counter(); store[n // 2]; one = time.perf_counter() - started
started = time.perf_counter(); store[n // 2 + 1]; neighbour = time.perf_counter() - started
started = time.perf_counter(); store.read_rows(range(65536)); scan = 65536 / (time.perf_counter() - started)
started = time.perf_counter(); store.samples; samples = time.perf_counter() - started
print(json.dumps(dict(import_s=imported, open_s=opened, open_mb=after - before, first_row_of_s=first_row_of, index_mb=indexed - after,
    row_of_us=row_of * 1e6, first_row_ms=one * 1e3, next_row_ms=neighbour * 1e3, scan_rows_s=scan, samples_s=samples, rss_mb=rss())))
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
        print(f"{name:>16} {statistics.median(run[name] for run in found):10.3f}")
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


def write(path: Path, ids: list[str]) -> None:
    """Write the store; only the first part is encoded from new maps."""
    manifest = make_manifest(len(ids), grid=(15, 15), k=5, num_classes=1000, shard_rows=4096, chunk_rows=256)
    part = replace(manifest, num_samples=4096, images=replace(manifest.images, count=4096))
    maps = make_label_maps(np.random.default_rng(0), part)
    first = make_part(part, maps, 0)
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


def measure(path: Path, sample_id: str) -> dict[str, float]:
    """Open and read the store in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), sample_id], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()

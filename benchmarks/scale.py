"""What a build and a reader cost at 14 and at 400 million images: time and memory against parts, and against rows.

    python benchmarks/scale.py WORK_DIR [--parts 1000 10000 100000] [--rows 1000000 4000000]

Drives the code that plans, journals, finishes and reads a store, once with very many parts of 16 made-up images (what
grows with parts), once with the image list and sample table of very many images (what grows with rows). Each step runs
in an interpreter of its own; its memory is the most that it had resident, less what importing takes.

WORK_DIR holds some 12 kB a part and does best in memory, such as /dev/shm: what is measured is our code, not a disk.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from machine import describe_machine

from relabel_store.generate.resume import require_same_images
from relabel_store.inspect.status import status_of
from relabel_store.manifest import Manifest
from relabel_store.sample_ids import digest_of_ids
from relabel_store.store import zarr_v1
from relabel_store.store.arrays import Array, ArraySpec
from relabel_store.store.reader import open_store
from relabel_store.store.samples import (
    FACTS_SCHEMA,
    SCHEMA,
    SampleIndex,
    from_parquet,
    planned_samples,
    to_parquet,
    with_facts,
)
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_samples

_PART_ROWS = 16
_NUM_CLASSES = 1000  # the record of a part counts each of them


@dataclass
class Step:
    """What one step took, printed as it ends."""

    found: dict[str, float] = field(default_factory=dict)
    imported_mb: float = field(default_factory=lambda: peak_mb())

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a block."""
        started = time.perf_counter()
        yield
        self.found[f"{name}, s"] = time.perf_counter() - started

    def memory(self, name: str) -> None:
        """Note the most that was resident until now."""
        self.found[f"{name}, MB"] = peak_mb() - self.imported_mb


def peak_mb() -> float:
    """Return the most memory that this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


# What grows with parts.


def write_parts(path: Path, parts: int, step: Step) -> None:
    """Begin a store and write all of its parts."""
    zarr_v1.encode_shard = encode_once(zarr_v1.encode_shard)
    manifest = parts_manifest(parts)
    one = replace(manifest, num_samples=_PART_ROWS, images=replace(manifest.images, count=_PART_ROWS))
    labels = make_part(one, make_label_maps(np.random.default_rng(0), one), 0)
    with step.timed("begin"):
        writer = StoreWriter.begin(path, manifest, make_samples(manifest, ids_of(manifest.num_samples)))
    tenth = max(parts // 10, 1)
    for part in range(parts):
        if part in (0, parts - tenth):
            started = time.perf_counter()
        writer.write_part(part, labels)
        if part == tenth - 1:
            step.found["write a part, first tenth, s"] = (time.perf_counter() - started) / tenth
    step.found["write a part, last tenth, s"] = (time.perf_counter() - started) / tenth
    step.memory("write")


def plan_build(path: Path, parts: int, step: Step) -> None:  # noqa: ARG001 - the manifest knows
    """Go on with a store: what is missing, what is damaged, and a look at the journal each time a part is done."""
    with step.timed("resume"):
        writer = StoreWriter.resume(path)
    with step.timed("missing parts, first look"):
        assert not writer.missing_parts()
    with step.timed("missing parts, next look"):
        assert not writer.missing_parts()
    step.memory("plan")
    with step.timed("compare every file"):
        assert not writer.damaged_parts()


def look_on(path: Path, parts: int, step: Step) -> None:
    """Ask how far the build is, and read from what is finished."""
    with step.timed("status"):
        assert status_of(open_store(path)).parts_finished == parts  # type: ignore[arg-type]
    step.memory("status")
    store = open_store(path)
    with step.timed("read a row of an unfinished store"):
        assert store[len(store) // 2].sample_id
    with step.timed("sample table of an unfinished store"):
        assert store.samples["status"].null_count == 0
    step.memory("look on")


def finish(path: Path, parts: int, step: Step) -> None:
    """Finish the store."""
    writer = StoreWriter.resume(path)
    with step.timed("finish"):
        assert len(writer.complete().parts) == parts
    step.memory("finish")


def read_store(path: Path, parts: int, step: Step) -> None:  # noqa: ARG001
    """Open the finished store, find rows by id and read some."""
    step.found["complete.json, MB"] = (path / "complete.json").stat().st_size / 1e6
    with step.timed("open"):
        store = open_store(path)
    step.memory("open")
    rng = random.Random(0)
    ids = ids_of(len(store))
    with step.timed("first row_of"):
        store.row_of(ids[-1])
    with step.timed("1,000 more of row_of"):
        assert all(store.row_of(ids[row]) == row for row in rng.sample(range(len(store)), 1000))
    with step.timed("100 rows at random"):
        store.read_rows(rng.sample(range(len(store)), 100))
    step.memory("read")


# What grows with rows.


class Images:
    """So many images that are never read."""

    name, kind, order = "made-up", "class-folders", "sample-id"

    def __init__(self, n: int) -> None:
        self.sample_ids: Sequence[str] = ids_of(n)
        self.paths: Sequence[str] = [f"{sample_id}.JPEG" for sample_id in self.sample_ids]
        folders: dict[str, str] = {}
        names = (path.partition("/")[0] for path in self.paths)
        self.class_names: Sequence[str | None] = [folders.setdefault(name, name) for name in names]

    def __len__(self) -> int:
        return len(self.sample_ids)

    def read(self, row: int) -> bytes:
        """Say that there is nothing to read."""
        raise FileNotFoundError(row)

    def fingerprint(self, row: int) -> tuple[int, int]:
        """Say that there is nothing to look at."""
        raise FileNotFoundError(row)


def list_images(path: Path, rows: int, step: Step) -> None:
    """Hold the image list, and begin a store with it."""
    with step.timed("image list"):
        images = Images(rows)
    step.memory("image list")
    with step.timed("digest of the ids"):
        digest_of_ids(images.sample_ids)
    manifest = make_manifest(rows, shard_rows=4096, chunk_rows=256)
    with step.timed("sample table"):
        samples = planned_samples(images.sample_ids, images.paths, images.class_names, {})
    step.memory("image list and sample table")
    with step.timed("begin"):
        StoreWriter.begin(path, manifest, samples)
    step.memory("begin")


def resume_images(path: Path, rows: int, step: Step) -> None:
    """Go on with it."""
    with step.timed("resume"):
        writer = StoreWriter.resume(path)
    step.memory("resume")
    images = Images(rows)
    with step.timed("compare images"):
        require_same_images(writer, images)
    step.memory("resume and compare images")


def merge_facts(path: Path, rows: int, step: Step) -> None:  # noqa: ARG001
    """Write and merge what was found out about the images."""
    writer = StoreWriter.resume(path)
    facts = {part: facts_of(writer.manifest, part) for part in range(writer.manifest.num_parts)}
    with step.timed("merge facts"):
        merged = with_facts(writer.samples, facts, writer.manifest.layout.shard_rows)
    with step.timed("encode the sample table"):
        data = to_parquet(merged)
    step.found["samples.parquet, MB"] = len(data) / 1e6
    step.memory("merge")
    (path / "merged.parquet").write_bytes(data)


def index_ids(path: Path, rows: int, step: Step) -> None:
    """Find rows by id."""
    with step.timed("read ids"):
        ids = from_parquet(path / "merged.parquet", SCHEMA, ["sample_id"])
    with step.timed("first row_of"):
        index = SampleIndex(ids["sample_id"])
        assert index.row_of(index.sample_ids(np.array([rows - 1]))[0]) == rows - 1
    step.memory("index")


PARTS_STEPS: Sequence[Callable[[Path, int, Step], None]] = (
    write_parts,
    plan_build,
    look_on,
    finish,
    read_store,
)
ROWS_STEPS: Sequence[Callable[[Path, int, Step], None]] = (list_images, resume_images, merge_facts, index_ids)


def parts_manifest(parts: int) -> Manifest:
    """Return the manifest of a store of many small parts."""
    return make_manifest(
        parts * _PART_ROWS,
        grid=(1, 1),
        k=1,
        num_classes=_NUM_CLASSES,
        shard_rows=_PART_ROWS,
        chunk_rows=_PART_ROWS,
    )


def ids_of(n: int) -> list[str]:
    """Return sorted ids of ImageNet's length."""
    return [f"n{10_000_000 + row // 1300:08d}/{row:015d}" for row in range(n)]


def facts_of(manifest: Manifest, part: int) -> pa.Table:
    """Return facts as long as real ones."""
    rows = manifest.rows_of_part(part)
    rng = np.random.default_rng(part)
    columns = {
        "width": rng.integers(200, 600, len(rows)),
        "height": rng.integers(200, 600, len(rows)),
        "sha256": [rng.bytes(32).hex() for _ in rows],
        "status": ["labelled"] * len(rows),
        "size_bytes": rng.integers(10_000, 200_000, len(rows)),
    }
    return pa.table(columns).cast(FACTS_SCHEMA)


def encode_once(
    encode: Callable[[ArraySpec, Manifest, Array], bytes],
) -> Callable[[ArraySpec, Manifest, Array], bytes]:
    """Return an encoder that compresses one part of each array: its time is the compressor's."""
    known: dict[str, bytes] = {}

    def encoded(array: ArraySpec, manifest: Manifest, rows: Array) -> bytes:
        return (
            known[array.name]
            if array.name in known
            else known.setdefault(array.name, encode(array, manifest, rows))
        )

    return encoded


def measure(step: str, path: Path, size: int) -> dict[str, float]:
    """Run a step in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, __file__, str(path), "--step", step, "--size", str(size)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def print_table(
    work: Path, steps: Sequence[Callable[[Path, int, Step], None]], sizes: Sequence[int], what: str
) -> None:
    """Measure every size and print them side by side."""
    columns = []
    for size in sizes:
        path = work / f"scale-{size}.zarr"
        shutil.rmtree(path, ignore_errors=True)
        found: dict[str, float] = {}
        for step in steps:
            found.update(measure(step.__name__, path, size))
            print(f"{size:,} {what}: {step.__name__}", file=sys.stderr)
        columns.append(found)
        shutil.rmtree(path)
    print(f"\n| {what} | {' | '.join(f'{size:,}' for size in sizes)} |")
    print(f"| --- |{' ---: |' * len(sizes)}")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(f'{column[name]:,.4g}' for column in columns)} |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--parts", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 4_000_000])
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step is not None:
        step = Step()
        globals()[arguments.step](arguments.work, arguments.size, step)
        print(json.dumps(step.found))
        return
    print(describe_machine())
    if arguments.parts:
        print_table(arguments.work, PARTS_STEPS, arguments.parts, "parts")
    if arguments.rows:
        print_table(arguments.work, ROWS_STEPS, arguments.rows, "rows")


if __name__ == "__main__":
    main()

"""Memory of a build against the images labelled: it has to stay flat over a million.

    python benchmarks/build_memory.py [--images 1000000] [--workers 1]

A made-up teacher and a few small photos, over and over, so that what is measured is the build and not the teacher.
Prints the memory that belongs to this process alone (USS) and to its decoders, at twenty moments.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from machine import describe_machine
from PIL import Image

from relabel_store.generate.build import build
from relabel_store.generate.observer import BatchReport, BuildObserver
from relabel_store.generate.toy import ColourTeacher

_MOMENTS = 20


class MadeUpImages:
    """So many images, of a few kinds; as light as a source can be."""

    name = "made-up"
    kind = "class-folders"
    order = "sample-id"
    ids_from = "paths"

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(0)
        self._files = []
        for _ in range(16):
            file = io.BytesIO()
            pixels = rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(file, "JPEG")
            self._files.append(file.getvalue())
        self.sample_ids: Sequence[str] = [f"red/{row:08d}" for row in range(n)]
        self.paths: Sequence[str] = [f"{sample_id}.jpg" for sample_id in self.sample_ids]
        self.class_names: Sequence[str | None] = ["red"] * n

    def __len__(self) -> int:
        return len(self.sample_ids)

    def read(self, row: int) -> bytes:
        """Return one of the files."""
        return self._files[row % len(self._files)]

    def fingerprint(self, row: int) -> tuple[int, int]:
        """Return size and a time that never changes."""
        return len(self.read(row)), 0


class Watcher(BuildObserver):
    """Prints memory as images are labelled."""

    def __init__(self, n: int) -> None:
        self._every = max(n // _MOMENTS, 1)
        self._done = self._printed = 0
        self._started = time.perf_counter()

    def on_batch(self, report: BatchReport) -> None:
        """Print a line of the table at each of the moments."""
        self._done += report.samples
        if self._done - self._printed >= self._every or not self._printed:
            self._printed = self._done
            decoders = sum(uss_mb(child.pid) for child in multiprocessing.active_children() if child.pid)
            speed = self._done / (time.perf_counter() - self._started)
            print(f"| {self._done:,} | {uss_mb('self'):.0f} | {decoders:.0f} | {speed:.0f} |", flush=True)


def uss_mb(pid: int | str) -> float:
    """Return the memory that a process shares with no other."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has just ended
        return 0.0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) / 1e3


def main() -> None:
    """Print the curve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    print(describe_machine())
    print("| images labelled | MB of the build | MB of its decoders | images/s |")
    print("| ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory(prefix="relabel-store-benchmark-") as work:
        build(
            ColourTeacher(),
            MadeUpImages(arguments.images),
            Path(work) / "labels.zarr",
            workers=arguments.workers,
            batch_size=64,
            top_k=3,
            device="cpu",
            observer=Watcher(arguments.images),
        )


if __name__ == "__main__":
    main()

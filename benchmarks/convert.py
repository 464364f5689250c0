"""Conversion: a ReLabel tree beside ``torch.load`` of its files, our encodings there and back, writing from memory.

    python benchmarks/convert.py [--rows N] [--maps FILE.npz] [--where DIR]

Rates are of the processor's time in one process, so that others at work on the machine do not count. FILE has arrays
``indices`` and ``values`` of real maps, which are repeated; without it they are made up, and harder to compress.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine

from relabel_store import spec
from relabel_store.convert.run import convert
from relabel_store.labels.maps import LabelMaps
from relabel_store.labels.topk import sort_ranks
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import Compression, Encoding, Layout
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_manifest, make_part, make_samples

GRID, K, NUM_CLASSES = (15, 15), 5, 1000
CLASSES_AN_IMAGE = 40


def made_up_maps(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return class indices and float32 scores, ``(n, k, rows, cols)``, that change slowly over an image."""
    rng = np.random.default_rng(0)
    coarse = rng.random((n, CLASSES_AN_IMAGE, 5, 5), np.float32)
    scores = np.kron(coarse, np.ones((1, 1, 3, 3), np.float32)) + 0.3 * rng.random(
        (n, CLASSES_AN_IMAGE, *GRID), np.float32
    )
    best = np.argsort(-scores, axis=1)[:, :K]
    classes = np.stack([rng.choice(NUM_CLASSES, CLASSES_AN_IMAGE, replace=False) for _ in range(n)])
    indices = np.take_along_axis(classes[:, :, None, None], best, axis=1)
    return indices, 12 * np.take_along_axis(scores, best, axis=1)


def repeated_maps(path: Path, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the maps of a file over and over, each time of other classes, mirrored, and of other scores.

    Equal maps in one chunk would compress to nothing.
    """
    rng = np.random.default_rng(0)
    with np.load(path) as file:
        indices, scores = file["indices"].astype(np.int64), file["values"].astype(np.float32)
    repeats = []
    for repeat in range(-(-n // len(indices))):
        turn = slice(None, None, -1 if repeat % 2 else 1)
        factors = rng.uniform(0.8, 1.2, (len(scores), 1, 1, 1)).astype(np.float32)
        repeats.append((rng.permutation(NUM_CLASSES)[indices][..., turn], (scores * factors)[..., turn]))
    return np.concatenate([one for one, _ in repeats])[:n], np.concatenate([one for _, one in repeats])[:n]


def write_tree(root: Path, indices: np.ndarray, scores: np.ndarray) -> None:
    """Write a file a map, as ReLabel has them."""
    for row, planes in enumerate(np.stack([scores, indices.astype(np.float32)], axis=1)):
        path = root / f"n{row % 100:08d}" / f"n{row % 100:08d}_{row}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(torch.from_numpy(planes.copy()), path)


def rate(what: str, n: int, call: Callable[[], object]) -> float:
    """Print and return how many samples a second of the processor a call takes."""
    began, wall = time.process_time(), time.perf_counter()
    call()
    seconds, wall = time.process_time() - began, time.perf_counter() - wall
    print(f"{what:52} {n / seconds:10,.0f} samples/s a core {n / wall:10,.0f} /s by the clock")
    return n / seconds


def write_from_memory(path: Path, encoding: str, indices: np.ndarray, scores: np.ndarray) -> None:
    """Write maps that are in memory already, rounded, in one process."""
    n = len(indices)
    manifest = replace(
        make_manifest(n, grid=GRID, k=K, num_classes=NUM_CLASSES),
        layout=Layout(spec.SHARD_ROWS, spec.CHUNK_ROWS),
        encoding=Encoding.of(encoding, Compression.FAST),
    )
    ids = [f"c/{row:08d}" for row in range(n)]
    maps = LabelMaps(ids, *sort_ranks(indices.astype(np.uint16), ValueStep(0.125).encode(scores)), None)
    writer = StoreWriter.begin(path, manifest, make_samples(manifest, ids))
    parts = [make_part(manifest, maps, part) for part in range(manifest.num_parts)]
    rate(
        f"memory -> {encoding}, fast level", n, lambda: list(map(writer.write_part, range(len(parts)), parts))
    )


def main() -> None:
    """Print rates, and the share of ``torch.load`` that a tree is converted at."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--maps", type=Path, help="an npz with indices and values; default: made up")
    parser.add_argument("--where", type=Path, help="on which disk; default: the one for temporary files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    n = arguments.rows
    indices, scores = made_up_maps(n) if arguments.maps is None else repeated_maps(arguments.maps, n)
    print(describe_machine(), f"{n} maps of 15x15 cells, top 5, one process", sep="\n")
    with tempfile.TemporaryDirectory(dir=arguments.where) as folder:
        root = Path(folder)
        write_tree(root / "tree", indices, scores)
        write_tree(root / "few", indices[:64], scores[:64])
        for encoding in ("zarr", "parquet"):  # what is imported takes a second, once
            convert(root / "few", root / f"few.{encoding}", workers=1)
        files = sorted((root / "tree").rglob("*.pt"))
        for path in files:  # into the page cache, for both
            path.read_bytes()
        alone = rate(
            "torch.load, weights_only=True, of each file",
            n,
            lambda: [torch.load(path, weights_only=True) for path in files],
        )
        unsafe = rate(
            "torch.load, weights_only=False, as published",
            n,
            lambda: [torch.load(path, weights_only=False) for path in files],
        )
        for encoding in ("zarr", "parquet"):
            into = root / f"a.{encoding}"
            ours = rate(f"tree -> {encoding}", n, partial(convert, root / "tree", into, workers=1))
            shares = f"{ours / alone:.0%} of torch.load, {ours / unsafe:.0%} of the published way"
            print(f"{'':52} {shares} (goal 80 %)")
        rate("zarr -> parquet", n, lambda: convert(root / "a.zarr", root / "b.parquet", workers=1))
        rate("parquet -> zarr", n, lambda: convert(root / "a.parquet", root / "b.zarr", workers=1))
        for encoding in ("zarr", "parquet"):
            write_from_memory(root / f"m.{encoding}", encoding, indices, scores)


if __name__ == "__main__":
    main()

"""Bytes an image against speed in Zarr: order of the cells, codec and chunk size, on the maps of a store.

    python benchmarks/chunk_codecs.py labels.zarr [--rows 800]

Reads real maps from a store that was built with ``--value-step exact`` (or an .npz file with ``indices`` and
``values``), rounds them to the default step, and compresses both forms in every way that the format allows. The
table in ``docs/explanation/size.md`` shows what matters of it; ``size.py`` compares what stores are made of.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from machine import describe_machine
from numcodecs import Blosc, Zstd
from numpy.typing import NDArray

from relabel_store import open_store
from relabel_store.labels.topk import sort_ranks
from relabel_store.labels.values import ValueStep

ORDERS = {
    "ranks outermost": (0, 1, 2, 3),
    "cells outermost": (0, 2, 3, 1),
    "cells before samples": (2, 3, 0, 1),
}
CHUNK_ROWS = (64, 128, 256, 512)


@dataclass(frozen=True)
class Codec:
    """A compressor by name."""

    name: str
    encode: Callable[[NDArray[np.generic]], bytes]


CODECS = (
    Codec("zstd 3", Zstd(level=3).encode),
    Codec("zstd 5", Zstd(level=5).encode),
    Codec("zstd 19", Zstd(level=19).encode),
    Codec("blosc zstd 2, byte shuffle, 512 KiB", Blosc("zstd", 2, Blosc.SHUFFLE, 512 * 1024).encode),
    Codec("blosc zstd 3, 128 KiB", Blosc("zstd", 3, Blosc.NOSHUFFLE, 128 * 1024).encode),
    Codec("blosc zstd 9, byte shuffle", Blosc("zstd", 9, Blosc.SHUFFLE).encode),
    Codec("blosc zstd 9, bit shuffle", Blosc("zstd", 9, Blosc.BITSHUFFLE).encode),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("--rows", type=int, default=800)
    arguments = parser.parse_args()
    indices, scores = read_maps(arguments.store, arguments.rows)
    stored, rounded = sort_ranks(indices, ValueStep(0.125).encode(scores))
    _, exact = sort_ranks(indices, ValueStep(None).encode(scores))
    forms = {"indices": stored, "values, step 0.125": rounded, "values, exact": exact}
    n = len(indices)
    print(describe_machine(), f"{n} maps, one core", sep="\n")
    print("| form | order | codec | chunk rows | bytes an image | rows/s |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for (name, rows), order, codec in product(forms.items(), ORDERS, CODECS):
        for chunk_rows in CHUNK_ROWS if codec.name == "zstd 19" else (256,):
            size, seconds = measure(rows, ORDERS[order], codec, chunk_rows)
            print(
                f"| {name} | {order} | {codec.name} | {chunk_rows} | {size / n:,.0f} | {n / seconds:,.0f} |"
            )


def read_maps(path: str, rows: int) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Return indices and scores, as exact as the file holds them."""
    if path.endswith(".npz"):
        with np.load(path) as file:
            return file["indices"][:rows].astype(np.uint16), file["values"][:rows].astype(np.float32)
    store = open_store(path)
    if store.manifest.label_map.value_step != "exact":
        raise SystemExit(f"{path}: values are rounded already; build it with --value-step exact")
    maps = store.read_rows([row for row in range(min(rows, len(store))) if store.has_label(row)])
    return maps.indices.astype(np.uint16), maps.values.astype(np.float32)


def measure(
    rows: NDArray[np.generic], order: tuple[int, ...], codec: Codec, chunk_rows: int
) -> tuple[int, float]:
    """Return bytes and seconds of CPU time for compressing rows a chunk at a time."""
    size, started = 0, time.process_time()
    for start in range(0, len(rows), chunk_rows):
        size += len(codec.encode(np.ascontiguousarray(rows[start : start + chunk_rows].transpose(order))))
    return size, time.process_time() - started


if __name__ == "__main__":
    main()

"""What the encoding ``packed`` does with classes and values, beside what else was tried: bytes an image.

    python benchmarks/packing_ideas.py maps.npz

Reads maps as ``size.py`` does, at the default step, and compresses them part by part. *Entropy* is what no coder with
fixed tables for these contexts can beat, tables not counted; the rest is compressed. ``docs/explanation/size.md`` shows
the outcome.
"""

from __future__ import annotations

import argparse
import lzma
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from chunk_codecs import read_maps
from machine import describe_machine
from numpy.typing import NDArray

from relabel_store.labels.packing.classes import pack_classes
from relabel_store.labels.packing.values import pack_falls, pack_plane, to_integers
from relabel_store.labels.topk import sort_ranks
from relabel_store.labels.values import ValueStep

Numbers = NDArray[np.int64]
Idea = tuple[str, str, float]  # what it is of, what is done, bytes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("maps")
    indices, scores = read_maps(parser.parse_args().maps, 10**9)
    indices, values = sort_ranks(indices, ValueStep(0.125).encode(scores))
    n = len(indices)
    print(describe_machine(), f"{n} maps at step 1/8", sep="\n")
    print("| part | idea | bytes an image |")
    print("| --- | --- | ---: |")
    for part, idea, size in [
        *ideas_for_classes(indices),
        *ideas_for_values(values),
        *levels(np.ascontiguousarray(indices), values),
    ]:
        print(f"| {part} | {idea} | {size / n:,.0f} |")


def ideas_for_classes(indices: NDArray[np.uint16]) -> Iterator[Idea]:
    """Yield what can be done with class indices."""
    cells = indices.transpose(0, 2, 3, 1)
    yield "classes", "as they are, zstd 19", zstd(cells)
    yield "classes", "as they are, brotli 11", len(pa.Codec("brotli", 11).compress(contiguous(cells)))
    yield "classes", "as they are, xz 9", len(lzma.compress(contiguous(cells), preset=9))
    ranks = np.argsort(cells, axis=-1)
    permutations = (ranks * 5 ** np.arange(5)).sum(axis=-1)
    distinct, codes = np.unique(permutations, return_inverse=True)
    assert len(distinct) <= 120
    yield "classes", "sorted by class, and their order, zstd 19", zstd(np.sort(cells, axis=-1)) + zstd(codes)
    packed = pack_classes(np.ascontiguousarray(indices))
    own = zstd(packed.sizes) + zstd(packed.gaps)
    yield "classes", "list of a map's classes, and places in it, zstd 19", own + zstd(places_of_all(indices))
    listed = own + zstd(packed.places)
    moves = packed.moves.astype(np.int64)
    yield "classes", "**moves to left and above, list, places; zstd 19**", listed + by_rank(moves)
    yield (
        "classes",
        "moves that count only classes still free, zstd 19",
        listed + by_rank(free_moves(indices)[0]),
    )
    free, left_over = free_moves(indices)
    uniform = float(np.log2(np.repeat(packed.sizes, (moves == 0).sum(axis=(1, 2, 3)))).sum() / 8)
    context = np.arange(5)[:, None, None] * 16 + left_over
    yield (
        "classes",
        "the same, entropy by rank and count of those free",
        own + uniform + entropy(free, context),
    )


def ideas_for_values(values: NDArray[np.float16]) -> Iterator[Idea]:
    """Yield what can be done with values."""
    cells = values.transpose(0, 2, 3, 1)
    yield "values", "as they are, zstd 19", zstd(cells)
    yield "values", "as they are, brotli 11", len(pa.Codec("brotli", 11).compress(contiguous(cells)))
    integers = to_integers(values, 0.125)
    falls = pack_falls(integers).astype(np.int64)
    best = integers[:, 0].view(np.int16).astype(np.int64)
    fallen = by_rank(falls)
    yield "values", "best as it is, falls from rank to rank, zstd 19", zstd(best) + fallen
    left = neighbour(best, 0, 1, 0)
    yield "values", "best against left, falls, zstd 19", zstd(zigzag(best - left)) + fallen
    plane = pack_plane(integers[:, 0]).astype(np.int64)
    yield "values", "**best against left + above - above left, falls; zstd 19**", zstd(plane) + fallen
    above = neighbour(best, 1, 0, 0)
    guess = np.clip(left + above - neighbour(best, 1, 1, 0), np.minimum(left, above), np.maximum(left, above))
    median = zigzag(best - guess)
    yield "values", "best against the median of these, falls, zstd 19", zstd(median) + fallen
    around = neighbour(falls, 0, 1, 0) + neighbour(falls, 1, 0, 0)
    context = np.arange(4)[:, None, None] * 32 + magnitude(around)
    size = entropy(median, magnitude(guess)) + entropy(falls, context)
    yield "values", "the same, entropy by size of what is expected", size


def levels(indices: NDArray[np.uint16], values: NDArray[np.float16]) -> Iterator[Idea]:
    """Yield the bytes of all streams at each level of zstd."""
    packed, integers = pack_classes(indices), to_integers(values, 0.125)
    streams = [
        packed.sizes,
        packed.gaps,
        *packed.moves.swapaxes(0, 1),
        packed.places,
        pack_plane(integers[:, 0]),
    ]
    streams += list(pack_falls(integers).swapaxes(0, 1))
    for level in (1, 2, 3, 5, 9, 12, 15, 19, 22):
        yield "both", f"zstd {level}", sum(zstd(stream.astype(np.int64), level) for stream in streams)


def places_of_all(indices: NDArray[np.uint16]) -> Numbers:
    """Return where each class stands among those of its map."""
    return np.stack([np.unique(one, return_inverse=True)[1].reshape(one.shape) for one in indices])


def free_moves(indices: NDArray[np.uint16]) -> tuple[Numbers, Numbers]:
    """Return moves that skip classes which better ranks have taken, or both neighbours have, and how many are left."""
    classes = indices.astype(np.int64)
    offered = np.concatenate([neighbour(classes, 0, 1, -1), neighbour(classes, 1, 0, -1)], axis=1)
    is_free = offered >= 0
    for place in range(1, offered.shape[1]):
        is_free[:, place] &= ~(offered[:, place : place + 1] == offered[:, :place]).any(axis=1)
    moves, left_over = np.zeros_like(classes), np.zeros_like(classes)
    for rank in range(classes.shape[1]):
        left_over[:, rank] = is_free.sum(axis=1)
        is_here = is_free & (offered == classes[:, rank : rank + 1])
        moves[:, rank] = np.where(is_here.any(axis=1), (np.cumsum(is_free, axis=1) * is_here).sum(axis=1), 0)
        is_free &= ~is_here
    return moves, left_over


def neighbour(numbers: Numbers, rows: int, columns: int, outside: int) -> Numbers:
    """Return for each cell the number so many rows above and columns to the left."""
    moved = np.full_like(numbers, outside)
    n_rows, n_cols = numbers.shape[-2:]
    moved[..., rows:, columns:] = numbers[..., : n_rows - rows, : n_cols - columns]
    return moved


def zigzag(numbers: Numbers) -> Numbers:
    """Return signed numbers as unsigned ones that are as small."""
    return np.where(numbers < 0, -2 * numbers - 1, 2 * numbers)


def magnitude(numbers: Numbers) -> Numbers:
    """Return about how large numbers are: twice their binary logarithm, at most 31."""
    return np.minimum((2 * np.log2(1 + np.maximum(numbers, 0))).astype(np.int64), 31)


def entropy(numbers: Numbers, context: Numbers) -> float:
    """Return the bytes that numbers take at least where a context tells how frequent each is."""
    pairs = np.broadcast_to(context, numbers.shape).reshape(-1) * (numbers.max() + 1) + numbers.reshape(-1)
    bits = sum(
        (counts * np.log2(counts)).sum() * sign
        for sign, counts in (
            (1, np.bincount(np.broadcast_to(context, numbers.shape).reshape(-1)).astype(float) + 1e-300),
            (-1, np.bincount(pairs).astype(float) + 1e-300),
        )
    )
    return float(bits / 8)


def by_rank(numbers: Numbers) -> int:
    """Return the bytes of numbers compressed rank by rank."""
    return sum(zstd(numbers[:, rank]) for rank in range(numbers.shape[1]))


def zstd(numbers: NDArray[np.generic], level: int = 19) -> int:
    """Return the bytes of numbers as zstd makes them, integers of 64 bits as planes of bytes."""
    codec = pa.Codec("zstd", level)
    if numbers.dtype != np.int64:
        return len(codec.compress(contiguous(numbers)))
    planes = np.ascontiguousarray(numbers).reshape(-1).view(np.uint8).reshape(-1, 8).T
    return sum(len(codec.compress(contiguous(plane))) for plane in planes if plane.any())


def contiguous(numbers: NDArray[np.generic]) -> bytes:
    """Return numbers as bytes in C order."""
    return np.ascontiguousarray(numbers).tobytes()


if __name__ == "__main__":
    main()

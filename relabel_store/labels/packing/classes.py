"""Class indices as moves between neighbouring cells, and a list of classes for each map.

Most classes of a cell are also among those of the cell to its left or above it. Such a class is stored as a *move*,
which says at which rank of that neighbour it stands; any other one as its place among the map's own classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relabel_store.errors import FormatError
from relabel_store.labels.topk import IndexArray

MAX_RANKS = 127  # that moves reach in each neighbour: left, above and "neither" fit a byte
_BLOCK = 2**15  # numbers followed at once: two arrays of 8 B each stay in the second-level cache

Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class PackedClasses:
    """The class indices of n label maps.

    Attributes
    ----------
    sizes
        Count of distinct classes of each map, ``(n,)``.
    gaps
        The classes of each map, rising, as differences between neighbours less one; the first as it is.
    moves
        uint8 ``(n, k, n_rows, n_cols)``: 0 for a class that is listed, ``1 + rank`` for that of the cell to the left,
        ``1 + min(k, 127) + rank`` for that of the cell above.
    places
        Of each class whose move is 0, in C order of (n, k, n_rows, n_cols): where it stands among those of its map.
    """

    sizes: Integers
    gaps: Integers
    moves: NDArray[np.uint8]
    places: Integers


def pack_classes(indices: IndexArray) -> PackedClasses:
    """Return class indices as moves and lists.

    Parameters
    ----------
    indices
        ``(n, k, n_rows, n_cols)``, C-contiguous, all below the dtype's largest number.
    """
    moves = _moves(indices)
    at = np.flatnonzero(moves == 0)
    maps = at // max(math.prod(indices.shape[1:]), 1)
    classes = indices.reshape(-1).take(at).astype(np.int64)
    span = int(classes.max(initial=0)) + 1
    # Sorted by map, then by class: a map's own classes stand side by side.
    own, place = np.unique(maps * span + classes, return_inverse=True)
    sizes = np.bincount(own // span, minlength=len(indices))
    starts = np.cumsum(sizes) - sizes
    gaps = np.diff(own, prepend=0) - 1
    gaps[starts] = own[starts] % span
    return PackedClasses(sizes, gaps, moves, place.reshape(-1) - starts[maps])


def _moves(indices: IndexArray) -> NDArray[np.uint8]:
    """Return the lowest move that leads to each class, 0 where none does, ``(n, k, n_rows, n_cols)``."""
    reach = min(indices.shape[1], MAX_RANKS)
    # The largest of 256 - move is that of the lowest move, and a byte has no 256.
    complements = np.zeros(indices.shape, np.uint8)
    for first, neighbour in zip((1, 1 + reach), _neighbours(indices), strict=True):
        for rank in range(reach):
            is_same = indices == neighbour[:, rank : rank + 1]
            np.maximum(complements, is_same * np.uint8(256 - first - rank), out=complements)
    return np.negative(complements)


def _neighbours(indices: IndexArray) -> tuple[IndexArray, IndexArray]:
    """Return the class indices of the cells to the left and above, the dtype's largest number where there is none."""
    no_class = np.iinfo(indices.dtype).max
    left, above = np.full_like(indices, no_class), np.full_like(indices, no_class)
    left[..., 1:] = indices[..., :-1]
    above[:, :, 1:] = indices[:, :, :-1]
    return left, above


def unpack_classes(packed: PackedClasses, num_classes: int, into: IndexArray) -> None:
    """Write the class indices that `pack_classes` was given.

    Parameters
    ----------
    into
        ``(n, k, n_rows, n_cols)``, C-contiguous, to be overwritten.

    Raises
    ------
    FormatError
        A move leaves the map, or a place or class is out of range.
    """
    n, k, n_rows, n_cols = packed.moves.shape
    _require_moves_inside(packed.moves, min(k, MAX_RANKS))
    map_size = k * n_rows * n_cols
    moves, indices = packed.moves.reshape(-1), into.reshape(-1)
    listed = np.flatnonzero(moves == 0)
    ends = np.searchsorted(listed, np.arange(1, n + 1) * map_size)
    written = np.empty_like(indices)  # elsewhere it holds what nobody looks at
    written[listed] = _listed_classes(packed, np.diff(ends, prepend=0), num_classes, into.dtype)
    block = max(_BLOCK // map_size, 1) * map_size
    ways = _Ways(k, n_rows, n_cols, min(block, len(indices)))
    for start in range(0, len(indices), block):
        here = slice(start, start + block)
        halfway = ways.halfway(moves[here])
        # Right for every class whose way is at an end there, among them those that the others go by.
        written[here].take(halfway).take(halfway, out=indices[here], mode="clip")


def _require_moves_inside(moves: NDArray[np.uint8], reach: int) -> None:
    if moves.max(initial=0) > 2 * reach:
        raise FormatError(f"moves: {moves.max()}, expected at most {2 * reach}")
    first_row, first_column = moves[:, :, 0], moves[..., 0]
    if ((first_column > 0) & (first_column <= reach)).any() or (first_row > reach).any():
        raise FormatError(
            "moves: one leads out of the map, to the left of its first column or above its first row"
        )


def _listed_classes(
    packed: PackedClasses, per_map: Integers, num_classes: int, dtype: np.dtype[Any]
) -> IndexArray:
    """Return the class at each place."""
    sizes = packed.sizes.astype(np.int64)
    ends = np.cumsum(sizes)
    starts = ends - sizes
    classes = np.cumsum(packed.gaps.astype(np.int64) + 1)
    before = np.concatenate([np.zeros(1, np.int64), classes])[starts]
    classes -= np.repeat(before + 1, sizes)
    if classes.max(initial=0) >= num_classes:
        raise FormatError(f"classes: {classes.max()}, expected below {num_classes}")
    at = np.repeat(starts, per_map)
    at += packed.places
    if (at >= np.repeat(ends, per_map)).any():
        raise FormatError("places: one is past the last of its map's classes")
    return classes.astype(dtype).take(at)


class _Ways:
    """Follows moves to where a class is listed.

    A move names the cell next door, which may itself hold a move. Going twice as far in each round, all of them arrive
    after as many rounds as the longest way has binary digits, whatever their number. The last round is left to the
    classes themselves, which are a quarter as wide as positions.
    """

    def __init__(self, k: int, n_rows: int, n_cols: int, count: int) -> None:
        reach, cells = min(k, MAX_RANKS), n_rows * n_cols
        # How far back in C order of (k, n_rows, n_cols) the class lies that a move names, for each rank.
        steps = np.zeros((k, 256), np.int64)
        ranks = np.arange(reach)[None, :] - np.arange(k)[:, None]
        steps[:, 1 : 1 + reach] = ranks * cells - 1
        steps[:, 1 + reach : 1 + 2 * reach] = ranks * cells - n_cols
        self._steps = steps.reshape(-1)
        self._rank_offset = np.tile(np.repeat(np.arange(k) * 256, cells), -(-count // (k * cells)))
        self._here = np.arange(count)
        self._rounds = (n_rows + n_cols - 2).bit_length() - 1
        self._room = (np.empty(count, np.int64), np.empty(count, np.int64))

    def halfway(self, moves: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return for each of some maps' classes a position that takes it there, or there in two such steps.

        Parameters
        ----------
        moves
            ``(n * k * n_rows * n_cols,)``.
        """
        count = len(moves)
        source, other = (room[:count] for room in self._room)
        np.add(moves, self._rank_offset[:count], out=other)
        self._steps.take(other, out=source, mode="clip")
        np.add(source, self._here[:count], out=source)
        for _ in range(self._rounds):
            source.take(source, out=other, mode="clip")
            source, other = other, source
        return source

"""Room for a store where it is to lie."""

from __future__ import annotations

import shutil

from relabel_store.errors import NotEnoughSpaceError
from relabel_store.generate.build_options import BuildOptions
from relabel_store.store.files import StoreFiles

# Measured at 15x15x5 in the exact form, the largest: 2,600 bytes a sample of 1,125 pairs; the sample table
# takes 60 more with ImageNet's names.
_BYTES_PER_PAIR = 2.5
_BYTES_PER_SAMPLE = 200


def require_room(files: StoreFiles, options: BuildOptions, samples: int, grid: tuple[int, int]) -> None:
    """Check that a store fits where it is to lie; not of a dry run, which says how much it would be.

    Raises
    ------
    NotEnoughSpaceError
        It does not.
    """
    pairs = options.top_k * grid[0] * grid[1]
    needed = int(samples * (pairs * _BYTES_PER_PAIR + _BYTES_PER_SAMPLE))
    free = free_bytes(files)
    if free is not None and free < needed and not options.dry_run:
        raise NotEnoughSpaceError(
            f"output {files.location!r}: {free / 1e6:,.1f} MB free, about {needed / 1e6:,.1f} MB needed for "
            f"{samples} images at {grid[0]}x{grid[1]} cells and top {options.top_k}; free some or use --limit"
        )


def free_bytes(files: StoreFiles) -> int | None:
    """Return the room where the store lies or will lie; None in an object store."""
    path = files.path
    if path is None:
        return None
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free

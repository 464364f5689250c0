"""What lies in a store, whatever it is: also what no reader would look at."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from relabel_store import spec
from relabel_store.store.files import StoreFiles

EMPTY_FOLDER = "an empty folder"


@dataclass(frozen=True)
class Inventory:
    """The files of a store by name, and what else is there.

    Parameters
    ----------
    sizes
        Of each file in bytes, by its path below the store.
    others
        What is neither a file nor a folder with something in it, and what it is instead, by its path.
    is_whole
        False where the place does not list its files, as most web servers: then `sizes` lacks some.
    """

    sizes: Mapping[str, int]
    others: Mapping[str, str]
    is_whole: bool = True


def take_inventory(files: StoreFiles) -> Inventory:
    """Return what lies in a store."""
    if files.path is not None:
        sizes: dict[str, int] = {}
        others: dict[str, str] = {}
        for name, size, what in _walk(files.path, ""):
            if size is None:
                others[name] = what
            else:
                sizes[name] = size
        return Inventory(sizes, others)
    listed = {name: stamp.size_bytes for name, stamp in files.listing("", deep=True).items()}
    is_whole = bool(listed) and (spec.COMPLETE_FILE in listed or files.size(spec.COMPLETE_FILE) is None)
    return Inventory(listed, {}, is_whole)


def _walk(root: Path, below: str) -> Iterator[tuple[str, int | None, str]]:
    """Yield name, size in bytes or None, and what it is, of everything below a folder.

    Links to files count as these: a cache of downloads may consist of them. Links to folders are not followed, so
    that none leads round in a circle or out of the store.
    """
    with os.scandir(root / below) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    if below and not found:
        yield below, None, EMPTY_FOLDER
    for entry in found:
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, name)
            continue
        try:
            status = entry.stat()
        except OSError:
            yield name, None, "a link that leads nowhere"
            continue
        if stat.S_ISREG(status.st_mode):
            yield name, status.st_size, "a file"
        else:
            is_folder = stat.S_ISDIR(status.st_mode)
            yield name, None, "a link to a folder" if is_folder else "neither a file nor a folder"

"""Parts as pieces beside a file that is put together from them, so that formats of one file take several processes."""

from __future__ import annotations

from pathlib import Path

from relabel_store import spec
from relabel_store.store.local_files import sync_file


def piece_path(path: Path, part: int) -> Path:
    """Return where a part waits until the file at the path is put together."""
    return path.with_name(f"{spec.part_name(part)}.piece")


def sync(path: Path) -> None:
    """Make a file and its name durable."""
    sync_file(path)
    sync_file(path.parent)

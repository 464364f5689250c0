"""From the path or URL of a store to its files."""

from __future__ import annotations

import os
from pathlib import Path

from relabel_store.store.files import StoreFiles
from relabel_store.store.local_files import LocalFiles


def open_files(location: str | os.PathLike[str] | StoreFiles) -> StoreFiles:
    """Return the files of the store at a path; files as they are."""
    if isinstance(location, str | os.PathLike):
        return LocalFiles(Path(location))
    return location

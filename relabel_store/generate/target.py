"""Where a store may be begun: not among the images, and not inside another store."""

from __future__ import annotations

import os
from pathlib import Path

from relabel_store import spec
from relabel_store.errors import TargetExistsError
from relabel_store.images.source import ImageSource
from relabel_store.store.files import StoreFiles
from relabel_store.store.occupied import is_store


def require_apart(files: StoreFiles, images: str | os.PathLike[str] | ImageSource) -> None:
    """Check that a store that is not begun yet does not lie in what others read whole.

    Parameters
    ----------
    images
        As for `build`.

    Raises
    ------
    TargetExistsError
        In the folder of its images it would be a class without images to ``ImageFolder``; in another store, a file
        that nobody listed.
    """
    if files.path is None or is_store(files):
        return
    out = files.path.resolve()
    if isinstance(images, str | os.PathLike) and Path(images).is_dir():
        root = Path(images).resolve()
        if out.is_relative_to(root):
            raise TargetExistsError(
                f"output {files.location!r}: lies in the folder of the images, {str(images)!r}, where ImageFolder "
                "would take it for a class; choose a path outside of it"
            )
    for above in out.parents:
        if _is_store(above):
            raise TargetExistsError(
                f"output {files.location!r}: lies in the store {str(above)!r}, which holds nothing but itself; "
                "choose a path outside of it"
            )


def _is_store(path: Path) -> bool:
    """Tell a store of ours from a Zarr group of somebody else's, which may hold other groups."""
    return is_store(path) and any((path / name).exists() for name in (spec.JOURNAL_DIR, spec.COMPLETE_FILE))

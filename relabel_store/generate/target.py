"""Where a store may be begun: not among the images, and not inside another store."""

from __future__ import annotations

import os

from relabel_store.errors import TargetExistsError
from relabel_store.images.source import ImageSource
from relabel_store.store.apart import is_inside, require_outside_stores
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
    if is_inside(files.path, images):
        raise TargetExistsError(
            f"output {files.location!r}: lies in the folder of the images, {str(images)!r}, where ImageFolder "
            "would take it for a class; choose a path outside of it"
        )
    require_outside_stores(files.path)

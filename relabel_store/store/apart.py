"""Where a store, or what is made of one, may be begun: not in what others read whole."""

from __future__ import annotations

import os
from pathlib import Path

from relabel_store import spec
from relabel_store.errors import TargetExistsError
from relabel_store.store.location import is_url
from relabel_store.store.occupied import is_store


def require_outside_stores(path: Path) -> None:
    """Check that a path, which need not be there, does not lie in a store.

    Raises
    ------
    TargetExistsError
        It does: there it would be a file that nobody listed.
    """
    for above in path.resolve().parents:
        if _is_ours(above):
            raise TargetExistsError(
                f"output {str(path)!r}: lies in the store {str(above)!r}, which holds nothing but itself; "
                "choose a path outside of it"
            )


def is_inside(path: Path, location: object) -> bool:
    """Tell whether a path is, or lies in, a folder that may be none."""
    if not isinstance(location, str | os.PathLike) or is_url(location) or not Path(location).is_dir():
        return False
    return path.resolve().is_relative_to(Path(location).resolve())


def _is_ours(path: Path) -> bool:
    """Tell a store of ours from a Zarr group of somebody else's, which may hold other groups."""
    return is_store(path) and any((path / name).exists() for name in (spec.JOURNAL_DIR, spec.COMPLETE_FILE))

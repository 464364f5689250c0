"""Whether a place holds a store, is free for one, or is somebody else's."""

from __future__ import annotations

from relabel_store import spec
from relabel_store.errors import TargetExistsError
from relabel_store.store.complete import read_completion
from relabel_store.store.encodings import ENCODINGS, read_manifest
from relabel_store.store.location import Location, open_files


def is_store(location: Location) -> bool:
    """Tell whether there is a store here, finished or not."""
    files = open_files(location)
    if any(files.size(encoding.manifest_file) is not None for encoding in ENCODINGS.values()):
        return True
    completion = read_completion(files)
    return completion is not None and completion.manifest is not None


def require_free_target(location: Location) -> None:
    """Check that a store can be begun, or gone on with, at a path.

    Raises
    ------
    TargetExistsError
        Something else is there.
    FormatError
        A Zarr group that is no label store, or one whose manifest cannot be read.
    """
    files = open_files(location)
    files.require_folder()
    if read_manifest(files, None) is None:  # raises where it is somebody else's Zarr group
        strangers = sorted(name for name in files.children() if not _is_ours(name))
        if strangers:
            raise TargetExistsError(
                f"output {files.location!r}: holds {len(strangers)} things that are no part of a store, "
                f"{strangers[0]!r} first; choose a path that is free"
            )


def _is_ours(name: str) -> bool:
    return (
        name in (spec.JOURNAL_DIR, spec.COMPLETE_FILE)
        or (name.startswith(".") and name.endswith(".partial"))
        or any(encoding.is_ours(name) for encoding in ENCODINGS.values())
    )

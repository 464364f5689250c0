"""``journal/running/begun.json``: what vouches for the manifest and the sample table until ``complete.json`` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relabel_store import spec
from relabel_store.canonical import canonical_json, has_own_digest, read_json, with_digest
from relabel_store.errors import DamagedFileError, TargetExistsError
from relabel_store.store.files import FileEntry, StoreFiles

# Which content a file may have: more than one from before it is replaced until the store is finished.
Vouched = dict[str, tuple[FileEntry, ...]]


def claim(files: StoreFiles, begun: Mapping[str, FileEntry]) -> None:
    """Record what a build begins with, before it does: of two that begin different ones at once, one is refused.

    Raises
    ------
    TargetExistsError
        Another build was begun here with other files.
    """
    ours: Vouched = {name: (entry,) for name, entry in begun.items()}
    if not files.create(spec.BEGUN_FILE, _to_bytes(ours)) and read_begun(files) not in (None, ours):
        raise TargetExistsError(
            f"output {files.location!r}: a build of other labels or images has just been begun there, or was stopped "
            f"at once; wait for it, remove {spec.BEGUN_FILE!r} if nobody is at it, or choose a path that is free"
        )


def vouch_for(files: StoreFiles, entries: Mapping[str, FileEntry]) -> None:
    """Let files also have this content, before they get it."""
    vouched = read_begun(files) or {}
    for name, entry in entries.items():
        # Where the record was lost, what is there goes on being right until it is replaced.
        known = vouched[name] if name in vouched else _present(files, name)
        vouched[name] = known if entry in known else (*known, entry)
    files.write(spec.BEGUN_FILE, _to_bytes(vouched))


def write_unless_vouched(files: StoreFiles, name: str, data: bytes) -> None:
    """Write a file that a build begins with, unless another host has gone on with what is there.

    It may even have finished the store: the file is then what it was replaced by, and what is recorded here is gone.
    """
    if files.create(name, data) or files.size(spec.COMPLETE_FILE) is not None:
        return
    vouched = (read_begun(files) or {}).get(name, ())
    if vouched and not set(_present(files, name)) & set(vouched):
        files.write(name, data)


def _present(files: StoreFiles, name: str) -> tuple[FileEntry, ...]:
    try:
        return (files.entry(name),)
    except FileNotFoundError:
        return ()


def require_vouched(files: StoreFiles, name: str) -> None:
    """Check a file that nothing else vouches for until the store is finished.

    Raises
    ------
    DamagedFileError
        It is there, and is not what was written.
    """
    vouched: tuple[FileEntry, ...] | None = ()
    while True:
        before, vouched = vouched, (read_begun(files) or {}).get(name)
        size = None if vouched is None else files.size(name)
        if vouched is None or size is None:
            return  # nothing is recorded, or nothing any more: another process has just finished the store
        # What has another size is not read: there is no telling how large it is.
        if any(size == entry.size_bytes for entry in vouched) and set(_present(files, name)) & set(vouched):
            return
        # What a file becomes is recorded first: where that is as it was, nobody has replaced the file meanwhile.
        if vouched == before:
            raise DamagedFileError(
                f"store file {name!r}: is not what the build began with; restore it, or build into another path"
            )


def read_begun(files: StoreFiles) -> Vouched | None:
    """Return what is recorded, or None where nothing sound is."""
    try:
        return vouched_in(read_json(files.read(spec.BEGUN_FILE)))
    except (FileNotFoundError, ValueError):
        return None


def vouched_in(document: Any) -> Vouched | None:
    """Return what a record says, or None where it is none."""
    try:
        if "digest" in document and not has_own_digest(document):
            return None
        return {name: _entries(entry) for name, entry in document.items() if name != "digest"}
    except (ValueError, AttributeError, TypeError):
        return None


def _entries(entry: Any) -> tuple[FileEntry, ...]:
    found = entry if isinstance(entry, list) else [entry]
    return tuple(map(FileEntry.from_json, found))


def _to_bytes(vouched: Vouched) -> bytes:
    document: dict[str, Any] = {}
    for name, entries in vouched.items():
        listed = [entry.to_json() for entry in entries]
        document[name] = listed if len(listed) > 1 else listed[0]
    return canonical_json(with_digest(document))

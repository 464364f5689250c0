"""Committing a part: whoever creates its record first has made it, and nobody else's bytes stay.

Several may write one part at a time, on hosts that no lock connects, and their bytes may differ (another kind
of device, an image that was mended in between). The rules that keep the winner's files whole:

1. Before a record exists, files of a part are only created, never replaced.
2. The record is created only if absent; that is the commit.
3. Whoever found other bytes under a name than its own, those of an attempt that may be dead or alive, lays its
   own aside first. Once its record is there, and only then, it puts them in place. If it dies before, whoever
   comes next does it: the record names their digests.

So after a record no bytes but those that it names are ever written, and until rule 3 is done the digests of the
record refuse what lies there.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping

from relabel_store import spec
from relabel_store.errors import DamagedFileError
from relabel_store.manifest import Manifest
from relabel_store.store.complete import read_completion
from relabel_store.store.encodings import encoding_of
from relabel_store.store.files import FileEntry, StoreFiles
from relabel_store.store.journal import PartRecord, facts_path, is_part_of, read_record, record_path

_ASIDE_DIR = f"{spec.RUNNING_DIR}/aside"  # part-00042.ATTEMPT/SHA256
_ATTEMPTS = 3


def commit_part(
    files: StoreFiles, manifest: Manifest, record: PartRecord, contents: Mapping[str, bytes]
) -> PartRecord:
    """Write the files of a part and its record, unless somebody was faster.

    Parameters
    ----------
    contents
        Every file that the record names, by name.

    Returns
    -------
    PartRecord
        Of the part as it is in the store now; of others where they were faster.

    Raises
    ------
    NotEnoughSpaceError
        There is no room; the part does not exist.
    """
    found = read_part(files, manifest, record.part)
    if found is not None:
        return found
    contested = {name: data for name, data in contents.items() if not _create_same(files, name, data)}
    aside = _lay_aside(files, record.part, contested)
    winner = _create_record(files, manifest, record)
    finished = _record_of_finished(files, record.part) if encoding_of(manifest).is_self_contained else None
    if finished is not None and finished != winner:
        # The journal goes when such a store is finished, and so our record found its place free. What stands is what
        # the store was finished with.
        files.remove([record_path(record.part)])
        winner = finished
    if winner == record:
        for name, data in contested.items():
            files.write(name, data)
    files.remove(aside)
    return winner


def _record_of_finished(files: StoreFiles, part: int) -> PartRecord | None:
    completion = read_completion(files)
    return None if completion is None else completion.parts.get(part)


def read_part(files: StoreFiles, manifest: Manifest, part: int) -> PartRecord | None:
    """Return the record of a part, or None where it is not finished."""
    found = read_record(files, part)
    return found if found is not None and is_part_of(found, manifest) else None


def settle(files: StoreFiles, records: Mapping[int, PartRecord]) -> None:
    """Put in place what winners had laid aside when they died."""
    aside: dict[tuple[str, str], str] = {}
    for name in files.listing(_ASIDE_DIR, deep=True):
        attempt, _, sha256 = name.removeprefix(f"{_ASIDE_DIR}/").partition("/")
        aside[attempt.partition(".")[0], sha256] = name
    if not aside:
        return
    for record in records.values():
        for name, entry in files_of(record):
            kept = aside.get((spec.part_name(record.part), entry.sha256))
            if kept is not None and not _is_there(files, name, entry):
                _put_in_place(files, kept, name, entry)


def files_of(record: PartRecord) -> Iterator[tuple[str, FileEntry]]:
    """Yield the name and entry of each file that a record names."""
    yield from record.files.items()
    yield facts_path(record.part), record.facts


def _create_same(files: StoreFiles, name: str, data: bytes) -> bool:
    """Create a file; tell whether the bytes under the name are these now."""
    return files.create(name, data) or _is_there(files, name, FileEntry.of_bytes(data))


def _is_there(files: StoreFiles, name: str, entry: FileEntry) -> bool:
    try:
        return files.size(name) == entry.size_bytes and files.entry(name) == entry
    except FileNotFoundError:
        return False


def _lay_aside(files: StoreFiles, part: int, contents: Mapping[str, bytes]) -> list[str]:
    attempt = f"{_ASIDE_DIR}/{spec.part_name(part)}.{uuid.uuid4().hex}"
    aside = {f"{attempt}/{FileEntry.of_bytes(data).sha256}": data for data in contents.values()}
    for name, data in aside.items():
        files.write(name, data)
    return list(aside)


def _create_record(files: StoreFiles, manifest: Manifest, record: PartRecord) -> PartRecord:
    """Create a record; return the one that is there then."""
    name = record_path(record.part)
    for _ in range(_ATTEMPTS):
        if files.create(name, record.to_bytes()):
            return record
        # Whose it is shows its content: also that of a request of ours whose answer was lost.
        found = read_part(files, manifest, record.part)
        if found is not None:
            return found
        files.remove([name])  # no sound record, so no part: see `read_journal`
    raise DamagedFileError(
        f"store file {name!r}: is no record, and comes back when it is removed; find out who writes it"
    )


def _put_in_place(files: StoreFiles, kept: str, name: str, entry: FileEntry) -> None:
    try:
        data = files.read(kept)
    except FileNotFoundError:
        return  # its owner is alive, and was faster
    if FileEntry.of_bytes(data) == entry:
        files.write(name, data)

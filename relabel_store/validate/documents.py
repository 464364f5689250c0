"""Bytes of a stranger's to values, or to None: nothing here raises at what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from relabel_store import spec
from relabel_store.canonical import has_own_digest, read_json
from relabel_store.errors import DamagedFileError
from relabel_store.store.files import FileEntry, StoreFiles
from relabel_store.store.journal import PartRecord

_DEEPEST = 50  # levels of a JSON document; the deepest of ours, metadata of an array in its group, has 10


def is_below(name: str) -> bool:
    """Tell whether a name is that of a file below the store; a stranger's list may hold any."""
    return not {"", ".", ".."} & set(name.split("/")) and "\\" not in name and "\0" not in name


def read_regular(files: StoreFiles, name: str) -> bytes | None:
    """Return the content of a file, or None where there is none; of one larger than any of its kind, nothing."""
    try:
        return files.read(name)
    except FileNotFoundError:
        return None
    except DamagedFileError:
        return b""


def entry_of_regular(files: StoreFiles, name: str) -> FileEntry | None:
    """Return size and digest of a file, or None where there is none."""
    try:
        return files.entry(name)
    except FileNotFoundError:
        return None


def json_object(data: bytes) -> dict[str, Any] | None:
    """Return the JSON object that bytes hold, or None where they do not, or nest deeper than any of a store."""
    try:
        found = read_json(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) and _is_shallow(found) else None


def _is_shallow(document: Any) -> bool:
    """Tell whether a document can be walked without fear for the stack."""
    level = [document]
    for _ in range(_DEEPEST):
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, dict | list)
        ]
        if not level:
            return True
    return False


def has_own_digest_at_all(document: Mapping[str, Any]) -> bool:
    """Tell whether a document holds its own digest; also of one that cannot be written as JSON."""
    try:
        return has_own_digest(document)
    except ValueError:  # half a character, which JSON can say and UTF-8 cannot
        return False


def file_entry(document: Any) -> FileEntry | None:
    """Return the entry that a JSON value is, or None."""
    try:
        return FileEntry.from_json(document)
    except ValueError:
        return None


def part_record(document: Any) -> PartRecord | None:
    """Return the part record that a JSON value is, or None."""
    try:
        return PartRecord.from_json(document)
    except ValueError:
        return None


def manifest_in_parquet(data: bytes) -> dict[str, Any] | None:
    """Return the manifest in the metadata of a Parquet file, or None where there is none."""
    try:
        with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
            metadata = file.metadata.metadata or {}
    except (pa.ArrowException, OSError, ValueError):
        return None
    return json_object(metadata.get(spec.MANIFEST_ATTRIBUTE.encode(), b""))

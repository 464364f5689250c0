"""The journal: one record a finished part. A part without a record does not exist."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relabel_store import spec
from relabel_store.canonical import canonical_json, has_own_digest, read_json, with_digest
from relabel_store.errors import FormatError
from relabel_store.manifest import Manifest
from relabel_store.store.files import FileEntry, FileStamp, StoreFiles, require_plain_name

_RECORD_FILE = re.compile(r"part-.*\.json")


@dataclass(frozen=True)
class BadImage:
    """A row of a finished part that has no label, and why: a bad image, or of converted labels a bad label file."""

    row: int
    reason: str


@dataclass(frozen=True)
class PartRecord:
    """What is recorded of a finished part."""

    part: int
    rows: range
    files: Mapping[str, FileEntry]  # the shard of each array, by path below the store
    facts: FileEntry  # the part's slice of sample facts, which is gone once merged
    bad_images: tuple[BadImage, ...]
    exif_oriented: int

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types, with a digest of itself."""
        return with_digest(
            {
                "part": self.part,
                "rows": [self.rows.start, self.rows.stop],
                "files": {name: entry.to_json() for name, entry in self.files.items()},
                "facts": self.facts.to_json(),
                "bad_images": [{"row": bad.row, "reason": bad.reason} for bad in self.bad_images],
                "exif_oriented": self.exif_oriented,
            }
        )

    @classmethod
    def from_json(cls, document: Any) -> PartRecord:
        """Return the record of a JSON object.

        Raises
        ------
        FormatError
            It is no record, or its digest is not its own.
        """
        if not isinstance(document, dict) or not has_own_digest(document):
            raise FormatError(
                "journal record: its digest is not that of its content; the part has to be built again"
            )
        try:
            return cls._from_fields(document)
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"journal record: {error}; the part has to be built again") from error

    @classmethod
    def _from_fields(cls, document: dict[str, Any]) -> PartRecord:
        match document:
            case {
                "part": int(part),
                "rows": [int(start), int(stop)],
                "files": dict(files),
                "facts": facts,
                "bad_images": list(bad_images),
                "exif_oriented": int(exif_oriented),
            }:
                return cls(
                    part=part,
                    rows=range(start, stop),
                    files={
                        require_plain_name(name): FileEntry.from_json(entry) for name, entry in files.items()
                    },
                    facts=FileEntry.from_json(facts),
                    bad_images=tuple(BadImage(int(bad["row"]), str(bad["reason"])) for bad in bad_images),
                    exif_oriented=exif_oriented,
                )
        raise FormatError(
            f"journal record: keys {sorted(document)}, expected those of format {spec.FORMAT_VERSION}"
        )

    def to_bytes(self) -> bytes:
        """Return the file in the journal."""
        return canonical_json(self.to_json())


def record_path(part: int) -> str:
    """Return the path of a part's record below the store."""
    return f"{spec.JOURNAL_DIR}/{spec.part_name(part)}.json"


def facts_path(part: int) -> str:
    """Return the path of a part's slice of the sample facts below the store."""
    return f"{spec.JOURNAL_DIR}/{spec.part_name(part)}.parquet"


def mtimes_path(part: int) -> str:
    """Return the path of the times when a part's images were last changed.

    They only spare a resumed build from reading images again to see that they are the same, and are apart
    from the facts because no byte of a finished store may depend on a time.
    """
    return f"{spec.RUNNING_DIR}/{spec.part_name(part)}.mtimes"


def is_part_of(record: PartRecord, manifest: Manifest) -> bool:
    """Tell whether a record is of a part that the manifest divides its rows into."""
    return 0 <= record.part < manifest.num_parts and record.rows == manifest.rows_of_part(record.part)


def read_journal(files: StoreFiles) -> tuple[dict[int, PartRecord], list[str]]:
    """Return the records of the finished parts, and the names of files that are no sound records.

    A record that cannot be read counts as absent: its part is built again.
    """
    journal = Journal(files)
    return journal.records(), journal.broken


class Journal:
    """The journal of a store, each record of which is read once as long as it stays the same.

    Of 100,000 parts a look then takes the pages of a listing, and a record for each part that is new.
    """

    def __init__(self, files: StoreFiles) -> None:
        self._files = files
        self._read: dict[str, tuple[FileStamp, FileEntry, PartRecord | None]] = {}

    def records(self) -> dict[int, PartRecord]:
        """Return the records of the parts that are finished now."""
        self._look()
        records = (record for _, _, record in self._read.values())
        return {record.part: record for record in records if record is not None}

    @property
    def broken(self) -> list[str]:
        """The files that are no sound records, as of the last look."""
        return [name.rpartition("/")[2] for name, (_, _, record) in self._read.items() if record is None]

    def entry(self, part: int) -> FileEntry:
        """Return size and digest of a part's record, as of the last look."""
        return self._read[record_path(part)][1]

    def _look(self) -> None:
        found = {
            name: stamp
            for name, stamp in self._files.listing(spec.JOURNAL_DIR).items()
            if _RECORD_FILE.fullmatch(name.rpartition("/")[2])
        }
        known = {
            name: self._read[name]
            for name, stamp in found.items()
            if name in self._read and self._read[name][0] == stamp
        }
        for name, data in self._files.read_many(name for name in found if name not in known):
            if data is not None:
                known[name] = found[name], FileEntry.of_bytes(data), _parse_record(name, data)
        self._read = {name: known[name] for name in found if name in known}


def read_record(files: StoreFiles, part: int) -> PartRecord | None:
    """Return the record of a part, or None where it has no sound one."""
    name = record_path(part)
    try:
        return _parse_record(name, files.read(name))
    except FileNotFoundError:
        return None


def _parse_record(name: str, data: bytes) -> PartRecord | None:
    try:
        record = PartRecord.from_json(read_json(data))
    except ValueError:
        return None
    return record if record_path(record.part) == name else None

"""What can be learned of a store whose files may be anything."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from functools import cached_property
from typing import Any

from relabel_store import spec
from relabel_store.errors import (
    FormatError,
    StoreNotFoundError,
    UnknownEncodingError,
    UnsupportedVersionError,
)
from relabel_store.manifest import ClaimedManifest, Manifest, require_readable_version
from relabel_store.store.begun import Vouched, vouched_in
from relabel_store.store.encodings import ENCODINGS, StoreEncoding
from relabel_store.store.files import FileEntry, StoreFiles
from relabel_store.store.journal import PartRecord, facts_path, record_path
from relabel_store.validate.documents import (
    entry_of_regular,
    file_entry,
    has_own_digest_at_all,
    is_below,
    json_object,
    manifest_in_parquet,
    part_record,
    read_regular,
)
from relabel_store.validate.inventory import Inventory, take_inventory


class Evidence:
    """The documents of a store, each read once, as far as they are sound.

    Nothing in here reports: checks look at the same documents and say what is wrong with them. A property is None
    where its document is missing, damaged, or depends on one that is.

    Raises
    ------
    StoreNotFoundError
        There is nothing of a store.
    UnsupportedVersionError, UnknownEncodingError
        It is sound, of a version or encoding that this release does not read.
    """

    def __init__(self, files: StoreFiles) -> None:
        self.files = files
        self._require_store()

    @cached_property
    def inventory(self) -> Inventory:
        """What lies in the store."""
        return take_inventory(self.files)

    # The commit of the whole

    @cached_property
    def completion_data(self) -> bytes | None:
        """The bytes of ``complete.json``."""
        return self.read(spec.COMPLETE_FILE)

    @property
    def is_finished(self) -> bool:
        """Whether ``complete.json`` is there, sound or not."""
        return self.completion_data is not None

    @cached_property
    def completion_document(self) -> dict[str, Any] | None:
        """What ``complete.json`` says, where it is a JSON object."""
        return None if self.completion_data is None else json_object(self.completion_data)

    @cached_property
    def completion(self) -> dict[str, Any] | None:
        """The same, where its digest is that of its content."""
        document = self.completion_document
        return document if document is not None and has_own_digest_at_all(document) else None

    @cached_property
    def listed(self) -> Mapping[str, FileEntry] | None:
        """What ``complete.json`` lists; entries that are none, or lead out of the store, are left out."""
        if self.completion is None:
            return None
        files = self.completion.get("files")
        found = {name: file_entry(entry) for name, entry in files.items()} if isinstance(files, dict) else {}
        return {name: entry for name, entry in found.items() if entry is not None and is_below(name)}

    @property
    def listed_names(self) -> Collection[str]:
        """What ``complete.json`` lists, whether or not its entries are any."""
        files = None if self.completion is None else self.completion.get("files")
        return files.keys() if isinstance(files, dict) else ()

    # The manifest

    @cached_property
    def manifest_place(self) -> str | None:
        """The file that holds the manifest."""
        if self.completion is not None and self.completion.get("manifest") is not None:
            return spec.COMPLETE_FILE
        if self.is_finished and self.completion is None and not self._has_manifest_file:
            return self._part_with_manifest
        names = [encoding.manifest_file for encoding in ENCODINGS.values()]
        return next((name for name in names if self.read(name) is not None), None)

    @property
    def _has_manifest_file(self) -> bool:
        return any(self.read(encoding.manifest_file) is not None for encoding in ENCODINGS.values())

    @cached_property
    def manifest_document(self) -> dict[str, Any] | None:
        """The manifest as JSON, where its file is what was recorded of it."""
        place = self.manifest_place
        if place is None:
            return None
        if place == spec.COMPLETE_FILE:
            assert self.completion is not None
            found = self.completion["manifest"]
            return found if isinstance(found, dict) else None
        if place != self._part_with_manifest and not self.is_as_recorded(place):
            return None
        return self.manifest_in(place)

    def manifest_in(self, place: str) -> dict[str, Any] | None:
        """Return the manifest in a file of its own, whether or not the file is as recorded."""
        if place == self._part_with_manifest:
            return manifest_in_parquet(self.files.read(place))
        document = json_object(self.read(place) or b"")
        if document is not None and place == spec.GROUP_FILE:
            attributes = document.get("attributes")
            document = attributes.get(spec.MANIFEST_ATTRIBUTE) if isinstance(attributes, dict) else None
        return document if isinstance(document, dict) else None

    @cached_property
    def claimed(self) -> ClaimedManifest | None:
        """The manifest, where it keeps to its schema."""
        if self.manifest_document is None:
            return None
        require_readable_version_of(self.manifest_document)
        try:
            return ClaimedManifest.from_dict(self.manifest_document)
        except FormatError:
            return None

    @cached_property
    def manifest(self) -> Manifest | None:
        """The manifest, where it keeps to its schema, its fields fit each other, and it lies where it should."""
        if self.claimed is None or not self.is_manifest_in_place:
            return None
        try:
            return Manifest(
                **{field.name: getattr(self.claimed, field.name) for field in fields(self.claimed)}
            )
        except FormatError:
            return None

    @property
    def encoding(self) -> StoreEncoding | None:
        """How the store lies in files."""
        return None if self.manifest is None else ENCODINGS[self.manifest.encoding.name]

    def is_of_a_build(self, name: str) -> bool:
        """Tell whether a build may write a file of this name, outside ``journal/running/``."""
        if self.manifest is None or self.encoding is None:
            return False
        fixed = {self.encoding.manifest_file, self.encoding.samples_file, *self._fixed_names}
        return name in fixed or self.part_of(name) is not None

    @cached_property
    def _fixed_names(self) -> frozenset[str]:
        assert self.manifest is not None
        assert self.encoding is not None
        return frozenset(self.encoding.fixed_files(self.manifest))

    def part_of(self, name: str) -> int | None:
        """Return the part that a file is of by its name: a shard, its record, its facts."""
        assert self.manifest is not None
        assert self.encoding is not None
        # A manifest may claim more parts than could ever be listed; a name holds few numbers.
        for part in {int(number) for number in re.findall(r"\d{1,18}", name)}:
            if part < self.manifest.num_parts and (
                name in (record_path(part), facts_path(part))
                or name in self.encoding.files_of_part(self.manifest, part)
            ):
                return part
        return None

    @property
    def expected_place(self) -> str:
        """The file where the encoding that the manifest names keeps it."""
        assert self.claimed is not None
        encoding = ENCODINGS[self.claimed.encoding.name]
        is_in_completion = encoding.is_self_contained and self.is_finished
        return spec.COMPLETE_FILE if is_in_completion else encoding.manifest_file

    @property
    def is_manifest_in_place(self) -> bool:
        """Whether the manifest lies where its encoding keeps it, as far as that can still be told."""
        return self.is_salvaged or self.manifest_place == self.expected_place

    @property
    def is_salvaged(self) -> bool:
        """Whether the manifest is that of a part, as it was when the store was begun."""
        return self.manifest_place is not None and self.manifest_place == self._part_with_manifest

    @cached_property
    def _part_with_manifest(self) -> str | None:
        """A file of a part that is as recorded, and holds the manifest that was lost with ``complete.json``."""
        if self.completion is not None:
            return None
        for record in self.records_of_completion.values():
            for name, entry in record.files.items():
                is_there = ENCODINGS[spec.ENCODING_PARQUET].is_ours(name) and self.size(name) is not None
                if is_there and self.entry(name) == entry:
                    return name
        return None

    @property
    def has_samples_in_remote_parts(self) -> bool:
        """Whether the sample table lies in files of parts that come over a network: these are read once, for all."""
        is_in_parts = self.encoding is not None and self.encoding.is_self_contained and self.is_finished
        return is_in_parts and self.files.path is None

    # The parts

    @cached_property
    def records(self) -> Mapping[int, PartRecord]:
        """The sound records of parts: of ``complete.json``, or of the journal where that is damaged or missing."""
        is_trusted = self.completion is not None or not self.journal
        return self.records_of_completion if is_trusted else self.records_of_journal

    @cached_property
    def records_of_completion(self) -> Mapping[int, PartRecord]:
        """Those that ``complete.json`` holds; each has a digest of its own, so that damage beside it does no harm."""
        document = self.completion_document
        parts = None if document is None else document.get("parts")
        found = [part_record(document) for document in parts] if isinstance(parts, list) else []
        return {record.part: record for record in found if record is not None}

    @cached_property
    def journal(self) -> Mapping[str, bytes | None]:
        """The bytes of each file in the journal that is named like a record, by path below the store."""
        names = [
            name
            for name in self.files.listing(spec.JOURNAL_DIR)
            if name.startswith(f"{spec.JOURNAL_DIR}/part-") and name.endswith(".json")
        ]
        return dict(self.files.read_many(names))

    @cached_property
    def records_of_journal(self) -> Mapping[int, PartRecord]:
        """Those that lie in the journal, each under its own name."""
        found = {}
        for name, data in self.journal.items():
            record = None if data is None else part_record(json_object(data))
            if record is not None and record_path(record.part) == name:
                found[record.part] = record
        return found

    # Files

    def read(self, name: str) -> bytes | None:
        """Return the content of a document, or None where there is none of this name."""
        if "journal" in self.__dict__ and name in self.journal:
            return self.journal[name]
        if name not in self._read:
            self._read[name] = read_regular(self.files, name)
        return self._read[name]

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, or None where there is none of this name."""
        if self.inventory.is_whole or name in self.inventory.sizes or not is_below(name):
            return self.inventory.sizes.get(name)
        if name not in self._sizes:
            self._sizes[name] = self.files.size(name)
        return self._sizes[name]

    @cached_property
    def _sizes(self) -> dict[str, int | None]:
        return {}

    def entry(self, name: str) -> FileEntry | None:
        """Return size and digest of a file, or None where there is none of this name."""
        known = self._read.get(name) or self.journal.get(name)
        if known is not None:
            return FileEntry.of_bytes(known)
        return entry_of_regular(self.files, name)

    @cached_property
    def _read(self) -> dict[str, bytes | None]:
        return {}

    @cached_property
    def vouched(self) -> Vouched | None:
        """What a build recorded of the files that it began with, or None where nothing sound is."""
        document = json_object(self.read(spec.BEGUN_FILE) or b"")
        return None if document is None else vouched_in(document)

    @cached_property
    def begun(self) -> Mapping[str, FileEntry]:
        """The same, an entry a file: of several that it may have, that which it has, else the last."""
        found = {}
        for name, entries in (self.vouched or {}).items():
            if entries and is_below(name):
                entry = self.entry(name) if len(entries) > 1 else None
                found[name] = entry if entry is not None and entry in entries else entries[-1]
        return found

    def recorded(self, name: str) -> FileEntry | None:
        """Return what is recorded of a file that is not one of a part, or None where nothing is."""
        if self.listed is not None:
            return self.listed.get(name)
        return None if self.is_finished else self.begun.get(name)

    def is_as_recorded(self, name: str) -> bool:
        """Tell whether a document is what was recorded of it, as far as anything was."""
        entry, data = self.recorded(name), self.read(name)
        return data is not None and (entry is None or FileEntry.of_bytes(data) == entry)

    def _require_store(self) -> None:
        """Tell a store that lost something from what never was one."""
        if self.completion is not None:
            require_readable_version_of(self.completion)
        if self.is_finished or self.journal:
            return
        if not self._has_manifest_file:
            kinds = [encoding for encoding in ENCODINGS.values() if encoding.is_self_contained]
            if any(encoding.is_ours(name) for name in self.files.children() for encoding in kinds):
                return  # parts that hold all but complete.json, which did not come along
            raise StoreNotFoundError(
                f"store {self.files.location!r}: {self.files.describe()}, expected a store made by "
                "`relabel-store build`"
            )
        if self.manifest_place == spec.GROUP_FILE and self.manifest_in(spec.GROUP_FILE) is None:
            ENCODINGS[spec.ENCODING_ZARR].parse_manifest(self.read(spec.GROUP_FILE) or b"")  # says what it is


def require_readable_version_of(document: Mapping[str, Any]) -> None:
    """Check the version of a document that is known to be what was written.

    Raises
    ------
    UnsupportedVersionError, UnknownEncodingError
        Of a later release. What is no version at all is left to the schema.
    """
    try:
        require_readable_version(document)
    except (UnsupportedVersionError, UnknownEncodingError):
        raise
    except FormatError:
        return

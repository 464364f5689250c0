"""``complete.json``: the commit of a finished store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relabel_store import spec
from relabel_store.canonical import canonical_json, has_own_digest, read_json, with_digest
from relabel_store.errors import DamagedFileError, UnsupportedVersionError
from relabel_store.manifest import is_version, require_major
from relabel_store.store.files import FileEntry, StoreFiles, require_plain_name
from relabel_store.store.journal import PartRecord


@dataclass(frozen=True)
class Completion:
    """Every other file of a finished store, and its part records."""

    files: Mapping[str, FileEntry]
    parts: Mapping[int, PartRecord]
    manifest: Mapping[str, Any] | None = None  # where the encoding has no file of its own for it
    format_version: str = spec.FORMAT_VERSION  # that of the manifest
    recorded_digest: str | None = field(default=None, compare=False)  # of a later minor version, say

    @property
    def digest(self) -> str:
        """The identity of the store: it covers every byte of it."""
        return self.recorded_digest or str(self._document()["digest"])

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "format_version": self.format_version,
            "files": {name: entry.to_json() for name, entry in self.files.items()},
            "parts": [self.parts[part].to_json() for part in sorted(self.parts)],
        }
        if self.manifest is not None:
            document["manifest"] = dict(self.manifest)
        return with_digest(document)

    def to_bytes(self) -> bytes:
        """Return the file."""
        return canonical_json(self._document())

    @classmethod
    def from_bytes(cls, data: bytes) -> Completion:
        """Return the completion recorded in a file.

        Raises
        ------
        UnsupportedVersionError
            It is of another major version of the format.
        DamagedFileError
            The file is not what was written.
        """
        name = spec.COMPLETE_FILE
        try:
            document = read_json(data)
            version = document["format_version"]
            if not is_version(version):
                raise ValueError(f"format_version is {version!r}, expected text such as '1.0'")
            # Before the digest: what this is of, another major version may say otherwise.
            require_major("store format", version, spec.FORMAT_VERSION)
            if not has_own_digest(document):
                raise DamagedFileError(
                    f"store file {name!r}: its digest is not that of its content; restore it from a copy"
                )
            files = {
                require_plain_name(name): FileEntry.from_json(entry)
                for name, entry in document["files"].items()
            }
            parts = [PartRecord.from_json(part) for part in document["parts"]]
            manifest = document.get("manifest")
            if not isinstance(manifest, Mapping | None):
                raise TypeError(f"manifest is {type(manifest).__name__}")
        except (DamagedFileError, UnsupportedVersionError):
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedFileError(
                f"store file {name!r}: {len(data)} bytes that are no completion record ({error}); "
                "restore it from a copy"
            ) from error
        records = {part.part: part for part in parts}
        return cls(files, records, manifest, version, recorded_digest=document["digest"])


def read_completion(files: StoreFiles) -> Completion | None:
    """Return the completion of a store, or None where it is not finished.

    Raises
    ------
    UnsupportedVersionError
        ``complete.json`` is of another major version of the format.
    DamagedFileError
        It is there and is not what was written.
    """
    try:
        data = files.read(spec.COMPLETE_FILE)
    except FileNotFoundError:
        return None
    return Completion.from_bytes(data)

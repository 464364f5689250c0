"""What encodings have in common whose files of parts hold the samples too."""

from __future__ import annotations

import re
from collections.abc import Mapping

from relabel_store import spec
from relabel_store.canonical import canonical_json, read_json
from relabel_store.errors import FormatError
from relabel_store.manifest import Manifest


def name_of_part(manifest: Manifest, part: int, suffix: str) -> str:
    """Return the name of a part's file, ``NAME-00042-of-00313`` and the suffix."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", manifest.name).strip("-.") or "labels"
    return f"{name}-{part:05d}-of-{manifest.num_parts:05d}{suffix}"


class SelfContainedEncoding:
    """The part of `encodings.StoreEncoding` that does not depend on what is in the files of parts.

    Parameters
    ----------
    suffix
        Of those files, with its dot.
    """

    manifest_file = f"{spec.JOURNAL_DIR}/manifest.json"
    samples_file = f"{spec.JOURNAL_DIR}/{spec.SAMPLES_FILE}"
    is_self_contained = True

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._file = re.compile(r".+-\d{5,}-of-\d{5,}" + re.escape(suffix))

    def manifest_document(self, manifest: Manifest) -> bytes:
        """Return the file that holds the manifest."""
        return canonical_json(manifest.to_dict())

    def parse_manifest(self, data: bytes) -> Manifest:
        """Return the manifest in the file that holds it."""
        try:
            document = read_json(data)
        except ValueError as error:
            raise FormatError(f"store file {self.manifest_file!r}: {error}; restore it") from error
        if not isinstance(document, Mapping):
            raise FormatError(
                f"store file {self.manifest_file!r}: the manifest is {type(document).__name__}, expected an object"
            )
        return Manifest.from_dict(document)

    def fixed_files(self, manifest: Manifest) -> dict[str, bytes]:
        """Return none: each file describes itself."""
        del manifest
        return {}

    def files_of_part(self, manifest: Manifest, part: int) -> dict[str, str | None]:
        """Return the one file."""
        return {name_of_part(manifest, part, self._suffix): None}

    def folders(self, manifest: Manifest) -> list[str]:
        """Return the store itself."""
        del manifest
        return [""]

    def is_ours(self, name: str) -> bool:
        """Tell whether a file or folder of this name may lie at the top of a store."""
        return self._file.fullmatch(name) is not None

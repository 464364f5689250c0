"""Making the files again that describe a store, from what else it holds: taken only if the bytes are those recorded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable

from relabel_store import spec
from relabel_store.errors import DamagedFileError, FormatError
from relabel_store.manifest import Manifest
from relabel_store.store.complete import Completion
from relabel_store.store.encodings import encoding_of, read_manifest
from relabel_store.store.files import FileEntry, StoreFiles
from relabel_store.store.journal import record_path
from relabel_store.store.zarr_v1 import ZarrEncoding

_MANIFEST = re.compile(rf'"{spec.MANIFEST_ATTRIBUTE}"\s*:\s*')

SamplesMaker = Callable[[Manifest], bytes]


def mend_manifest(files: StoreFiles, completion: Completion, damaged: Iterable[str]) -> Manifest:
    """Return the manifest of a finished store; its file is written again if it can be.

    The group of a Zarr store holds the manifest, and beside it a copy of what describes the arrays. Damage to the
    copy, or to nothing but how the JSON is written, leaves the manifest as it was. Whether what can be read is it, the
    digest of the file in ``complete.json`` says.

    Raises
    ------
    DamagedFileError
        The manifest itself is damaged, and nothing else holds it.
    """
    zarr = ZarrEncoding()
    if zarr.manifest_file not in set(damaged):
        manifest = read_manifest(files, completion)
        assert manifest is not None  # `read_manifest` raises where a finished store has none
        return manifest
    name = zarr.manifest_file
    try:
        manifest = _manifest_in(files.read(name))
    except (FormatError, FileNotFoundError):
        manifest = None
    data = b"" if manifest is None else zarr.manifest_document(manifest)
    if manifest is None or FileEntry.of_bytes(data) != completion.files[name]:
        raise DamagedFileError(
            f"store file {name!r}: holds the manifest, which nothing else in the store does, and is damaged; restore "
            "it from a copy, or build into another path"
        )
    files.write(name, data)
    return manifest


def _manifest_in(data: bytes) -> Manifest:
    """Return the manifest in a damaged group, also of one that is no JSON any more."""
    try:
        return ZarrEncoding().parse_manifest(data)
    except FormatError:
        text = data.decode(errors="replace")
        found = _MANIFEST.search(text)
        if found is None:
            raise
    try:
        document, _ = json.JSONDecoder().raw_decode(text, found.end())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"store file {spec.GROUP_FILE!r}: {error}") from error
    return Manifest.from_dict(document if isinstance(document, dict) else {})


def mend_documents(
    files: StoreFiles,
    completion: Completion,
    manifest: Manifest,
    damaged: Iterable[str],
    make_samples: SamplesMaker | None,
) -> list[str]:
    """Write damaged files again, but for that of the manifest; return those that were.

    Parameters
    ----------
    make_samples
        Makes the sample table again; None where nobody knows the images.

    Raises
    ------
    DamagedFileError
        The sample table that was made is not the one that was recorded.
    """
    encoding = encoding_of(manifest)
    known = dict(encoding.fixed_files(manifest))
    known |= {record_path(part): record.to_bytes() for part, record in completion.parts.items()}
    mended = []
    for name in sorted(set(damaged) - {encoding.manifest_file}):
        if name == encoding.samples_file:
            if make_samples is None:
                continue
            data = make_samples(manifest)
            _require_recorded_samples(name, data, completion)
        else:
            data = known.get(name, b"")
        if FileEntry.of_bytes(data) == completion.files[name]:
            files.write(name, data)
            mended.append(name)
    return mended


def _require_recorded_samples(name: str, data: bytes, completion: Completion) -> None:
    if FileEntry.of_bytes(data) != completion.files[name]:
        raise DamagedFileError(
            f"store file {name!r}: damaged, and the table made from these images is not the one that was recorded; "
            "give the images that were labelled, all of them and unchanged, or restore the file from a copy"
        )


def mend_fixed_files(files: StoreFiles, manifest: Manifest) -> list[str]:
    """Write what describes the arrays again where it is not what the manifest calls for; return what was written."""
    found = encoding_of(manifest).fixed_files(manifest)
    wrong = [name for name, data in found.items() if not _holds(files, name, data)]
    for name in wrong:
        files.write(name, found[name])
    return wrong


def _holds(files: StoreFiles, name: str, data: bytes) -> bool:
    try:
        return files.read(name) == data
    except FileNotFoundError:
        return False

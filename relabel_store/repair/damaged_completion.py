"""A damaged ``complete.json``: what can be told of the store from what is left of it, and from the files of parts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from relabel_store import spec
from relabel_store.errors import DamagedFileError, FormatError
from relabel_store.manifest import Manifest
from relabel_store.sample_ids import digest_of_ids
from relabel_store.store.encodings import encoding_of
from relabel_store.store.files import StoreFiles, read_verified
from relabel_store.store.journal import PartRecord, is_part_of
from relabel_store.store.salvage import salvaged_manifest, salvaged_samples
from relabel_store.store.writer import StoreWriter

_DIGEST = re.compile(rb'\{"digest":"(sha256:[0-9a-f]{64})",')  # keys are sorted, and so it comes first
_RECORD = '{"bad_images":'  # the same of a part record
_ADVICE = "restore it from a copy, or build into another path"


@dataclass(frozen=True)
class Salvage:
    """A store whose parts hold their samples, as far as it does not need ``complete.json``.

    Parameters
    ----------
    manifest
        As it was when the store was begun.
    samples
        The sample table, with facts.
    """

    manifest: Manifest
    records: Mapping[int, PartRecord]
    samples: pa.Table

    def open_again(self, files: StoreFiles) -> None:
        """Make the store one that is being built: finishing it counts its labels anew."""
        StoreWriter(files, self.manifest, self.samples).open_again(self.records)


def read_damaged(files: StoreFiles) -> bytes:
    """Return what is left of ``complete.json``; nothing where it is gone."""
    try:
        return files.read(spec.COMPLETE_FILE)
    except (FileNotFoundError, DamagedFileError):
        return b""


def digest_in(data: bytes) -> str | None:
    """Return the digest that a damaged ``complete.json`` begins with, or None where that cannot be read."""
    found = _DIGEST.match(data)
    return None if found is None else found[1].decode()


def records_in(data: bytes) -> dict[int, PartRecord]:
    """Return the part records in a damaged ``complete.json`` that are whole: each has a digest of its own."""
    text, decoder = data.decode(errors="replace"), json.JSONDecoder()
    found, at = {}, text.find(_RECORD)
    while at >= 0:
        end = at + 1
        try:
            document, end = decoder.raw_decode(text, at)
            record = PartRecord.from_json(document)
            found[record.part] = record
        except (ValueError, RecursionError):
            pass
        at = text.find(_RECORD, end)
    return found


def salvage_store(files: StoreFiles, data: bytes) -> Salvage:
    """Return all of a store but ``complete.json``, which is damaged, after comparing every file with its record.

    Raises
    ------
    DamagedFileError
        A part record is damaged too, and nothing else holds what it says; or a file of a part is.
    """
    records = records_in(data)
    manifest = next((_manifest_of(files, record) for _, record in sorted(records.items())), None)
    if manifest is None:
        raise _refused("and none of the part records in it can be read")
    encoding = encoding_of(manifest)
    lost = [
        part
        for part in range(manifest.num_parts)
        if part not in records
        or not is_part_of(records[part], manifest)
        or records[part].files.keys() != encoding.files_of_part(manifest, part).keys()
    ]
    if lost:
        raise _refused(f"the record of part {lost[0]} in it too, and {len(lost) - 1} more")
    pieces = []
    for part in range(manifest.num_parts):
        for name, entry in records[part].files.items():
            read_verified(files, name, entry)
        piece = salvaged_samples(files, manifest, part)
        if piece is None:
            raise _refused(f"and the file of part {part} holds no samples of it")
        pieces.append(piece)
    samples = pa.concat_tables(pieces).combine_chunks()
    if digest_of_ids(samples["sample_id"].to_pylist()) != manifest.images.digest:
        raise _refused("and the samples in the files of parts are not those that the manifest in them names")
    return Salvage(manifest, records, samples)


def _manifest_of(files: StoreFiles, record: PartRecord) -> Manifest:
    for name, entry in record.files.items():
        try:
            found = salvaged_manifest(name, read_verified(files, name, entry))
        except FormatError as error:
            error.add_note(f"while {spec.COMPLETE_FILE!r}, which is damaged too, was made again")
            raise
        if found is not None:
            return found
    raise _refused("and part records in it name no file that holds a manifest")


def _refused(why: str) -> DamagedFileError:
    return DamagedFileError(f"store file {spec.COMPLETE_FILE!r}: is damaged, {why}; {_ADVICE}")

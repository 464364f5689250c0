"""Rules of the files of a part, and reading a part whose files keep to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relabel_store import spec
from relabel_store.errors import ObjectStoreError
from relabel_store.manifest import Manifest
from relabel_store.store.arrays import Arrays
from relabel_store.store.decoded import usable_cores
from relabel_store.store.encodings import Shards, StoreEncoding, encoding_of
from relabel_store.store.files import FileEntry, StoreFiles
from relabel_store.store.journal import PartRecord
from relabel_store.store.parquet_v1 import ParquetParts
from relabel_store.store.samples import column_values
from relabel_store.store.zarr_v1 import damaged_chunks
from relabel_store.validate.documents import read_regular
from relabel_store.validate.finding import Finding, Place, Problem
from relabel_store.validate.rule import Level, check
from relabel_store.validate.sample_facts import SampleFacts, labelled_rows, without_bad_images
from relabel_store.validate.scan import ScannedPart

_RESTORE = "restore it from a copy, or build its part again"
_MOST_BYTES = 1024**3  # decoded, whatever the size of the files
_MOST_TIMES = 1000  # the size of the files
# What decoders raise at bytes that are not theirs; the digest fitted, so somebody wrote them so.
_UNDECODABLE = (ValueError, RuntimeError, OSError, KeyError, TypeError, IndexError, OverflowError)


@check("RS601", "F51", "F60", "F64", level=Level.CONTENT)
def check_part_file(name: str, entry: FileEntry, found: FileEntry | str) -> Iterator[Problem]:
    """The files of a part have the size and SHA-256 that its record names.

    Parameters
    ----------
    found
        Of the file, or why it cannot be read.
    """
    if found == entry:
        return
    if isinstance(found, str):
        what, expected = found, f"{entry.size_bytes} bytes that can be read"
    elif found.size_bytes != entry.size_bytes:
        what, expected = f"{found.size_bytes} bytes", f"{entry.size_bytes} as recorded"
    else:
        what, expected = f"SHA-256 {found.sha256[:12]}…", f"{entry.sha256[:12]}… as recorded"
    yield Problem(Place(file=name), what, expected, f"it is damaged, or of another store: {_RESTORE}")


@check("RS602", "F32", level=Level.CONTENT)
def check_chunk_checksums(name: str, manifest: Manifest, rows: range, data: bytes) -> Iterator[Problem]:
    """Every chunk of a Zarr shard, and the index of its chunks, ends with its CRC32C."""
    damaged = damaged_chunks(manifest.layout, data, len(rows))
    if not damaged:
        return
    first = damaged[0]
    yield Problem(
        Place(file=name, row=None if first is None else rows.start + first * manifest.layout.chunk_rows),
        "the index of its chunks has another checksum"
        if first is None
        else f"chunk {first} has another checksum",
        "the CRC32C of the bytes before it",
        f"other Zarr implementations refuse it: {_RESTORE}",
        count=len(damaged),
    )


@check(
    "RS603",
    *("F30", "F71", "F72", "F75", "F80", "F81", "F82", "F83", "F84", "F85", "F87", "F88"),
    level=Level.CONTENT,
)
def check_decodable(place: Place, error: str) -> Iterator[Problem]:
    """The files of a part can be decoded, and hold the rows that the manifest describes."""
    yield Problem(place, f"cannot be decoded ({error})", "the rows of its part", _RESTORE)


def compare_files(
    files: StoreFiles, entries: Mapping[str, FileEntry], *, on_file: Callable[[], None]
) -> Iterator[Finding]:
    """Yield what is wrong with files of parts of which nobody knows what they hold."""

    def look(name: str) -> FileEntry | str:
        return read_file(files, name)[1]

    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="validate") as threads:
        for name, found in zip(entries, threads.map(look, entries), strict=True):
            yield from check_part_file(name, entries[name], found)
            on_file()


def read_file(files: StoreFiles, name: str) -> tuple[bytes, FileEntry | str]:
    """Return the content of a file with its size and digest, or with why it cannot be read.

    Raises
    ------
    ObjectStoreError
        The service failed, after many attempts: that says nothing of the file.
    """
    try:
        data = read_regular(files, name)
    except ObjectStoreError:
        raise
    except OSError as error:
        return b"", f"cannot be read ({error.strerror})"
    return (b"", "missing") if data is None else (data, FileEntry.of_bytes(data))


@check("RS604", level=Level.CONTENT, spoils=True)
def check_expansion(place: Place, decoded_bytes: int, file_bytes: int) -> Iterator[Problem]:
    """A part can be decoded: it takes at most 1 GiB, or 1,000 times the size of its files."""
    if decoded_bytes > max(_MOST_BYTES, _MOST_TIMES * file_bytes):
        yield Problem(
            place,
            f"parts of {decoded_bytes / 1e9:,.1f} GB, from files of {file_bytes:,} bytes",
            "no more than 1,000 times that",
            "grid, k, shard_rows or the files are not what they claim: do not read it",
        )


class SoundParts:
    """Reads parts, and says what is wrong with their files; see `scan.PartReader`.

    Parameters
    ----------
    facts
        What the sample table says of each row; None where it lies in the files of parts, or cannot be read.
    spoiled
        Files that were found to be unsound before.
    is_decoding
        False to read and compare the files only.
    judge_file
        What else is to look at the bytes of each file of a part.
    """

    def __init__(
        self,
        files: StoreFiles,
        manifest: Manifest,
        listed: Mapping[str, FileEntry] | None,
        facts: SampleFacts | None,
        spoiled: Collection[str],
        *,
        is_decoding: bool = True,
        judge_file: Callable[[int, bytes], Iterator[Finding]] | None = None,
    ) -> None:
        self._files = files
        self._manifest = manifest
        self._encoding = encoding_of(manifest)
        self._facts = facts
        self._spoiled = frozenset(spoiled)
        self._is_decoding = is_decoding
        self._judge_file = judge_file
        self._listed = listed or {}
        self._shards = _strict_shards(self._encoding, files, manifest, listed)

    def __call__(self, record: PartRecord, into: Arrays) -> tuple[list[Finding], ScannedPart | None]:
        """Return what is wrong with the files of a part, and the part where it could be decoded."""
        names = self._encoding.files_of_part(self._manifest, record.part)
        findings: list[Finding] = []
        data: dict[str, bytes] = {}
        for name in names:
            entry = self._listed.get(name) or record.files.get(name)
            if entry is not None and name not in self._spoiled:
                content, found = read_file(self._files, name)
                wrong = list(check_part_file(name, entry, found))
                findings += wrong
                if not wrong:
                    data[name] = content
        if len(data) < len(names) or not self._is_decoding:
            return findings, None
        if self._encoding.name == spec.ENCODING_ZARR:
            for name in names:
                findings += check_chunk_checksums(name, self._manifest, record.rows, data[name])
        if self._judge_file is not None:
            findings += [found for name in names for found in self._judge_file(record.part, data[name])]
        part = None if findings else self._decode(record, data, into, findings)
        return findings, part

    def _decode(
        self, record: PartRecord, data: Mapping[str, bytes], into: Arrays, findings: list[Finding]
    ) -> ScannedPart | None:
        reading = ""

        def fetch(name: str) -> bytes:
            nonlocal reading
            reading = name
            return data[name]

        try:
            self._shards.read_part(record.part, fetch, into)
            samples = None if self._facts is not None else self._shards.read_samples(record.part, fetch)
            if samples is not None:
                samples.validate(full=True)  # that text is UTF-8, say
        except _UNDECODABLE as error:
            text = " ".join(str(error).split())[:300] or type(error).__name__
            findings += check_decodable(Place(file=reading or next(iter(data))), text)
            return None
        is_labelled, class_index = self._facts_of(record, samples)
        return ScannedPart(self._manifest, record, into, is_labelled, class_index, samples)

    def _facts_of(
        self, record: PartRecord, samples: pa.Table | None
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64] | None]:
        if self._facts is not None:
            return self._facts.of_part(record)
        if samples is None:
            return without_bad_images(record), None
        return labelled_rows(samples["status"]), column_values(samples["class_index"])


def _strict_shards(
    encoding: StoreEncoding, files: StoreFiles, manifest: Manifest, listed: Mapping[str, FileEntry] | None
) -> Shards:
    if encoding.name == spec.ENCODING_PARQUET:
        return ParquetParts(manifest, is_strict=True)
    return encoding.open_shards(files, manifest, listed)

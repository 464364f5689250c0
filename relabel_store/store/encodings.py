"""What differs between encodings of a store: which files hold what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from relabel_store import spec
from relabel_store.errors import ManifestError
from relabel_store.manifest import Manifest
from relabel_store.store.arrays import Arrays
from relabel_store.store.complete import Completion
from relabel_store.store.files import FileEntry, StoreFiles, entry_of, read_verified
from relabel_store.store.packed_v1 import PackedEncoding
from relabel_store.store.parquet_v1 import ParquetEncoding
from relabel_store.store.zarr_v1 import ZarrEncoding


class Shards(Protocol):
    """Decodes the files of parts."""

    def read_rows(self, part: int, rows: range, fetch: Callable[[str], Path | bytes]) -> Arrays:
        """Return neighbouring rows of a part, which lie in one chunk, as C-contiguous copies.

        Parameters
        ----------
        fetch
            Gives a file of the part, which is known to be sound: its path, or its bytes where this host has no such
            file.

        Raises
        ------
        DamagedFileError
            They cannot be decoded.
        FormatError
            They are not what the manifest describes.
        """

    def read_part(self, part: int, read: Callable[[str], bytes], into: Arrays) -> None:
        """Decode every row of a part.

        Parameters
        ----------
        read
            Gives the bytes of a file of the part, which are known to be sound.
        into
            C-contiguous arrays of as many rows as the part has, by name, to be overwritten.

        Raises
        ------
        DamagedFileError, FormatError
            As for `read_rows`.
        """

    def read_samples(self, part: int, fetch: Callable[[str], Path | bytes]) -> pa.Table | None:
        """Return the sample table of a part, in `samples.SCHEMA`; None where it is not in the files of parts."""


class StoreEncoding(Protocol):
    """How a store lies in files."""

    @property
    def name(self) -> str:
        """As the manifest calls it."""

    @property
    def manifest_file(self) -> str:
        """Where the manifest lies while the store is built."""

    @property
    def samples_file(self) -> str:
        """Where the sample table lies while the store is built."""

    @property
    def is_self_contained(self) -> bool:
        """Whether the files of parts hold their samples, so that a finished store needs nothing but these.

        The journal then goes when the store is finished, and ``complete.json`` holds the manifest.
        """

    def manifest_document(self, manifest: Manifest) -> bytes:
        """Return the file that holds the manifest."""

    def parse_manifest(self, data: bytes) -> Manifest:
        """Return the manifest in the file that holds it.

        Raises
        ------
        FormatError
            It is no such file.
        """

    def fixed_files(self, manifest: Manifest) -> dict[str, bytes]:
        """Return what else is written when a store is begun, and stays, by name."""

    def files_of_part(self, manifest: Manifest, part: int) -> dict[str, str | None]:
        """Return the files of a part by name: which array each holds, None where it holds all."""

    def encode_part(
        self, manifest: Manifest, part: int, arrays: Arrays, samples: pa.Table
    ) -> dict[str, bytes]:
        """Return the files of a part by name.

        Parameters
        ----------
        arrays
            A row for each of the part's.
        samples
            The rows of the sample table, with facts.
        """

    def part_overhead(self, manifest: Manifest) -> int:
        """Return the bytes that the files of a part take whatever its length."""

    def folders(self, manifest: Manifest) -> list[str]:
        """Return the folders below which the files of parts lie; ``""`` is the store, without what is below it."""

    def is_ours(self, name: str) -> bool:
        """Tell whether a file or folder of this name may lie at the top of a store of this encoding."""

    def open_shards(
        self, files: StoreFiles, manifest: Manifest, entries: Mapping[str, FileEntry] | None
    ) -> Shards:
        """Return what decodes the files of parts.

        Parameters
        ----------
        entries
            What is recorded of the files of a finished store; None of one that is being built.
        """


ENCODINGS: Mapping[str, StoreEncoding] = {
    spec.ENCODING_ZARR: ZarrEncoding(),
    spec.ENCODING_PARQUET: ParquetEncoding(),
    spec.ENCODING_PACKED: PackedEncoding(),
}


def encoding_of(manifest: Manifest) -> StoreEncoding:
    """Return the encoding that a manifest names."""
    return ENCODINGS[manifest.encoding.name]


def encoding_named_by(location: str) -> str:
    """Return the encoding that the end of a path or URL asks for, as in ``labels.parquet``; else ``zarr``."""
    path = location.rstrip("/")
    return next((name for name in ENCODINGS if path.endswith(f".{name}")), spec.ENCODING_ZARR)


def read_manifest(files: StoreFiles, completion: Completion | None) -> Manifest | None:
    """Return the manifest of a store, or None where there is none.

    Raises
    ------
    FormatError
        There is a file in its place that holds none, or one of a version that this release does not read.
    DamagedFileError
        It is not what ``complete.json`` lists.
    """
    if completion is not None and completion.manifest is not None:
        found = completion.manifest
        return _named(spec.COMPLETE_FILE, lambda: Manifest.from_dict(found))
    for encoding in ENCODINGS.values():
        name = encoding.manifest_file
        if completion is not None:
            if encoding.is_self_contained:
                continue
            data = read_verified(files, name, entry_of(completion.files, name))
        else:
            try:
                data = files.read(name)
            except FileNotFoundError:
                continue
        return _require_own(name, _named(name, partial(encoding.parse_manifest, data)))
    return None


def _require_own(name: str, manifest: Manifest) -> Manifest:
    """Check that a manifest lies where those of its encoding do: elsewhere nothing would vouch for it."""
    if encoding_of(manifest).manifest_file != name:
        raise ManifestError(
            f"store file {name!r}: manifest of a store in encoding {manifest.encoding.name!r}, whose manifest lies "
            f"elsewhere; restore it"
        )
    return manifest


def _named(name: str, parse: Callable[[], Manifest]) -> Manifest:
    """Say in which file a manifest is that is none."""
    try:
        return parse()
    except ManifestError as error:
        raise ManifestError(f"store file {name!r}: {error}") from error

"""Encoding "packed" 1.x, for archiving: a ZIP file a part, with its samples and densely coded label maps."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from relabel_store import spec
from relabel_store.canonical import canonical_json
from relabel_store.errors import DamagedFileError, FormatError
from relabel_store.manifest import Manifest
from relabel_store.store import samples as sample_tables
from relabel_store.store.arrays import Arrays, array_specs
from relabel_store.store.files import FileEntry, StoreFiles
from relabel_store.store.packed_chunks import decode_chunk, encode_chunk
from relabel_store.store.self_contained import SelfContainedEncoding, name_of_part

_SUFFIX = ".zip"
_MANIFEST = "manifest.json"
_MOST_MANIFEST = 256 * 1024**2  # bytes; ten million classes with ids and names take as many
# What zipfile has been seen to raise for files that are none.
_UNREADABLE = (
    zipfile.BadZipFile,
    EOFError,
    KeyError,
    OSError,
    OverflowError,
    RuntimeError,
    struct.error,
    ValueError,
)


def part_file(manifest: Manifest, part: int) -> str:
    """Return the name of a part's file, ``NAME-00042-of-00313.zip``."""
    return name_of_part(manifest, part, _SUFFIX)


def chunk_member(chunk: int) -> str:
    """Return the name of a chunk inside a part's file."""
    return f"maps/{chunk:05d}"


def encode_archive(manifest: Manifest, arrays: Arrays, samples: pa.Table) -> bytes:
    """Return the file of a part."""
    buffer = io.BytesIO()
    chunk_rows = manifest.layout.chunk_rows
    with zipfile.ZipFile(buffer, "w") as archive:
        # Deflated, as other programs unpack it: it repeats the names of all classes, and no reader of ours needs it.
        _add(archive, _MANIFEST, canonical_json(manifest.to_dict()), zipfile.ZIP_DEFLATED)
        _add(archive, spec.SAMPLES_FILE, sample_tables.to_parquet(samples))
        for chunk, start in enumerate(range(0, len(samples), chunk_rows)):
            rows = {name: array[start : start + chunk_rows] for name, array in arrays.items()}
            data = encode_chunk(manifest.label_map, manifest.encoding.compression, rows)
            _add(archive, chunk_member(chunk), data)
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes, how: int = zipfile.ZIP_STORED) -> None:
    info = zipfile.ZipInfo(name)  # of 1980, so that equal parts are equal files
    info.create_system = 3  # Unix, also where it is not
    info.external_attr = 0o644 << 16
    archive.writestr(info, data, compress_type=how)


class PackedParts:
    """The files of parts, read a chunk or a file at a time."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._specs = array_specs(manifest)

    def read_rows(self, part: int, rows: range, fetch: Callable[[str], Path | bytes]) -> Arrays:
        """Return neighbouring rows of a part; see `encodings.Shards`."""
        chunk = (rows.start - self._manifest.rows_of_part(part).start) // self._manifest.layout.chunk_rows
        arrays = {name: array.empty(len(rows)) for name, array in self._specs.items()}
        with self._open(part, fetch(part_file(self._manifest, part))) as archive:
            data = archive.read(_stored_member(archive, chunk_member(chunk)))
            decode_chunk(self._manifest.label_map, self._specs, data, arrays)
        return arrays

    def read_part(self, part: int, read: Callable[[str], bytes], into: Arrays) -> None:
        """Decode every row of a part; see `encodings.Shards`."""
        chunk_rows = self._manifest.layout.chunk_rows
        data = read(part_file(self._manifest, part))
        with self._open(part, data) as archive:
            for chunk in range(self._count_chunks(part)):
                at = slice(chunk * chunk_rows, (chunk + 1) * chunk_rows)
                rows_of_chunk = {name: rows[at] for name, rows in into.items()}
                # The file was compared with its digest, so the checksum of the member is not looked at.
                stored = _stored_bytes(data, _stored_member(archive, chunk_member(chunk)))
                decode_chunk(self._manifest.label_map, self._specs, stored, rows_of_chunk)

    def read_samples(self, part: int, fetch: Callable[[str], Path | bytes]) -> pa.Table:
        """Return the sample table of a part; see `encodings.Shards`."""
        n = len(self._manifest.rows_of_part(part))
        with self._open(part, fetch(part_file(self._manifest, part))) as archive:
            data = archive.read(_stored_member(archive, spec.SAMPLES_FILE))
            table = sample_tables.from_parquet(data, sample_tables.SCHEMA)
            if len(table) != n:
                raise FormatError(f"{len(table)} samples, expected {n}")
        return table

    def _count_chunks(self, part: int) -> int:
        return -(-len(self._manifest.rows_of_part(part)) // self._manifest.layout.chunk_rows)

    @contextmanager
    def _open(self, part: int, source: Path | bytes) -> Iterator[zipfile.ZipFile]:
        name = part_file(self._manifest, part)
        try:
            with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
                members, chunks = archive.namelist(), self._count_chunks(part)
                if members != [_MANIFEST, spec.SAMPLES_FILE, *map(chunk_member, range(chunks))]:
                    raise FormatError(
                        f"{len(members)} members, {', '.join(map(repr, members[:3]))} first, expected {_MANIFEST}, "
                        f"{spec.SAMPLES_FILE} and {chunks} chunks"
                    )
                yield archive
        except _UNREADABLE as error:
            raise DamagedFileError(
                f"store file {name!r}: cannot be decoded ({error}); restore it or build its part again"
            ) from error


def _stored_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    info = archive.getinfo(name)
    # Not compressed, so that no more is allocated than the file has bytes.
    if info.compress_type != zipfile.ZIP_STORED:
        raise FormatError(f"member {name!r} is compressed, expected it to be stored")
    return info


def _stored_bytes(data: bytes, member: zipfile.ZipInfo) -> memoryview:
    """Return the content of a member of an archive in memory, which follows 30 bytes, its name and extra fields."""
    name, extra = struct.unpack_from("<HH", data, member.header_offset + 26)
    start = member.header_offset + 30 + name + extra
    return memoryview(data)[start : start + member.file_size]


class PackedEncoding(SelfContainedEncoding):
    """Label maps as ZIP files that hold their samples; see `encodings.StoreEncoding`."""

    name = spec.ENCODING_PACKED

    def __init__(self) -> None:
        super().__init__(_SUFFIX)

    def encode_part(
        self, manifest: Manifest, part: int, arrays: Arrays, samples: pa.Table
    ) -> dict[str, bytes]:
        """Return the file of a part."""
        return {part_file(manifest, part): encode_archive(manifest, arrays, samples)}

    def part_overhead(self, manifest: Manifest) -> int:
        """Return the size of a file without rows, which holds the manifest."""
        empty = {name: array.empty(0) for name, array in array_specs(manifest).items()}
        return len(encode_archive(manifest, empty, sample_tables.SCHEMA.empty_table()))

    def manifest_in(self, data: bytes) -> bytes:
        """Return the manifest in the file of a part, as JSON."""
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open(_MANIFEST) as member:
                found = member.read(_MOST_MANIFEST + 1)
        except (*_UNREADABLE, zlib.error) as error:
            raise FormatError(f"part: no manifest in it ({error})") from error
        if len(found) > _MOST_MANIFEST:
            raise FormatError(f"part: its manifest unfolds into more than {_MOST_MANIFEST} bytes")
        return found

    def open_shards(
        self, files: StoreFiles, manifest: Manifest, entries: Mapping[str, FileEntry] | None
    ) -> PackedParts:
        """Return what decodes the files of parts."""
        del files, entries
        return PackedParts(manifest)

"""Materialized stores: decoded once into a cache directory, mapped by every process of a machine."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
import threading
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relabel_store.canonical import canonical_json, has_own_digest, read_json, with_digest
from relabel_store.errors import (
    CacheError,
    DamagedFileError,
    NotEnoughSpaceError,
    OptionError,
    UnfinishedStoreError,
)
from relabel_store.manifest import Manifest
from relabel_store.store.arrays import Arrays, array_specs
from relabel_store.store.decoded import DecodedStore, StoreFacts, decoded_size, for_each_part
from relabel_store.store.encoded import EncodedStore
from relabel_store.store.local_files import sync_directory, sync_file
from relabel_store.store.location import is_url
from relabel_store.store.locks import hold_lock
from relabel_store.store.reader import open_store
from relabel_store.store.samples import SCHEMA

log = logging.getLogger(__name__)

CACHE_VARIABLE = "RELABEL_STORE_CACHE"
_VERSION = 2
_ENTRY_FILE = "cache.json"  # written last: an entry without it does not exist
# With the version, so that two releases can share a directory. What a killed process left has a dot in front.
_ENTRY_NAME = re.compile(r"[0-9a-f]{64}-v\d+|\.([0-9a-f]{64}-v\d+)\.[0-9a-f]{32}\.partial|[0-9a-f]{64}")
_SAMPLES_FILE = "samples.arrow"
_PARTIAL = ".partial"
_WORTH_SAYING_BYTES = 2**30  # decoding so much takes a while, which people wonder about
_SAMPLE_BYTES = 250  # a row of the sample table, about
_ADVICE = f"give another cache_dir or set {CACHE_VARIABLE}, or use store.load() to keep it in memory"


@dataclass(frozen=True)
class CacheEntry:
    """A materialized store in a cache directory.

    Parameters
    ----------
    name, digest
        Of the store that was decoded; empty where the entry is damaged, of another release, or unfinished.
    used_s
        When it was last opened, in seconds since 1970.
    """

    path: Path
    name: str
    digest: str
    num_samples: int
    size_bytes: int
    used_s: float

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON types."""
        return {**self.__dict__, "path": str(self.path)}


class MaterializedStore(DecodedStore):
    """A store mapped from a cache entry: processes share its memory, and each opens it anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            document = _read_document(path)
        except FileNotFoundError as error:
            raise CacheError(f"cache entry {str(path)!r}: it is gone; materialize the store again") from error
        facts = StoreFacts(
            manifest=Manifest.from_dict(document["manifest"]),
            digest=document["store_digest"],
            finished_parts=tuple(document["finished_parts"]),
            bad_images={int(row): reason for row, reason in document["bad_images"].items()},
        )
        super().__init__(facts, _map_samples(path, facts.manifest), _map_arrays(path, facts.manifest))
        with contextlib.suppress(OSError):  # a cache that others made need not be ours to touch
            os.utime(path)

    def __reduce__(self) -> tuple[type[MaterializedStore], tuple[Path]]:
        return MaterializedStore, (self.path,)


def default_cache_dir() -> Path:
    """Return where materialized stores lie unless told otherwise: see `CACHE_VARIABLE`, or the platform's place."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_cache_dir("relabel-store"))


def materialize_store(
    store: EncodedStore, cache_dir: str | os.PathLike[str] | None = None, *, verify: bool = False
) -> MaterializedStore:
    """Return a store decoded into memory-mapped files; see `LabelStore.materialize`."""
    if store.digest is None:
        raise UnfinishedStoreError(
            f"store {store.location!r}: {len(store.parts)} of {store.manifest.num_parts} parts are built, expected "
            "a finished store; run its build again, or use store.load() for what is there"
        )
    root = default_cache_dir() if cache_dir is None else Path(cache_dir)
    # Absolute: workers open it anew, from whatever directory they are in.
    entry = root.absolute() / f"{store.digest.rpartition(':')[2]}-v{_VERSION}"
    found = _open_entry(entry, store.digest, verify=verify, log_level=logging.DEBUG)
    if found is not None:
        return found
    with _locked(entry):
        # Another process may have made it while this one waited.
        found = _open_entry(entry, store.digest, verify=verify, log_level=logging.WARNING)
        return _make_entry(store, entry) if found is None else found


def list_entries(cache_dir: str | os.PathLike[str] | None = None) -> list[CacheEntry]:
    """Return the entries of a cache directory, the one used last first.

    Also damaged ones, those of other releases, and what processes that were killed left, without a name.
    """
    root = default_cache_dir() if cache_dir is None else Path(cache_dir)
    found = root.iterdir() if root.is_dir() else ()
    # Only what is named as an entry is: these are directories that a command removes.
    entries = [_describe(path) for path in found if _ENTRY_NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(entries, key=lambda entry: -entry.used_s)


def find_entries(names: Sequence[str], cache_dir: str | os.PathLike[str] | None = None) -> list[CacheEntry]:
    """Return the entries of some stores.

    Parameters
    ----------
    names
        Paths or URLs of label stores, or beginnings of digests that fit one entry each.

    Raises
    ------
    OptionError
        A name that is no store fits no entry, or more than one.
    """
    entries = list_entries(cache_dir)
    found = []
    for name in names:
        digest = open_store(name).digest if is_url(name) or Path(name).exists() else None
        wanted = (digest or name).rpartition(":")[2]
        fitting = [entry for entry in entries if wanted and entry.path.name.startswith(wanted)]
        if digest is not None and not fitting:
            continue  # a store that is not materialized: nothing to do
        if len(fitting) != 1:
            raise OptionError(
                f"cache: {name!r} fits {len(fitting)} entries, expected one; `relabel-store cache list` shows them"
            )
        found += fitting
    return list(dict.fromkeys(found))


def remove_entry(entry: CacheEntry) -> None:
    """Remove an entry; processes that have it open keep what they mapped, and one that is making it is waited for.

    Raises
    ------
    CacheError
        It may not be removed.
    """
    match = _ENTRY_NAME.fullmatch(entry.path.name)
    leftover_of = None if match is None else match[1]
    with _locked(entry.path.with_name(leftover_of or entry.path.name)):
        if leftover_of:
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            _remove(entry.path)


def _remove(entry: Path) -> None:
    """Remove an entry, and what killed processes left of others of its name; the caller holds the lock."""
    for leftover in entry.parent.glob(f".{entry.name}.*{_PARTIAL}"):
        shutil.rmtree(leftover, ignore_errors=True)
    if entry.is_file() or entry.is_symlink():
        entry.unlink()
    elif entry.exists():
        (entry / _ENTRY_FILE).unlink(missing_ok=True)  # first: half an entry is none
        shutil.rmtree(entry)


@contextlib.contextmanager
def _locked(entry: Path) -> Iterator[None]:
    """Hold the lock of an entry, waiting for who has it."""
    lock = entry.with_name(f".{entry.name}.lock")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(lock, wait=True):
            yield
            lock.unlink(missing_ok=True)
    except NotEnoughSpaceError:
        raise
    except OSError as error:
        if isinstance(error, CacheError):
            raise
        if error.filename is not None and not Path(os.fsdecode(error.filename)).is_relative_to(entry.parent):
            raise  # a file of the store
        if error.errno == errno.ENOSPC:
            raise NotEnoughSpaceError(f"cache {str(entry.parent)!r}: {error.strerror}; {_ADVICE}") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EFBIG):
            raise CacheError(f"cache {str(entry.parent)!r}: {error.strerror}; {_ADVICE}") from error
        raise


def _open_entry(entry: Path, digest: str, *, verify: bool, log_level: int) -> MaterializedStore | None:
    """Return what is there, or None where there is nothing that can be used, which is logged."""
    if not entry.exists():
        return None
    try:
        store = MaterializedStore(entry)
        if store.digest != digest:
            raise DamagedFileError(f"of store {store.digest}, expected {digest}")
        if verify:
            _require_checksums(entry, store)
    except (
        DamagedFileError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OSError,
        pa.ArrowException,
    ) as error:
        log.log(log_level, "cache entry %s cannot be used and is made again: %s", entry, error)
        return None
    return store


def _make_entry(store: EncodedStore, entry: Path) -> MaterializedStore:
    """Decode a store into an entry; the caller holds its lock."""
    _remove(entry)
    samples = store.samples  # first: it shows that the store has so many rows
    needed = decoded_size(store.manifest) + _SAMPLE_BYTES * len(samples)
    free = shutil.disk_usage(entry.parent).free
    if free < needed:
        raise NotEnoughSpaceError(
            f"cache {str(entry.parent)!r}: {free / 1e9:.2f} GB free, {needed / 1e9:.2f} GB needed for "
            f"{len(store):,} decoded label maps of {store.manifest.name!r}; {_ADVICE}"
        )
    log.log(
        logging.WARNING if needed >= _WORTH_SAYING_BYTES else logging.INFO,
        "decoding %s label maps of %r into %s: %.2f GB (%.1f GB free)",
        f"{len(store):,}", store.manifest.name, entry, needed / 1e9, free / 1e9,
    )  # fmt: skip
    partial = entry.with_name(f".{entry.name}.{uuid.uuid4().hex}{_PARTIAL}")
    try:
        partial.mkdir()
        _write_entry(store, partial)
        partial.replace(entry)
        sync_directory(entry.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NotEnoughSpaceError(
                f"cache {str(entry.parent)!r}: full after {needed / 1e9:.2f} GB were begun; {_ADVICE}"
            ) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return MaterializedStore(entry)


def _write_entry(store: EncodedStore, directory: Path) -> None:
    specs = array_specs(store.manifest)
    writers: dict[str, _ArrayWriter] = {}
    own = threading.local()  # room for a part, of each thread

    def copy(part: int) -> None:
        rows = store.manifest.rows_of_part(part)
        if not hasattr(own, "room"):
            own.room = {name: spec.empty(store.manifest.layout.shard_rows) for name, spec in specs.items()}
        found = {name: array[: len(rows)] for name, array in own.room.items()}
        store.decode_part(part, found)
        for name, writer in writers.items():
            writer.put(rows, found[name])

    with contextlib.ExitStack() as opened:
        for name, spec in specs.items():
            file = opened.enter_context((directory / f"{name}.npy").open("wb"))
            writers[name] = _ArrayWriter(file, spec.shape, spec.dtype)
        for_each_part(store, copy)
    samples = store.samples.cast(SCHEMA).combine_chunks()
    with pa.OSFile(str(directory / _SAMPLES_FILE), "wb") as file, pa.ipc.new_file(file, SCHEMA) as ipc:
        for batch in samples.to_batches():
            ipc.write_batch(batch)
    files = {path.name: path.stat().st_size for path in sorted(directory.iterdir())}
    document = {
        "version": _VERSION,
        "store_digest": store.digest,
        "manifest": store.manifest.to_dict(),
        "finished_parts": sorted(store.parts),
        "bad_images": {str(row): reason for row, reason in store.bad_images.items()},
        "files": files,
        "checksums": {name: dict(sorted(writer.checksums.items())) for name, writer in writers.items()},
        "samples_checksum": zlib.crc32((directory / _SAMPLES_FILE).read_bytes()),
    }
    for name in files:
        sync_file(directory / name)
    (directory / _ENTRY_FILE).write_bytes(canonical_json(with_digest(document)))
    sync_file(directory / _ENTRY_FILE)
    sync_directory(directory)


class _ArrayWriter:
    """Writes rows of a ``.npy`` file, in any order and from several threads.

    Not through a memory map: there a full disk ends the process rather than raise.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.checksums: dict[str, int] = {}  # by first row: CRC-32 of what was put there
        self._file = file
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.flush()
        self._start = self._file.tell()
        self._row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
        self._file.truncate(self._start + shape[0] * self._row_bytes)

    def put(self, rows: range, found: NDArray[Any]) -> None:
        data = _bytes_of(found)
        self.checksums[str(rows.start)] = zlib.crc32(data)
        offset = self._start + rows.start * self._row_bytes
        while data:
            written = os.pwrite(self._file.fileno(), data, offset)
            data, offset = data[written:], offset + written


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1).data


def _read_document(entry: Path) -> dict[str, Any]:
    document: dict[str, Any] = read_json((entry / _ENTRY_FILE).read_bytes())
    if document["version"] != _VERSION:
        raise DamagedFileError(f"of cache version {document['version']}, this release writes {_VERSION}")
    if not has_own_digest(document):
        raise DamagedFileError(f"{_ENTRY_FILE} is not what was written")
    for name, size_bytes in document["files"].items():
        found = (entry / name).stat().st_size
        if found != size_bytes:
            raise DamagedFileError(f"{name} has {found} bytes, expected {size_bytes}")
    return document


def _map_arrays(entry: Path, manifest: Manifest) -> Arrays:
    arrays: Arrays = {}
    for name, spec in array_specs(manifest).items():
        mapped = np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        if (mapped.shape, mapped.dtype) != (spec.shape, spec.dtype):
            raise DamagedFileError(
                f"{name}.npy holds {mapped.dtype} {mapped.shape}, expected {spec.dtype} {spec.shape}"
            )
        arrays[name] = np.asarray(mapped)
    return arrays


def _map_samples(entry: Path, manifest: Manifest) -> pa.Table:
    with pa.ipc.open_file(pa.memory_map(str(entry / _SAMPLES_FILE))) as file:
        samples = file.read_all()
    if samples.schema != SCHEMA or len(samples) != manifest.num_samples:
        raise DamagedFileError(f"{_SAMPLES_FILE} holds {len(samples)} rows, expected {manifest.num_samples}")
    return samples


def _require_checksums(entry: Path, store: MaterializedStore) -> None:
    document = _read_document(entry)
    checksums = document["checksums"]
    if zlib.crc32((entry / _SAMPLES_FILE).read_bytes()) != document["samples_checksum"]:
        raise DamagedFileError(f"{_SAMPLES_FILE} is not what was written")
    for name, array in store._arrays.items():
        for part in store._facts.finished_parts:
            rows = store.manifest.rows_of_part(part)
            if zlib.crc32(_bytes_of(array[rows.start : rows.stop])) != checksums[name][str(rows.start)]:
                raise DamagedFileError(
                    f"rows {rows.start} to {rows.stop} of {name}.npy are not what was written"
                )


def _describe(entry: Path) -> CacheEntry:
    size_bytes = sum(file.stat().st_size for file in entry.iterdir())
    used_s = entry.stat().st_mtime
    try:
        document = _read_document(entry)
        manifest = Manifest.from_dict(document["manifest"])
    except (ValueError, KeyError, TypeError, OSError):
        return CacheEntry(entry, "", "", 0, size_bytes, used_s)
    return CacheEntry(
        entry, manifest.name, document["store_digest"], manifest.num_samples, size_bytes, used_s
    )

"""The offset index of tar files: made once, kept in a folder, and mapped by every process."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from relabel_store.canonical import canonical_json, read_json
from relabel_store.images.names import Names, OptionalTexts, Texts
from relabel_store.images.places import Place
from relabel_store.images.services import Stamp

log = logging.getLogger("relabel_store.build")

VERSION = 1
_HEADER_FILE = "index.json"  # written last: without it there is no index
_SCHEMA = pa.schema(
    [
        pa.field("file", pa.int32(), nullable=False),
        pa.field("path", pa.large_string(), nullable=False),
        pa.field("sample_id", pa.large_string(), nullable=False),
        pa.field("class_name", pa.dictionary(pa.int32(), pa.string())),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("header_crc32", pa.uint32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class TarFacts:
    """What an index says of the tars as a whole.

    Parameters
    ----------
    kind, ids_from
        See `ImageSource`.
    files
        Name, size in bytes and version of each tar when it was scanned.
    """

    kind: str
    ids_from: str
    files: tuple[tuple[str, int, int], ...]


class TarIndex:
    """Where each image lies in some tars, by row.

    Parameters
    ----------
    table
        Of the columns of the index, each in one piece.
    path
        Of the file that it is mapped from; None where it is in memory only.
    """

    def __init__(self, facts: TarFacts, table: pa.Table, path: Path | None = None) -> None:
        self.facts = facts
        self._table = table
        self._path = path
        columns = {name: table[name].chunk(0) for name in _SCHEMA.names}
        self.names = Names(
            Texts(columns["sample_id"]), Texts(columns["path"]), OptionalTexts(columns["class_name"])
        )
        self._numbers = [columns[name] for name in ("file", "offset", "size", "header_crc32")]

    @classmethod
    def of_columns(cls, facts: TarFacts, names: Names, numbers: dict[str, pa.Array]) -> TarIndex:
        """Return the index of what was found in tars."""
        columns = {
            "path": names.paths.column,
            "sample_id": names.sample_ids.column,
            "class_name": names.class_names.column,
            **numbers,
        }
        return cls(facts, pa.table([columns[name] for name in _SCHEMA.names], schema=_SCHEMA))

    def __len__(self) -> int:
        return len(self._table)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is None:
            return TarIndex, (self.facts, self._table)
        return _map, (self.facts, self._path)

    def in_memory(self) -> TarIndex:
        """Return the same index, which is pickled whole rather than as the file that it is mapped from."""
        return TarIndex(self.facts, self._table)

    def entry(self, row: int) -> tuple[int, int, int, int]:
        """Return number of the tar, offset, size and checksum of the header of an image."""
        file, offset, size, crc32 = (column[row].as_py() for column in self._numbers)
        return file, offset, size, crc32

    def save(self, folder: Path) -> TarIndex:
        """Write the index into a folder of its own; return it mapped from there.

        Raises
        ------
        OSError
            It cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{uuid.uuid4().hex}.partial"
        try:
            with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
                writer.write_table(self._table, max_chunksize=max(len(self), 1))
            digest = _digest(partial)
            data = folder / f"{digest[:32]}.arrow"
            partial.replace(data)
            header = {
                "version": VERSION,
                **asdict(self.facts),
                "data": {"name": data.name, "size_bytes": data.stat().st_size, "sha256": digest},
            }
            partial.write_bytes(canonical_json(header))
            partial.replace(folder / _HEADER_FILE)
        finally:
            partial.unlink(missing_ok=True)
        for other in folder.glob("*.arrow"):  # of tars as they were before
            if other != data:
                other.unlink(missing_ok=True)
        return _map(self.facts, data)

    @classmethod
    def load(cls, folder: Path, files: Sequence[tuple[str, int, int]]) -> TarIndex | None:
        """Return the index in a folder, mapped; None where there is none of these files, whole and of this version."""
        try:
            header = read_json((folder / _HEADER_FILE).read_bytes())
            facts = TarFacts(
                header["kind"],
                header["ids_from"],
                tuple((name, size, v) for name, size, v in header["files"]),
            )
            data, version = header["data"], header["version"]
            if version != VERSION or facts.files != tuple(files):
                log.info("index of the tars in %r: they changed since, it is made anew", folder.name)
                return None
            path = folder / Path(data["name"]).name
            if path.stat().st_size != data["size_bytes"] or _digest(path) != data["sha256"]:
                raise ValueError("its digest is another")
            return _map(facts, path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            log.warning("index of the tars in %r: %s; it is made anew", folder.name, error)
            return None


def _map(facts: TarFacts, path: Path) -> TarIndex:
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    if table.schema != _SCHEMA or any(column.num_chunks != 1 for column in table.columns):
        raise ValueError("its columns are others")
    return TarIndex(facts, table, path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(places: Sequence[Place], stamps: Sequence[Stamp]) -> tuple[tuple[str, int, int], ...]:
    """Return what tells whether an index is of these files as they are now."""
    return tuple(
        (place.name, stamp.size_bytes, stamp.version) for place, stamp in zip(places, stamps, strict=True)
    )

"""One ``.npz`` of all samples: compressed a part at a time, put together at the end, never as a whole in memory."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relabel_store.convert.source import LabelSource
from relabel_store.convert.targets.columns import numbers_of, text_array, text_widths, texts_of
from relabel_store.convert.targets.names import require_no_nul
from relabel_store.convert.targets.pieces import piece_path, sync
from relabel_store.convert.targets.provenance import manifest_text
from relabel_store.convert.targets.zip_files import DEFLATED, Member, combine_crc, directory
from relabel_store.manifest import Manifest
from relabel_store.store.arrays import array_specs
from relabel_store.store.local_files import write_file
from relabel_store.store.part_labels import PartLabels, filled_arrays

SUFFIXES = (".npz",)

SAMPLE_IDS, CLASS_INDEX, STATUS = "sample_ids", "class_index", "status"
NUM_CLASSES, CLASS_NAMES, MANIFEST = "num_classes", "class_names", "manifest"

_LEVEL = 1  # 2.4 kB a map of 15 x 15 x 5 at 13,000 a second; 6 saves 7 % and takes six times as long
_LAST_BLOCK = b"\x03\x00"  # of a deflate stream: empty, and the last
_PACKED = struct.Struct("<IQ")  # checksum of a column of a piece, and its size when compressed
_COPY_BYTES = 1 << 20


def open_target(path: Path) -> NpzFile:
    """Return what writes an .npz file."""
    return NpzFile(path)


@dataclass
class NpzFile:
    """An array a name, a row for every sample; see `target.LabelTarget`.

    Attributes
    ----------
    widths
        Characters of the columns of text.
    """

    path: Path
    widths: dict[str, int] = field(default_factory=dict)

    is_sequential = False

    def begin(self, source: LabelSource) -> Sequence[str]:
        """Look how wide the columns of text have to be."""
        require_no_nul(source.samples["sample_id"].to_pylist(), "npz")
        self.widths = text_widths(source.samples, is_utf8=False)
        return ()

    def write_part(self, manifest: Manifest, part: int, samples: pa.Table, labels: PartLabels) -> None:
        """Write the rows of a part as a piece: each column compressed, then their checksums and sizes."""
        columns: dict[str, NDArray[Any]] = {
            **filled_arrays(manifest, labels),
            SAMPLE_IDS: self._texts(samples, "sample_id"),
            CLASS_INDEX: numbers_of(samples, "class_index"),
            STATUS: self._texts(samples, "status"),
        }
        packed, table = [], []
        for name, (dtype, _) in self._columns(manifest).items():
            data = np.ascontiguousarray(columns[name], dtype).tobytes()
            packed.append(_deflate(data))
            table.append(_PACKED.pack(zlib.crc32(data), len(packed[-1])))
        write_file(piece_path(self.path, part), b"".join(packed + table))

    def _texts(self, samples: pa.Table, name: str) -> NDArray[Any]:
        return text_array(texts_of(samples, name), self.widths[name], is_utf8=False)

    def _columns(self, manifest: Manifest) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Return dtype, and shape of a row, of every array with a row for each sample."""
        arrays = array_specs(manifest).items()
        return {
            **{name: (array.dtype.newbyteorder("<"), array.row_shape) for name, array in arrays},
            SAMPLE_IDS: (np.dtype(f"<U{self.widths['sample_id']}"), ()),
            CLASS_INDEX: (np.dtype("<i4"), ()),
            STATUS: (np.dtype(f"<U{self.widths['status']}"), ()),
        }

    def finish(self, manifest: Manifest) -> None:
        """Put the pieces together, what is said of all rows last."""
        columns = self._columns(manifest)
        pieces = [_Piece(piece_path(self.path, part), len(columns)) for part in range(manifest.num_parts)]
        members: list[Member] = []
        with self.path.open("wb") as file:
            for at, (name, (dtype, shape)) in enumerate(columns.items()):
                header = _npy_header(dtype, (manifest.num_samples, *shape))
                row_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
                crc, size = zlib.crc32(header), len(header)
                packed_header = _deflate(header)
                packed_size = len(packed_header) + len(_LAST_BLOCK)
                for part, piece in enumerate(pieces):
                    piece_bytes = len(manifest.rows_of_part(part)) * row_bytes
                    crc = combine_crc(crc, piece.crcs[at], piece_bytes)
                    size, packed_size = size + piece_bytes, packed_size + piece.sizes[at]
                members.append(Member(f"{name}.npy", crc, size, packed_size, file.tell(), DEFLATED))
                file.write(members[-1].local_header() + packed_header)
                for piece in pieces:
                    piece.copy(at, file)
                file.write(_LAST_BLOCK)
            for name, array in _facts(manifest).items():
                members.append(_write_array(file, name, array))
            file.write(directory(members, file.tell()))
        sync(self.path)


class _Piece:
    """A part's rows on disk, compressed."""

    def __init__(self, path: Path, columns: int) -> None:
        self._path = path
        with path.open("rb") as file:
            file.seek(-columns * _PACKED.size, io.SEEK_END)
            table = list(_PACKED.iter_unpack(file.read()))
        self.crcs = [crc for crc, _ in table]
        self.sizes = [size for _, size in table]

    def copy(self, column: int, target: BinaryIO) -> None:
        with self._path.open("rb") as file:
            file.seek(sum(self.sizes[:column]))
            left = self.sizes[column]
            while left:
                data = file.read(min(left, _COPY_BYTES))
                target.write(data)
                left -= len(data)


def _deflate(data: bytes) -> bytes:
    """Return a piece of a deflate stream that ends on a byte and refers to nothing before it."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)


def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    described = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


def _facts(manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Return what is said of all rows together."""
    facts = {NUM_CLASSES: np.array(manifest.label_map.num_classes, "<i8")}
    listed = manifest.classes.names if manifest.classes.names is not None else manifest.classes.ids
    if listed is not None:
        facts[CLASS_NAMES] = np.array(listed, "<U")
    return {**facts, MANIFEST: np.array(manifest_text(manifest), "<U")}


def _write_array(file: BinaryIO, name: str, array: NDArray[Any]) -> Member:
    data = _npy_header(array.dtype, array.shape) + array.tobytes()
    packed = _deflate(data) + _LAST_BLOCK
    member = Member(f"{name}.npy", zlib.crc32(data), len(data), len(packed), file.tell(), DEFLATED)
    file.write(member.local_header() + packed)
    return member

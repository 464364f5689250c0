"""One HDF5 file of all samples, in filters that every HDF5 library has."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relabel_store import spec
from relabel_store.convert.source import LabelSource
from relabel_store.convert.targets.columns import (
    NUMBERS,
    TEXTS,
    UNKNOWN,
    numbers_of,
    text_array,
    text_widths,
    texts_of,
)
from relabel_store.convert.targets.names import require_no_nul
from relabel_store.convert.targets.pieces import piece_path, sync
from relabel_store.convert.targets.provenance import manifest_text
from relabel_store.errors import MissingDependencyError
from relabel_store.manifest import Manifest
from relabel_store.store.arrays import array_specs
from relabel_store.store.local_files import write_file
from relabel_store.store.part_labels import PartLabels, filled_arrays

if TYPE_CHECKING:
    import h5py
    from typing_extensions import Buffer

SUFFIXES = (".h5", ".hdf5")

_LEVEL = 1  # with byte shuffle 2.4 kB a map of 15 x 15 x 5; 6 saves 5 % and takes five times as long


def open_target(path: Path) -> Hdf5File:
    """Return what writes an HDF5 file.

    Raises
    ------
    MissingDependencyError
        h5py is not installed.
    """
    try:
        import h5py  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "form 'hdf5': needs h5py, which is not installed; pip install 'relabel-store[hdf5]'"
        ) from None
    return Hdf5File(path)


@dataclass(frozen=True)
class _Column:
    """A dataset with a row for each sample."""

    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    fill_value: Any


@dataclass
class Hdf5File:
    """A dataset for each array and each column of the sample table; see `target.LabelTarget`.

    A library may have a file open for writing in one process only, so parts are files of their own, whose compressed
    chunks are copied as they are.

    Attributes
    ----------
    widths
        Bytes of the columns of text.
    """

    path: Path
    widths: dict[str, int] = field(default_factory=dict)

    is_sequential = False

    def begin(self, source: LabelSource) -> Sequence[str]:
        """Look how wide the columns of text have to be."""
        require_no_nul(source.samples["sample_id"].to_pylist(), "hdf5")
        self.widths = text_widths(source.samples, is_utf8=True)
        return ()

    def write_part(self, manifest: Manifest, part: int, samples: pa.Table, labels: PartLabels) -> None:
        """Write the rows of a part as a file."""
        rows: dict[str, NDArray[Any]] = {
            **filled_arrays(manifest, labels),
            **{name: numbers_of(samples, name) for name in NUMBERS},
            **{name: text_array(texts_of(samples, name), self.widths[name], is_utf8=True) for name in TEXTS},
        }
        piece = io.BytesIO()
        with _write(piece) as file:
            for name, dataset in self._make_datasets(file, manifest, len(samples)):
                dataset[:] = rows[name].astype(dataset.dtype)
        write_file(piece_path(self.path, part), piece.getvalue())

    def finish(self, manifest: Manifest) -> None:
        """Copy the chunks of all parts, then the manifest."""
        with _UnfailingFile(self.path, "w+") as disk, _write(disk) as file:
            datasets = list(self._make_datasets(file, manifest, manifest.num_samples))
            for part in range(manifest.num_parts):
                _copy_chunks(
                    piece_path(self.path, part), datasets, first_row=manifest.rows_of_part(part).start
                )
            _label_axes(file, manifest)
            file.attrs[spec.MANIFEST_ATTRIBUTE] = manifest_text(manifest)
        if disk.error is not None:
            raise disk.error
        sync(self.path)

    def _columns(self, manifest: Manifest) -> Iterator[tuple[str, _Column]]:
        import h5py

        for name, array in array_specs(manifest).items():
            yield name, _Column(array.dtype.newbyteorder("<"), array.row_shape, array.fill_value)
        for name in NUMBERS:
            yield name, _Column(np.dtype("<i4"), (), UNKNOWN)
        for name in TEXTS:
            yield name, _Column(h5py.string_dtype("utf-8", self.widths[name]), (), None)

    def _make_datasets(
        self, file: h5py.File, manifest: Manifest, n: int
    ) -> Iterator[tuple[str, h5py.Dataset]]:
        # Of all parts alike, also of one with fewer rows, whose last chunk is filled up.
        chunk_rows = min(manifest.layout.chunk_rows, manifest.num_samples)
        for name, column in self._columns(manifest):
            yield (
                name,
                file.create_dataset(
                    name,
                    (n, *column.row_shape),
                    column.dtype,
                    chunks=(chunk_rows, *column.row_shape),
                    maxshape=(None, *column.row_shape),
                    fillvalue=column.fill_value,
                    compression="gzip",
                    compression_opts=_LEVEL,
                    shuffle=True,
                    fletcher32=True,
                ),
            )


def _write(file: io.BytesIO | io.FileIO) -> h5py.File:
    import h5py

    # The oldest form that holds the content; times, which would make each file another, are off.
    return h5py.File(file, "w", libver="earliest", track_order=False)


class _UnfailingFile(io.FileIO):
    """A file that keeps to itself that the disk is full.

    The HDF5 library crashes when a write fails, and h5py goes on with an exception that is set.
    """

    error: OSError | None = None

    def write(self, data: Buffer) -> int:
        """Write all of some bytes, or nothing any more."""
        view = memoryview(data).cast("B")
        size = len(view)
        try:
            while view and self.error is None:
                view = view[super().write(view) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Make the file longer or shorter, or leave it as it is from now on."""
        try:
            if self.error is None:
                super().truncate(size)
        except OSError as error:
            self.error = error
        return self.tell() if size is None else size


def _copy_chunks(piece: Path, datasets: Sequence[tuple[str, h5py.Dataset]], *, first_row: int) -> None:
    import h5py

    with h5py.File(piece, "r") as file:
        for name, target in datasets:
            source = file[name]
            for start in range(0, len(source), source.chunks[0]):
                offset = (start, *(0,) * (source.ndim - 1))
                filters, data = source.id.read_direct_chunk(offset)
                target.id.write_direct_chunk((first_row + start, *offset[1:]), data, filters)


def _label_axes(file: h5py.File, manifest: Manifest) -> None:
    for name, array in array_specs(manifest).items():
        for axis, label in enumerate(array.dimensions):
            file[name].dims[axis].label = label

"""Arrays in NumPy's own files, read a few rows at a time and never unpickled."""

from __future__ import annotations

import os
import tokenize
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from relabel_store.errors import LabelSourceError

_MAX_HEADER_BYTES = 10_000
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class ArrayHeader:
    """What a file says of the array in it.

    Attributes
    ----------
    size_bytes
        Of the header: where the numbers begin.
    """

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    size_bytes: int

    @property
    def data_bytes(self) -> int:
        """How many bytes of numbers follow the header."""
        count = 1
        for length in self.shape:
            count *= length
        return count * self.dtype.itemsize


@dataclass(frozen=True)
class ArrayFile:
    """An array that lies in a file as it does in memory. It can be pickled and holds nothing open.

    Parameters
    ----------
    name
        What it is called in messages.
    offset
        Where its numbers begin in the file.
    """

    name: str
    path: Path
    offset: int
    header: ArrayHeader

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, rows first."""
        return self.header.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype."""
        return self.header.dtype

    def read(self, rows: range) -> NDArray[Any]:
        """Return some consecutive rows, copied from the file; only their pages are read.

        Raises
        ------
        LabelSourceError
            The file is shorter than it was.
        """
        return np.array(self._mapped()[rows.start : rows.stop])

    def read_all(self) -> NDArray[Any]:
        """Return the whole array, of whatever shape, copied from the file."""
        return np.array(self._mapped())

    def _mapped(self) -> NDArray[Any]:
        header = self.header
        if not header.data_bytes:
            return np.empty(header.shape, header.dtype)
        order: Literal["C", "F"] = "F" if header.is_fortran else "C"
        try:
            return np.memmap(self.path, header.dtype, "r", self.offset, header.shape, order)
        except (OSError, ValueError) as error:
            raise LabelSourceError(f"{self.name}: {error}") from error


def open_npy(path: Path) -> ArrayFile:
    """Return the array of a ``.npy`` file.

    Raises
    ------
    LabelSourceError
        It cannot be read, is no such file, holds Python objects, or is not as long as its header says.
    """
    name = f"array {path.name!r}"
    try:
        with path.open("rb") as file:
            header = read_header(file, name)
            size_bytes = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise LabelSourceError(f"{name}: {error.strerror or error}") from error
    require_length(name, header, size_bytes)
    return ArrayFile(name, path, header.size_bytes, header)


def read_header(file: IO[bytes], name: str) -> ArrayHeader:
    """Return the header at the beginning of a ``.npy`` file.

    Raises
    ------
    LabelSourceError
        There is none, or it is of an array of Python objects or records.
    """
    try:
        version = npy.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"version {version} of the format, expected 1.0 or 2.0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that Python 2 wrote it
            shape, is_fortran, dtype = _HEADERS[version](file, max_header_size=_MAX_HEADER_BYTES)
    except (ValueError, TypeError, SyntaxError, EOFError, RecursionError, tokenize.TokenError) as error:
        raise LabelSourceError(f"{name}: {error}; expected a file that numpy.save wrote") from error
    if dtype.hasobject or dtype.fields is not None or dtype.subdtype is not None:
        raise LabelSourceError(
            f"{name}: of dtype {dtype}, expected numbers or text; Python objects are not loaded, because loading them "
            "runs whatever code is in the file"
        )
    if any(length < 0 for length in shape):
        raise LabelSourceError(f"{name}: shape {shape}, expected no negative lengths")
    return ArrayHeader(tuple(shape), is_fortran, dtype, file.tell())


def require_length(name: str, header: ArrayHeader, size_bytes: int) -> None:
    """Check that a file is as long as its header says.

    Raises
    ------
    LabelSourceError
        It is not.
    """
    expected = header.size_bytes + header.data_bytes
    if size_bytes != expected:
        raise LabelSourceError(
            f"{name}: {size_bytes:,} bytes, expected {expected:,} for {header.dtype} of shape {header.shape}; "
            "it is damaged or was not copied whole"
        )

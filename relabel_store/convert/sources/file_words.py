"""The names and strings that a file of ``torch.save`` or joblib mentions, to recognise it by, without unpickling it."""

from __future__ import annotations

import io
import pickletools
import zipfile
import zlib
from pathlib import Path

_LOOKED_AT_BYTES = 65_536
_MAX_PICKLES = 5  # of torch before 1.6: a magic number, a version, the system, then the object
_ZIP, _ZLIB = b"PK\x03\x04", b"\x78"


def words_in(path: Path) -> frozenset[str]:
    """Return the names and strings at the beginning of what was pickled; none of a file of another kind."""
    try:
        beginning = _beginning(path)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
        return frozenset()
    if not beginning.startswith(b"\x80"):  # the first byte of a pickle of protocol 2 and later
        return frozenset()
    words: set[str] = set()
    stream = io.BytesIO(beginning)
    try:
        for _ in range(_MAX_PICKLES):
            for _, argument, _ in pickletools.genops(stream):
                if isinstance(argument, str):
                    words.update(argument.split(" "))
    except (ValueError, UnicodeDecodeError, OverflowError):
        pass  # cut off where we stopped looking, or the numbers that come after the pickles
    return frozenset(words)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        beginning = file.read(_LOOKED_AT_BYTES)
    if beginning.startswith(_ZIP):
        return _pickle_in_zip(path)
    if beginning.startswith(_ZLIB):
        return zlib.decompressobj().decompress(beginning, _LOOKED_AT_BYTES)
    return beginning


def _pickle_in_zip(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if name is None:
            return b""
        with archive.open(name) as file:
            return file.read(_LOOKED_AT_BYTES)

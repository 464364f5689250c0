"""Label maps in a ``.npz`` file: arrays ``indices``, ``values``, ``sample_ids``, and what else it says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from relabel_store.convert.source import Location, SourceOptions
from relabel_store.convert.sources.array_files import ArrayFile
from relabel_store.convert.sources.arrays import (
    INDICES,
    LOGSUMEXP,
    NAMES,
    REST,
    VALUES,
    ArraySource,
    GivenClasses,
)
from relabel_store.convert.sources.given_samples import samples_of_ids
from relabel_store.convert.sources.npz_members import ScratchFolder, member_names, open_members
from relabel_store.errors import LabelSourceError
from relabel_store.manifest import AbsentRule
from relabel_store.store.location import is_url

FORMAT = "npz"

_IDS = ("sample_ids", "sample_id")
_CLASS_NAMES, _NUM_CLASSES = "class_names", "num_classes"
_BLOCK_BYTES = 1 << 26  # of text that is decoded at a time, which may be padded to any width
_MAGIC = b"PK\x03\x04"


def recognise(location: Location) -> bool:
    """Tell whether this is a ``.npz`` file on this machine's disks."""
    if is_url(location) or Path(location).suffix.lower() != ".npz" or not Path(location).is_file():
        return False
    with Path(location).open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def open_source(location: Location, options: SourceOptions) -> ArraySource:
    """Return the label maps of a ``.npz`` file; see `ArraySource`.

    Raises
    ------
    LabelSourceError
        Arrays are missing, damaged or of Python objects, or cannot be label maps.
    ImageSourceError
        There are no images, if they were named.
    JoinError
        None of them is of these labels.
    NotEnoughSpaceError
        It is compressed, and there is no room to unpack it.
    """
    options.require_only(FORMAT, "value_step", "absent", "class_names", "num_classes", "images")
    path = _local(location)
    there = member_names(path)
    ids = next((name for name in _IDS if name in there), None)
    missing = [name for name in (INDICES, VALUES) if name not in there]
    if missing or ids is None:
        raise LabelSourceError(
            f"labels {path.name!r}: arrays {', '.join(map(repr, there))}, expected also "
            f"{' and '.join(map(repr, missing + ([] if ids else ['sample_ids'])))}: (n, k, n_rows, n_cols) arrays "
            f"{INDICES!r} and {VALUES!r}, and n sample ids, because order does not say which image a map is of"
        )
    # What nobody asked for is not unpacked.
    rests = [name for name in (REST, LOGSUMEXP) if name in there]
    maps = [INDICES, VALUES, *rests[: 1 if options.absent is AbsentRule.REST else 2]]
    said = [name for name in (_CLASS_NAMES, _NUM_CLASSES) if name in there]
    scratch = ScratchFolder()
    arrays = open_members(path, [*maps, ids, *said], scratch.path)
    return ArraySource(
        path.stem,
        {name: array for name, array in arrays.items() if name in NAMES},
        samples_of_ids(f"labels {path.name!r}: {ids!r}", _texts(arrays[ids])),
        _given_classes(arrays),
        options,
        scratch,
    )


def _local(location: Location) -> Path:
    if is_url(location):
        raise LabelSourceError(
            f"labels {str(location)!r}: expected a file on this machine's disks; fetch it first"
        )
    return Path(location)


def _given_classes(arrays: Mapping[str, ArrayFile]) -> GivenClasses:
    names = tuple(_texts(arrays[_CLASS_NAMES])) if _CLASS_NAMES in arrays else None
    if _NUM_CLASSES not in arrays:
        return GivenClasses(names)
    array = arrays[_NUM_CLASSES]
    if array.dtype.kind not in "iu" or array.shape not in ((), (1,)):
        raise LabelSourceError(
            f"{array.name}: {array.dtype} of shape {array.shape}, expected one whole number"
        )
    return GivenClasses(names, int(array.read_all().item()))


def _texts(array: ArrayFile) -> list[str]:
    if array.dtype.kind not in "USiu" or len(array.shape) != 1:
        raise LabelSourceError(
            f"{array.name}: {array.dtype} of shape {array.shape}, expected a list of texts, of fixed width, as "
            "numpy.array(ids) makes it"
        )
    found: list[str] = []
    step = max(1, _BLOCK_BYTES // max(array.dtype.itemsize, 1))
    try:
        for start in range(0, array.shape[0], step):
            block = array.read(range(start, min(start + step, array.shape[0]))).tolist()
            found += [one.decode() if isinstance(one, bytes) else str(one) for one in block]
        "".join(found).encode()
    except UnicodeError as error:
        raise LabelSourceError(f"{array.name}: {error}; expected UTF-8") from error
    except ValueError as error:  # a code point that there is not
        raise LabelSourceError(f"{array.name}: {error}") from error
    return found

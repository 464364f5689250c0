"""Label maps in a folder of ``.npy`` files: ``indices.npy``, ``values.npy``, and a sample table."""

from __future__ import annotations

from pathlib import Path

from relabel_store.convert.source import Location, SourceOptions
from relabel_store.convert.sources.array_files import open_npy
from relabel_store.convert.sources.arrays import INDICES, NAMES, VALUES, ArraySource, GivenClasses
from relabel_store.convert.sources.given_samples import TABLE_NAMES, read_sample_table
from relabel_store.errors import LabelSourceError
from relabel_store.store.location import is_url

FORMAT = "npy"


def recognise(location: Location) -> bool:
    """Tell whether this is a folder on this machine's disks with the two files that there have to be."""
    return not is_url(location) and all(_file(Path(location), name).is_file() for name in (INDICES, VALUES))


def open_source(location: Location, options: SourceOptions) -> ArraySource:
    """Return the label maps of a folder of ``.npy`` files, which stay where they are; see `ArraySource`.

    Raises
    ------
    LabelSourceError
        Files are missing, damaged or of Python objects, or cannot be label maps.
    ImageSourceError
        There are no images, if they were named.
    JoinError
        None of them is of these labels.
    """
    options.require_only(FORMAT, "value_step", "absent", "class_names", "num_classes", "images")
    if not recognise(location):
        raise LabelSourceError(
            f"labels {str(location)!r}: expected a folder on this machine's disks with '{INDICES}.npy' and "
            f"'{VALUES}.npy'"
        )
    folder = Path(location)
    tables = [name for name in TABLE_NAMES if (folder / name).is_file()]
    if len(tables) != 1:
        raise LabelSourceError(
            f"labels {folder.name!r}: {len(tables)} sample tables, expected {' or '.join(map(repr, TABLE_NAMES))}: "
            "a line for each map and a column 'sample_id' or 'path': order does not say which image a map is of"
        )
    arrays = {name: open_npy(_file(folder, name)) for name in NAMES if _file(folder, name).is_file()}
    samples = read_sample_table(folder / tables[0])
    return ArraySource(folder.resolve().name, arrays, samples, GivenClasses(), options)


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"

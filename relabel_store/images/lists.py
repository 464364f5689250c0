"""Plain lists: a CSV or Parquet table of paths, ids and labels."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from relabel_store.errors import ImageSourceError
from relabel_store.images.columns import (
    CLASS_COLUMNS,
    ID_COLUMN,
    OTHER_ID_COLUMNS,
    PATH_COLUMNS,
    class_label,
    class_names_of,
    ids_of_column,
    pick,
    text_column,
)
from relabel_store.images.names import (
    Names,
    OptionalTexts,
    Texts,
    class_folder,
    drop_shared_folders,
    is_image,
    plain_path,
    require_utf8,
)
from relabel_store.images.places import Place, is_url, open_place, require_location
from relabel_store.images.services import attempt
from relabel_store.images.shared_folder import below_shared_folder, without_query
from relabel_store.store.parquet_pages import read_bounded

_THIS_MACHINE = re.compile("/|(?:file|local):", re.IGNORECASE)
_NAMED = 3  # missing files named in a message
_CHECKED_AT_ONCE = 4096
_THREADS = 16  # that ask a network file system whether files are there


class ListedImages:
    """The images that a table lists, in its order.

    Parameters
    ----------
    base
        Path or URL of the folder that relative paths begin at.
    files
        Path or URL of each image, as the table has it.
    """

    kind = "list"
    order = "source"

    def __init__(self, name: str, base: str, files: Texts, names: Names, ids_from: str) -> None:
        self.name = name
        self.ids_from = ids_from
        self.sample_ids, self.paths, self.class_names = names.sample_ids, names.paths, names.class_names
        self._base = base
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __reduce__(self) -> tuple[Any, ...]:
        names = Names(self.sample_ids, self.paths, self.class_names)
        return ListedImages, (self.name, self._base, self._files, names, self.ids_from)

    def read(self, row: int) -> bytes:
        """Return the bytes of an image file."""
        location = _located(self._base, self._files[row])
        if not is_url(location):
            with open(location, "rb") as file:
                return file.read()
        data: bytes = attempt(location, lambda fs, path: fs.cat_file(path))
        return data

    def fingerprint(self, row: int) -> tuple[int, int]:
        """Return size in bytes and version of an image file."""
        stamp = open_place(_located(self._base, self._files[row])).stamp()
        return stamp.size_bytes, stamp.version


def open_list(place: Place, table: pa.Table, name: str) -> ListedImages:
    """Return the images that a table lists.

    Parameters
    ----------
    table
        Of `read_list`.

    Raises
    ------
    ImageSourceError
        A column is missing or has gaps, a file is not there, a URL holds credentials, or two images have one id.
    """
    require_utf8(name)
    location, columns = place.location, table.column_names
    path_column = pick(columns, PATH_COLUMNS)
    if path_column is None:
        is_parquet = place.name.lower().endswith(".parquet")
        raise ImageSourceError(
            f"images {location!r}: columns {', '.join(map(repr, columns[:20]))}, expected one of paths, called "
            f"{', '.join(map(repr, PATH_COLUMNS))}, "
            + (
                "or one of images, a struct with 'bytes' or binary data called 'image' or the like"
                if is_parquet
                else "in the first line of the file"
            )
        )
    if not len(table):
        raise ImageSourceError(f"images {location!r}: a table without rows")
    listed = text_column(location, table, path_column)
    if is_url(location):
        _require_elsewhere(location, listed)
    files = Texts.of(map(require_location, listed))
    base = location.rpartition("/")[0] if is_url(location) else os.path.dirname(os.path.abspath(location))  # noqa: PTH100, PTH120
    _require_files(location, base, files)
    label = class_label(table.schema)
    classes = None if label is None or label == path_column else class_names_of(location, table, label)
    paths, taken = _paths(location, base, files)
    id_column = pick(columns, (ID_COLUMN, *OTHER_ID_COLUMNS))
    if id_column is None:
        names = Names.of_paths(location, paths)
        ids_from = f"paths below {taken}" if taken else "paths"
    else:
        ids = ids_of_column(location, table, id_column, paths)
        names = Names(ids, paths, OptionalTexts.of(map(class_folder, paths)))
        ids_from = f"column {id_column!r}"
        ids_from += f"; paths are those below {taken}" if taken else ""
    names = names if classes is None else replace(names, class_names=classes)
    return ListedImages(name, base, files, names, ids_from)


def _located(base: str, file: str) -> str:
    if is_url(file) or file.startswith("/"):
        return file
    return f"{base}/{file}"


def _paths(location: str, base: str, files: Texts) -> tuple[Texts, str]:
    """Return paths as a store may hold them, and below what they are where that is not the folder of the table."""
    where = f"images {location!r}"
    located = (without_query(_located(base, file)) for file in files)
    if not any(_is_elsewhere(base, file) for file in files):
        below = (plain_path(file.removeprefix(f"{base}/"), where) for file in located)
        paths, dropped = drop_shared_folders(Texts.of(below))
        return paths, repr(dropped) if dropped else ""
    found = below_shared_folder(Texts.of(located), where)
    if found is None:
        example = next(file for file in files if _is_elsewhere(base, file))
        raise ImageSourceError(
            f"{where}: the files share no folder but '/' or that of the homes ({example!r}), so that paths would be "
            "absolute or name a user, which a store does not record; link the folders into one, and list the files "
            "below it"
        )
    return found


def _is_elsewhere(base: str, file: str) -> bool:
    return (is_url(file) or file.startswith("/")) and not file.startswith(f"{base}/")


def _require_elsewhere(location: str, files: Texts) -> None:
    """Check that a table that somebody put on the network does not name files of this machine."""
    bad = next((file for file in files if _THIS_MACHINE.match(file)), None)
    if bad is not None:
        raise ImageSourceError(f"images {location!r}: path {bad!r} of this machine in a remote table")


def _require_files(location: str, base: str, files: Texts) -> None:
    """Check that local files are there, before a build of days finds that they are not."""

    def missing(start: int) -> list[str]:
        located = [(file, _located(base, file)) for file in files[start : start + _CHECKED_AT_ONCE]]
        return [file for file, path in located if not is_url(path) and not os.path.isfile(path)]  # noqa: PTH113

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="check") as pool:
        absent = [file for some in pool.map(missing, range(0, len(files), _CHECKED_AT_ONCE)) for file in some]
    if absent:
        more = ", …" if len(absent) > _NAMED else ""
        raise ImageSourceError(
            f"images {location!r}: {len(absent)} of {len(files)} files are not there "
            f"({', '.join(map(repr, absent[:_NAMED]))}{more}); paths begin at the folder of the table, unless they are "
            "absolute"
        )


def read_csv(place: Place) -> pa.Table:
    """Return the columns of a CSV or TSV file that say something of images, all as text.

    Raises
    ------
    ImageSourceError
        It cannot be read, or is no table.
    """
    delimiter = "\t" if place.name.lower().endswith(".tsv") else ","
    parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    try:
        with place.open() as file, pa_csv.open_csv(file, parse_options=parse) as reader:
            header = reader.schema.names
        wanted = [name for name in dict.fromkeys(header) if _says_something(name)]
        if any(is_image(name) for name in header):
            raise ImageSourceError(
                f"images {place.location!r}: the first line is {', '.join(map(repr, header[:5]))}, expected the names "
                "of the columns, such as path,sample_id,class_name"
            )
        if len(wanted) < sum(map(_says_something, header)):
            raise ImageSourceError(f"images {place.location!r}: two columns of one name in {header[:20]}")
        convert = pa_csv.ConvertOptions(
            include_columns=wanted or header[:1],
            column_types={name: pa.string() for name in header},
            strings_can_be_null=False,
        )
        with place.open() as file:
            table = pa_csv.read_csv(file, parse_options=parse, convert_options=convert)
    except (pa.ArrowException, ValueError) as error:
        if isinstance(error, ImageSourceError):
            raise
        raise ImageSourceError(
            f"images {place.location!r}: {error}, expected a CSV table in UTF-8"
        ) from error
    except OSError as error:
        raise ImageSourceError(f"images {place.location!r}: {error.strerror or error}") from error
    return table if wanted else pa.table({name: pa.array([], pa.string()) for name in header})


def read_parquet_list(place: Place) -> pa.Table:
    """Return the columns of a Parquet file that say something of images.

    Raises
    ------
    ImageSourceError
        It cannot be read.
    """
    try:
        with place.open() as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            wanted = [name for name in file.schema_arrow.names if _says_something(name)]
            label = class_label(file.schema_arrow)
            wanted += [label] if label is not None and label not in wanted else []
            return read_bounded(file, opened, wanted or None)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ImageSourceError(f"images {place.location!r}: {error}, expected a Parquet table") from error


def _says_something(column: str) -> bool:
    return column.lower() in (ID_COLUMN, *OTHER_ID_COLUMNS, *PATH_COLUMNS, *CLASS_COLUMNS)

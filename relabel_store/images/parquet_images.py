"""Images inside Parquet files, as ``datasets`` stores them."""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from relabel_store.errors import ImageSourceError
from relabel_store.images.columns import (
    ID_COLUMN,
    OTHER_ID_COLUMNS,
    PATH_COLUMNS,
    class_label,
    class_names_of,
    ids_of_column,
    pick,
)
from relabel_store.images.imagenet import imagenet_id
from relabel_store.images.names import (
    Names,
    OptionalTexts,
    Texts,
    class_folder,
    drop_shared_folders,
    plain_path,
    require_utf8,
)
from relabel_store.images.places import LocalFile, Place
from relabel_store.images.shared_folder import below_shared_folder, without_query
from relabel_store.sample_ids import sample_id_of
from relabel_store.store.parquet_pages import read_bounded, rows_of_large_items

_ABSOLUTE = re.compile("/|[A-Za-z][A-Za-z0-9+.-]*://")
_OF_WINDOWS = re.compile(r"[A-Za-z]:[\\/](?!/)|\\\\")
_SLASH = re.compile(r"[\\/]")
_BYTES_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "data")
_BATCH_ROWS = 16  # images held at once, of however many in a row group
_BUFFER = 1 << 20  # bytes read at once of a column: without it, Arrow reads a row group of a gigabyte whole


@dataclass(frozen=True)
class ImageColumn:
    """Where the bytes of images are in a table.

    Parameters
    ----------
    name
        Of the column.
    is_struct
        It has fields ``bytes`` and maybe ``path``; else it is the bytes.
    has_path
        It has a field ``path``.
    """

    name: str
    is_struct: bool = False
    has_path: bool = False

    @property
    def leaf(self) -> str:
        """What Parquet calls the column of the bytes alone."""
        return f"{self.name}.bytes" if self.is_struct else self.name


def image_column(schema: pa.Schema) -> ImageColumn | None:
    """Return the column of images of a table; None where there is none, or no telling which.

    A struct with bytes, as ``datasets`` has it, or binary data under a usual name.
    """
    structs, binary = [], []
    for field in schema:
        kind = field.type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            if _is_binary(kind.field("bytes").type):
                structs.append(ImageColumn(field.name, True, kind.get_field_index("path") >= 0))
        elif _is_binary(kind):
            binary.append(field.name)
    if structs:
        named = pick([column.name for column in structs], _BYTES_COLUMNS)
        found = [column for column in structs if len(structs) == 1 or column.name == named]
        return found[0] if found else None
    usual = pick(binary, _BYTES_COLUMNS)
    return None if usual is None else ImageColumn(usual)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


class ParquetImages:
    """The images in some Parquet files, in their order.

    A row group is read from its beginning, a few images at a time, and read on while rows rise: what a build does.

    Parameters
    ----------
    groups
        Rows of each row group of each file.
    versions
        Size and version of each file.
    """

    kind = "parquet"
    order = "source"

    def __init__(
        self,
        name: str,
        places: Sequence[Place],
        column: ImageColumn,
        groups: Sequence[Sequence[int]],
        versions: Sequence[tuple[int, int]],
        names: Names,
        ids_from: str,
    ) -> None:
        self.name = name
        self.ids_from = ids_from
        self.sample_ids, self.paths, self.class_names = names.sample_ids, names.paths, names.class_names
        self._places = places
        self._column = column
        self._versions = versions
        self._groups = groups
        self._group_of = [(file, group) for file, sizes in enumerate(groups) for group in range(len(sizes))]
        self._starts = [0, *accumulate(rows for sizes in groups for rows in sizes)]
        self._cursor: _Cursor | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        names = Names(self.sample_ids, self.paths, self.class_names)
        given = (self.name, self._places, self._column, self._groups, self._versions, names, self.ids_from)
        return ParquetImages, given

    def __len__(self) -> int:
        return self._starts[-1]

    def _place_of(self, row: int) -> tuple[int, int, int]:
        """Return the file, the row group in it and the row in that of an image."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row}: out of range, expected 0 to {len(self) - 1}")
        at = bisect_right(self._starts, row) - 1
        file, group = self._group_of[at]
        return file, group, row - self._starts[at]

    def read(self, row: int) -> bytes:
        """Return the bytes of an image; none where the table has null."""
        file, group, position = self._place_of(row)
        cursor = self._cursor
        if cursor is None or not cursor.can_reach(file, group, position):
            self.close()
            cursor = self._cursor = _Cursor(self._places[file], self._column, file, group)
        try:
            return cursor.read(position)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file that is being read; it is opened again when it is needed."""
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def fingerprint(self, row: int) -> tuple[int, int]:
        """Return size and version of the Parquet file that holds an image: its own size is known only by reading."""
        return self._versions[self._place_of(row)[0]]


class _Cursor:
    """A row group, read from its beginning on."""

    def __init__(self, place: Place, column: ImageColumn, file: int, group: int) -> None:
        self._place = place
        self._column = column
        self._at = (file, group)
        self._pid = os.getpid()  # a forked process has to open the file for itself
        self._opened = place.open()
        try:
            self._file = pq.ParquetFile(
                self._opened, pre_buffer=False, buffer_size=_BUFFER, page_checksum_verification=True
            )
            rows = _BATCH_ROWS
            if isinstance(
                place, LocalFile
            ):  # over a network, the headers of all pages would take as long as they do
                rows = min(rows, rows_of_large_items(self._opened, column.leaf, group))
            self._batches: Iterator[pa.RecordBatch] = self._file.iter_batches(
                batch_size=rows, row_groups=[group], columns=[column.leaf], use_threads=False
            )
        except (pa.ArrowException, OSError, ValueError, IndexError) as error:
            raise self._unreadable(error) from error
        self._start = 0  # of the batch at hand
        self._images: pa.Array = pa.array([], pa.binary())

    def can_reach(self, file: int, group: int, position: int) -> bool:
        return self._at == (file, group) and position >= self._start and self._pid == os.getpid()

    def read(self, position: int) -> bytes:
        while position >= self._start + len(self._images):
            try:
                batch = next(self._batches)
            except StopIteration:
                raise OSError(
                    errno.ESTALE,
                    f"{self._place.name!r}: row group {self._at[1]} has fewer rows than were listed; the file changed",
                ) from None
            except (pa.ArrowException, OSError) as error:
                raise self._unreadable(error) from error
            self._start += len(self._images)
            column = batch.column(0)
            # flatten, unlike field, gives null where the struct itself is null
            self._images = column.flatten()[0] if self._column.is_struct else column
        data: bytes | None = self._images[position - self._start].as_py()
        return data or b""

    def close(self) -> None:
        self._opened.close()

    def __del__(self) -> None:
        self.close()  # a source is dropped without being told

    def _unreadable(self, error: Exception) -> OSError:
        if isinstance(error, OSError) and error.strerror:
            return error
        return OSError(errno.EIO, f"{self._place.name!r}, row group {self._at[1]}: {error}")


def holds_images(place: Place) -> bool:
    """Tell whether a Parquet file has a column of images, rather than of their paths.

    Raises
    ------
    ImageSourceError
        It cannot be read.
    """
    try:
        with place.open() as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            return image_column(file.schema_arrow) is not None
    except (pa.ArrowException, OSError) as error:
        raise ImageSourceError(
            f"images {place.location!r}: {error}, expected a whole Parquet file"
        ) from error


def open_parquet(places: Sequence[Place], *, location: str, name: str) -> ParquetImages:
    """Return the images in some Parquet files.

    Raises
    ------
    ImageSourceError
        A file cannot be read, they have other columns than the first, no rows, or nothing to call the images by.
    """
    require_utf8(name)
    tables, groups, versions = [], [], []
    is_empty = True
    column: ImageColumn | None = None
    for place in places:
        try:
            stamp = place.stamp()
            with place.open() as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
                schema = file.schema_arrow
                found = image_column(schema)
                if found is None or (column is not None and found != column):
                    raise ImageSourceError(
                        f"images {place.location!r}: columns {', '.join(map(repr, schema.names[:20]))}, expected "
                        + (
                            "one of images with bytes"
                            if column is None
                            else f"images in {column.name!r} as before"
                        )
                    )
                column = found
                wanted = _name_columns(schema, column)
                tables.append(read_bounded(file, opened, wanted) if wanted else None)
                sizes = [
                    file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)
                ]
                is_empty = is_empty and _has_nulls_alone(file.metadata, column.leaf)
        except ImageSourceError:
            raise
        except OSError as error:
            raise ImageSourceError(f"images {place.location!r}: {error.strerror or error}") from error
        except (pa.ArrowException, ValueError) as error:
            raise ImageSourceError(f"images {place.location!r}: {error}, expected a Parquet file") from error
        groups.append(sizes)
        versions.append((stamp.size_bytes, stamp.version))
    if column is None or not any(map(sum, groups)):
        raise ImageSourceError(f"images {location!r}: no rows")
    if is_empty:
        raise ImageSourceError(
            f"images {location!r}: column {column.name!r} is without bytes in every row, expected image files in it; "
            "give the folder they lie in or a list of their paths, or put them in: "
            "dataset.with_format('arrow').map(datasets.table.embed_table_storage, batched=True)"
        )
    try:
        table = pa.concat_tables(tables, promote_options="none") if None not in tables else None
    except pa.ArrowInvalid as error:
        raise ImageSourceError(f"images {location!r}: the files have different columns: {error}") from error
    names, ids_from = _name(location, places, groups, table, column)
    return ParquetImages(name, places, column, groups, versions, names, ids_from)


def _has_nulls_alone(metadata: pq.FileMetaData, leaf: str) -> bool:
    """Tell whether a column is known to be null in every row, by the statistics of its row groups.

    So ``datasets`` writes images of this machine: their paths alone.
    """
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunk = next(one for one in map(group.column, range(group.num_columns)) if one.path_in_schema == leaf)
        found = chunk.statistics
        if found is None or not found.has_null_count or found.null_count < group.num_rows:
            return False
    return True


def _name_columns(schema: pa.Schema, column: ImageColumn) -> list[str]:
    """Return the columns that say something of the images, without the images."""
    label = class_label(schema)
    usual = [pick(schema.names, names) for names in ((ID_COLUMN,), OTHER_ID_COLUMNS, PATH_COLUMNS)]
    found = [name for name in (*usual, label) if name is not None and name != column.name]
    return list(dict.fromkeys([*found, *([f"{column.name}.path"] if column.has_path else [])]))


def _name(
    location: str,
    places: Sequence[Place],
    groups: Sequence[Sequence[int]],
    table: pa.Table | None,
    column: ImageColumn,
) -> tuple[Names, str]:
    """Return what the images are called, and what their ids are made of."""
    positions = (
        f"{place.name.rpartition('.')[0]}/{row:07d}"
        for place, sizes in zip(places, groups, strict=True)
        for row in range(sum(sizes))
    )
    if table is None:
        ids = Texts.of(positions)
        return Names(ids, ids, OptionalTexts.of([None] * len(ids))), "positions"
    label = class_label(table.schema)
    classes = None if label is None or label == column.name else class_names_of(location, table, label)
    paths, taken = _paths(location, table, column)
    if pick(table.column_names, (ID_COLUMN,)) is None and paths is not None:
        named = _name_by_paths(location, paths, taken, classes)
        if named is not None:
            return named
    id_column = pick(table.column_names, (ID_COLUMN, *OTHER_ID_COLUMNS))
    ids = Texts.of(positions) if id_column is None else ids_of_column(location, table, id_column, paths)
    no_classes = OptionalTexts.of([None] * len(ids))
    if paths is None:  # then ids stand for them, unless they cannot be paths below a root
        paths = ids if id_column is None or all(map(_is_plain, ids)) else Texts.of(positions)
    names = Names(ids, paths, no_classes if classes is None else classes)
    return names, "positions" if id_column is None else f"column {id_column!r}"


def _is_plain(text: str) -> bool:
    return not (_ABSOLUTE.match(text) or _OF_WINDOWS.match(text) or ".." in text.split("/"))


def _paths(location: str, table: pa.Table, column: ImageColumn) -> tuple[Texts | None, str]:
    """Return the paths of all images, None where one has none; and below what they are, if they were absolute."""
    found = None
    if column.has_path:
        found = table[column.name].combine_chunks().flatten()[0]
    elif (name := pick(table.column_names, PATH_COLUMNS)) is not None:
        found = table[name].combine_chunks()
    if (
        found is None
        or found.null_count
        or not (pa.types.is_string(found.type) or pa.types.is_large_string(found.type))
    ):
        return None, ""
    try:
        found.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ImageSourceError(f"images {location!r}: paths: {error}, expected UTF-8") from error
    if pc.any(pc.equal(found, "")).as_py():
        return None, ""
    paths, where = Texts.of(map(without_query, Texts(found))), f"images {location!r}"
    if any(map(_OF_WINDOWS.match, paths)):
        shared = None
    elif any(map(_ABSOLUTE.match, paths)):
        shared = below_shared_folder(paths, where)
    else:
        shared = Texts.of(plain_path(path, where) for path in paths), ""
    # Of files of the machine that wrote the table that share nothing, names can be told.
    return shared or (Texts.of(plain_path(_SLASH.split(path)[-1], where) for path in paths), "")


def _name_by_paths(
    location: str, paths: Texts, taken: str, classes: OptionalTexts | None
) -> tuple[Names, str] | None:
    """Return what images are called by their paths; None where their file names alone do not tell them apart.

    ``datasets`` drops the folder of a file that it stores in Parquet. It is put back from ImageNet's file names, or
    from the class names, which ``datasets`` takes from class folders.
    """
    below, dropped = drop_shared_folders(paths)
    if pc.any(pc.match_substring(below.column, "/")).as_py():
        names = Names.of_paths(location, below)
        taken = taken or (repr(dropped) if dropped else "")
        return names, f"paths below {taken}" if taken else "paths"
    stems = [sample_id_of(path) for path in below]
    found = [imagenet_id(stem) for stem in stems]
    ids_from = "ImageNet's file names"
    if None in found and classes is not None and all(one and "/" not in one for one in classes):
        found = [f"{name}/{stem}" for name, stem in zip(classes, stems, strict=True)]
        ids_from = "class names and file names"
    elif None in found:
        found = [*stems]
        ids_from = "file names"
    ids = Texts.of(unicodedata.normalize("NFC", one or "") for one in found)
    if pc.count_distinct(ids.column).as_py() < len(ids):
        return None
    folders = OptionalTexts.of(map(class_folder, ids))
    has_folders = len(folders.column.dictionary) > 0
    return Names(ids, below, folders if has_folders or classes is None else classes), ids_from

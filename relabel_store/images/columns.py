"""Which column of a table says what of the images."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from itertools import repeat

import pyarrow as pa
import pyarrow.compute as pc

from relabel_store.errors import ImageSourceError
from relabel_store.images.names import OptionalTexts, Texts, require_unique
from relabel_store.sample_ids import MACHINE_PATH, is_absolute_of

_MACHINE_PATH = re.compile(MACHINE_PATH)

ID_COLUMN = "sample_id"
OTHER_ID_COLUMNS = ("id", "__key__", "key", "image_id")
PATH_COLUMNS = ("path", "file_path", "filepath", "file_name", "filename", "file", "image_path", "image")
CLASS_COLUMNS = ("class_name", "class", "wnid", "synset", "label")


def pick(columns: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Return the first wanted column that there is, in whatever case."""
    by_name = {column.lower(): column for column in reversed(columns)}
    return next((by_name[name] for name in wanted if name in by_name), None)


def text_column(location: str, table: pa.Table, name: str) -> Texts:
    """Return a column of a table as text, where nothing may be missing.

    Raises
    ------
    ImageSourceError
        Something is, or it is neither text nor whole numbers.
    """
    column = table[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (_is_text(column.type) or pa.types.is_integer(column.type)):
        raise ImageSourceError(f"images {location!r}: column {name!r} is {column.type}, expected text")
    try:
        whole = pa.chunked_array(column.cast(pa.large_string())).combine_chunks()
        whole.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ImageSourceError(f"images {location!r}: column {name!r}: {error}, expected UTF-8") from error
    is_missing = pc.or_(pc.is_null(whole), pc.fill_null(pc.equal(whole, ""), False))
    missing = pc.sum(is_missing).as_py() or 0
    if missing:
        first = pc.index(is_missing, True).as_py()
        raise ImageSourceError(
            f"images {location!r}: column {name!r} is empty in {missing} of {len(whole)} rows, row {first + 1} first; "
            "fill them in or remove the rows"
        )
    return Texts(whole)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def ids_of_column(location: str, table: pa.Table, name: str, paths: Texts | None) -> Texts:
    """Return the sample ids of an id column, in NFC.

    Parameters
    ----------
    paths
        Of the images, below their root, if they have any.

    Raises
    ------
    ImageSourceError
        One is missing, or there twice, or tells where on some machine its image lies.
    """
    ids = Texts.of(unicodedata.normalize("NFC", one) for one in text_column(location, table, name))
    require_unique(location, ids, [f"row {row + 1}" for row in range(len(ids))])
    tells = _MACHINE_PATH.search
    for sample_id, path in zip(ids, repeat("") if paths is None else paths, strict=False):
        if tells(sample_id) or is_absolute_of(sample_id, path):
            raise ImageSourceError(
                f"images {location!r}: column {name!r} has {sample_id!r}, a path of a machine, which a store does not "
                "record; expected ids that say nothing of where images lie, or no such column"
            )
    return ids


def class_names_of(location: str, table: pa.Table, name: str) -> OptionalTexts:
    """Return the class names of a column: text, or numbers to which ``datasets`` has noted the names.

    Raises
    ------
    ImageSourceError
        A number has no name.
    """
    column = table[name].combine_chunks()
    names = label_names(table.schema, name)
    if names is None or not pa.types.is_integer(column.type):
        try:
            return OptionalTexts.of(one or None for one in Texts(column.cast(pa.string())))
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise ImageSourceError(
                f"images {location!r}: column {name!r}: {error}, expected class names"
            ) from error
    codes = pc.if_else(pc.less(column, 0), None, column).cast(
        pa.int32()
    )  # -1 is what `datasets` has for unknown
    bounds = pc.min_max(codes).as_py()
    if bounds["max"] is not None and bounds["max"] >= len(names):
        raise ImageSourceError(
            f"images {location!r}: column {name!r} has class {bounds['max']}, its metadata name {len(names)}"
        )
    return OptionalTexts(pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string())))


def label_names(schema: pa.Schema, name: str) -> list[str] | None:
    """Return the class names that ``datasets`` has noted for a column of numbers; None where it has not."""
    feature = _features(schema).get(name)
    names = feature.get("names") if isinstance(feature, dict) else None
    is_list = isinstance(names, list) and all(isinstance(one, str) for one in names)
    return names if names and is_list else None


def class_label(schema: pa.Schema) -> str | None:
    """Return the column that holds the class, if any: a ``ClassLabel`` of ``datasets`` before columns by name."""
    labels = [name for name in schema.names if label_names(schema, name) is not None]
    return labels[0] if len(labels) == 1 else pick(schema.names, CLASS_COLUMNS)


def _features(schema: pa.Schema) -> dict[str, object]:
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = found["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}

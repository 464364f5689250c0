"""The samples of arrays, as whoever wrote them says: ids or paths, and what else is known of the images."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from relabel_store.convert.source import facts_of
from relabel_store.errors import ImageSourceError, LabelSourceError
from relabel_store.images.names import class_folder, plain_path
from relabel_store.sample_ids import sample_id_of
from relabel_store.store import samples as sample_tables
from relabel_store.store.journal import BadImage
from relabel_store.store.parquet_pages import read_bounded

TABLE_NAMES = ("samples.parquet", "samples.csv")

_KNOWN_COLUMNS = ("row", "sample_id", "path", "class_name", "width", "height", "sha256")
_FACTS = ("width", "height", "sha256")
_SHA256 = r"^[0-9a-f]{64}$"
_ABSOLUTE = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*://|[A-Za-z]:\\|\\\\")  # of this machine, a URL, of Windows
_NOT_ONE_LINE = re.compile(r"[\0-\x1f\x7f]")


@dataclass(frozen=True)
class GivenSamples:
    """What the samples are called, by row, and what was said of their images.

    Attributes
    ----------
    facts
        Columns ``width``, ``height`` and ``sha256`` of `samples.FACTS_SCHEMA`, null where nothing was said.
    """

    sample_ids: Sequence[str]
    paths: Sequence[str]
    class_names: Sequence[str | None]
    facts: pa.Table

    def __len__(self) -> int:
        return len(self.sample_ids)

    def planned(self, class_index_of: Mapping[str, int]) -> pa.Table:
        """Return the sample table without facts."""
        return sample_tables.planned_samples(self.sample_ids, self.paths, self.class_names, class_index_of)

    def facts_of(self, rows: range, without_label: Iterable[BadImage]) -> pa.Table:
        """Return the facts of some rows, as `facts_of` does of images of which nothing is known."""
        return self.completed(facts_of(rows, without_label), rows)

    def completed(self, facts: pa.Table, rows: range) -> pa.Table:
        """Return the facts of some rows with what was said in the place of what was found."""
        given = self.facts.slice(rows.start, len(rows))
        for name in _FACTS:
            at, field = facts.schema.get_field_index(name), facts.schema.field(name)
            facts = facts.set_column(at, field, pc.coalesce(given[name], facts[name]))
        return facts.combine_chunks()


def samples_of_ids(where: str, sample_ids: Sequence[str]) -> GivenSamples:
    """Return samples that are known by their ids only.

    Parameters
    ----------
    where
        What has the ids, in messages.

    Raises
    ------
    LabelSourceError
        An id is empty, leads out of a folder, or is there twice.
    """
    return _samples(where, pa.table({"sample_id": pa.array(sample_ids, pa.string())}))


def read_sample_table(path: Path) -> GivenSamples:
    """Return the samples of a table that was written beside arrays, CSV or Parquet.

    It has a column ``sample_id``, or ``path``, or both; it may have ``class_name``, ``width``, ``height``, ``sha256``,
    and ``row`` to prove that it is in the arrays' order.

    Raises
    ------
    LabelSourceError
        It cannot be read, has no such column, or what is in them cannot be.
    """
    where = f"sample table {path.name!r}"
    try:
        table = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise LabelSourceError(f"{where}: {error}; expected a table in UTF-8") from error
    return _samples(where, table)


def _read_csv(path: Path) -> pa.Table:
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    types = dict.fromkeys(_KNOWN_COLUMNS, pa.string())
    convert = pa_csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
    return pa_csv.read_csv(path, parse_options=parse, convert_options=convert)


def _read_parquet(path: Path) -> pa.Table:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        there = file.schema_arrow.names
        known = [name for name in there if name in _KNOWN_COLUMNS]
        return read_bounded(file, path, known or there[:20])


def _samples(where: str, table: pa.Table) -> GivenSamples:
    names = [name for name in _KNOWN_COLUMNS if table.column_names.count(name) == 1]
    if "sample_id" not in names and "path" not in names:
        found = ", ".join(map(repr, table.column_names[:20]))
        raise LabelSourceError(f"{where}: columns {found}, expected 'sample_id' or 'path', once")
    try:
        columns = {name: table[name].combine_chunks() for name in names}
        _require_row_order(where, columns.pop("row", None))
        facts = {name: _fact(where, name, columns.get(name), len(table)) for name in _FACTS}
        texts = {
            name: columns[name].cast(pa.string()).to_pylist()
            for name in ("sample_id", "path", "class_name")
            if name in columns
        }
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise LabelSourceError(f"{where}: {error}") from error
    paths = [_plain(where, row, path) for row, path in enumerate(texts.get("path", []))]
    ids = _sample_ids(where, texts["sample_id"]) if "sample_id" in texts else list(map(sample_id_of, paths))
    _require_unique(where, ids)
    paths = paths or ids
    folders = texts.get("class_name") or list(map(class_folder, paths))
    return GivenSamples(ids, paths, folders, pa.table(facts))


def _sample_ids(where: str, given: Sequence[str | None]) -> list[str]:
    ids = [unicodedata.normalize("NFC", sample_id or "") for sample_id in given]
    for row, sample_id in enumerate(ids):
        if _plain(where, row, sample_id) != sample_id:
            raise LabelSourceError(
                f"{where}: sample id {sample_id!r} in row {row}, expected one without '.' and doubled slashes"
            )
    return ids


def _plain(where: str, row: int, path: str | None) -> str:
    if not path or _NOT_ONE_LINE.search(path):
        raise LabelSourceError(f"{where}: {path!r} in row {row}, expected a sample id or path of one line")
    if _ABSOLUTE.match(path):
        raise LabelSourceError(
            f"{where}: {path!r} in row {row} is absolute, expected a sample id or path below the root of the images"
        )
    try:
        return plain_path(path, where)
    except ImageSourceError as error:
        raise LabelSourceError(f"{error}, in row {row}") from error


def _require_unique(where: str, sample_ids: Sequence[str]) -> None:
    first_rows: dict[str, int] = {}
    for row, sample_id in enumerate(sample_ids):
        first = first_rows.setdefault(sample_id, row)
        if first != row:
            raise LabelSourceError(
                f"{where}: sample id {sample_id!r} in rows {first} and {row}, expected each once"
            )


def _require_row_order(where: str, rows: pa.Array | None) -> None:
    if rows is None:
        return
    expected = pa.array(range(len(rows)), pa.int64())
    if not rows.cast(pa.int64()).equals(expected):
        raise LabelSourceError(f"{where}: its rows are not in order of their column 'row'; sort it by that")


def _fact(where: str, name: str, column: pa.Array | None, n: int) -> pa.Array:
    kind = sample_tables.FACTS_SCHEMA.field(name).type
    if column is None:
        return pa.nulls(n, kind)
    if name == "sha256":
        found = pc.utf8_lower(column.cast(pa.string()))
        is_right = pc.match_substring_regex(found, _SHA256)
        expected = "64 hexadecimal digits"
    else:
        found = column.cast(kind)
        is_right = pc.greater(found, 0)
        expected = "pixels, 1 or more"
    wrong = pc.index(is_right, False).as_py()
    if wrong >= 0:
        raise LabelSourceError(
            f"{where}: {name} {found[wrong].as_py()!r} in row {wrong}, expected {expected}"
        )
    return found

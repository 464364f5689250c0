"""Rules of the encoding ``parquet``: the footer of each file against the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from relabel_store import spec
from relabel_store.manifest import Manifest, State
from relabel_store.store.arrays import array_specs
from relabel_store.store.parquet_pages import FREE_BYTES, unfold
from relabel_store.store.parquet_v1 import part_file, part_schema
from relabel_store.validate.documents import json_object
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.finding import Finding, Place, Problem
from relabel_store.validate.rule import check
from relabel_store.validate.scan import decoded_bytes

_REBUILD = "restore it from a copy, or build its part again"


@dataclass(frozen=True)
class Footer:
    """What a Parquet file says of itself.

    Parameters
    ----------
    manifest, document
        Of the store, as an object and as JSON.
    are_columns_readable
        Whether Arrow can be asked for a column.
    """

    manifest: Manifest
    document: dict[str, Any]
    part: int
    metadata: pq.FileMetaData
    schema: pa.Schema
    are_columns_readable: bool

    def place(self, field: str | None = None) -> Place:
        """Return the place of a field."""
        return Place(file=part_file(self.manifest, self.part), field=field)


def footer_findings(
    manifest: Manifest, document: dict[str, Any], part: int, source: Path | bytes
) -> Iterator[Finding]:
    """Yield what is wrong with the footer of a part's file."""
    opened = pa.BufferReader(source) if isinstance(source, bytes) else source
    try:
        with pq.ParquetFile(opened, pre_buffer=False) as file:
            are_readable = _are_columns_readable(file, source, manifest)
            footer = Footer(manifest, document, part, file.metadata, file.schema_arrow, are_readable)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield from check_readable(Place(file=part_file(manifest, part)), " ".join(str(error).split())[:300])
        return
    for rule in _OF_FOOTER:
        yield from rule(footer)


def footers_of(evidence: Evidence) -> Callable[[int, Path | bytes], Iterator[Finding]] | None:
    """Return what looks at how a file of a part describes itself; None where the encoding's files do not."""
    if evidence.manifest is None or evidence.manifest.encoding.name != spec.ENCODING_PARQUET:
        return None
    assert evidence.manifest_document is not None
    return partial(footer_findings, evidence.manifest, evidence.manifest_document)


def _are_columns_readable(file: pq.ParquetFile, source: Path | bytes, manifest: Manifest) -> bool:
    """Read a row of each row group: what is wrong with a column there is an error then.

    Asking `pyarrow.parquet.RowGroupMetaData.column` for it ends the process instead (seen with pyarrow 26).
    """
    most = FREE_BYTES + 4 * decoded_bytes(manifest, manifest.layout.chunk_rows)  # numbers are stored wider
    try:
        for number, group in enumerate(unfold(source)[1]):
            if group.plain_bytes + group.copied_bytes // max(group.rows, 1) > most:
                return False
            next(file.iter_batches(1, row_groups=[number], use_threads=False), None)
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True


@check("RS321", "F71", spoils=True)
def check_readable(place: Place, error: str) -> Iterator[Problem]:
    """The files of parts are Parquet files."""
    yield Problem(place, f"cannot be read ({error})", "a Parquet file", _REBUILD)


@check("RS322", "F71", "F14", "F19", spoils=True)
def check_columns(footer: Footer) -> Iterator[Problem]:
    """The columns are those of the sample table, then `indices`, `values` and, where `absent` = `rest`, `rest`."""
    expected = part_schema(footer.manifest)
    if footer.schema.equals(expected):
        yield from _misnamed_chunks(footer)
        return
    for position, field in enumerate(expected):
        found = footer.schema.field(position) if position < len(footer.schema) else None
        if found is None or not found.equals(field):
            yield Problem(
                footer.place(field.name),
                f"column {position} is {_describe(found)}",
                _describe(field),
                _REBUILD,
            )
            return
    more = ", ".join(map(repr, footer.schema.names[len(expected) :]))[:80]
    yield Problem(footer.place(), f"more columns: {more}", "no others", _REBUILD)


def _misnamed_chunks(footer: Footer) -> Iterator[Problem]:
    """Yield the first column chunk that calls itself something else than the schema does."""
    if not footer.are_columns_readable:
        return  # decoding them says so
    metadata = footer.metadata
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            expected = metadata.schema.column(number).path
            try:
                found = repr(metadata.row_group(group).column(number).path_in_schema)
            except UnicodeDecodeError:
                found = "no UTF-8"
            if found != repr(expected):
                what = f"column {number} of row group {group} has the name {found}"
                yield Problem(footer.place(), what, repr(expected), _REBUILD)
                return


def _describe(field: pa.Field | None) -> str:
    if field is None:
        return "missing"
    return f"{field.name!r} of {field.type}{'' if field.nullable else ' without nulls'}"[:120]


@check("RS323", "F72", spoils=True)
def check_row_groups(footer: Footer) -> Iterator[Problem]:
    """Row groups have `layout.chunk_rows` rows each, the last one what is left of the part's."""
    n, chunk_rows = len(footer.manifest.rows_of_part(footer.part)), footer.manifest.layout.chunk_rows
    metadata = footer.metadata
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    expected = [min(chunk_rows, n - start) for start in range(0, n, chunk_rows)]
    if sizes != expected:
        yield Problem(
            footer.place(),
            f"{metadata.num_rows} rows in {len(sizes)} row groups of {_sizes(sizes)}",
            f"{n} in {len(expected)} of {_sizes(expected)}",
            _REBUILD,
        )


def _sizes(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes[:4])) + (", …" if len(sizes) > 4 else "")


@check("RS324", "F73")
def check_manifest_in_file(footer: Footer) -> Iterator[Problem]:
    """Each file holds the manifest as it was when the store was begun."""
    data = (footer.metadata.metadata or {}).get(spec.MANIFEST_ATTRIBUTE.encode())
    place = footer.place(f"metadata {spec.MANIFEST_ATTRIBUTE}")
    if data is None:
        yield Problem(place, "missing", "the manifest", _REBUILD)
        return
    found = json_object(data)
    expected = {**footer.document, "state": State.BUILDING.value, "statistics": None}
    if found == expected:
        return
    differing = [] if found is None else [key for key in expected if found.get(key) != expected[key]]
    what = (
        "no JSON object" if found is None else f"another one, in {', '.join(differing) or 'what it has more'}"
    )
    yield Problem(
        place, what, "that of the store, without statistics", f"the file is of another store: {_REBUILD}"
    )


@check("RS325", "F75")
def check_column_encodings(footer: Footer) -> Iterator[Problem]:
    """Columns are compressed with zstd; only float32 is byte-stream-split, and no item of a list in a dictionary."""
    if not footer.are_columns_readable:
        return  # decoding them says so
    lists = set(array_specs(footer.manifest))
    for group in range(footer.metadata.num_row_groups):
        row_group = footer.metadata.row_group(group)
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            path = footer.metadata.schema.column(number).path
            is_list = path.split(".")[0] in lists
            wrong = []
            if column.compression != "ZSTD":
                wrong.append(column.compression)
            if "BYTE_STREAM_SPLIT" in column.encodings and column.physical_type != "FLOAT":
                wrong.append("BYTE_STREAM_SPLIT")
            if is_list and (column.has_dictionary_page or "RLE_DICTIONARY" in column.encodings):
                wrong.append("a dictionary")
            if wrong:
                yield Problem(
                    footer.place(path),
                    f"{' and '.join(wrong)} of {column.physical_type}",
                    "what Arrow, DuckDB and Polars read",
                    _REBUILD,
                )
                return  # the file was written so throughout


_OF_FOOTER = (
    check_columns,
    check_row_groups,
    check_manifest_in_file,
    check_column_encodings,
)

"""Sample tables in which something is changed, in Parquet files that are sound as such."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from relabel_store.store.samples import SCHEMA

TableChange = Callable[[pa.Table], pa.Table]


def holds_samples(path: Path) -> bool:
    """Tell whether a file is a Parquet file with sample ids."""
    if path.suffix != ".parquet":
        return False
    with pq.ParquetFile(path, pre_buffer=False) as file:
        return "sample_id" in file.schema_arrow.names


def change_samples(path: Path, change: TableChange) -> bytes | None:
    """Return a Parquet file with its sample columns changed and everything else as it was; None where nothing changes.

    Rows that are dropped take their labels with them; those that are repeated bring them along.
    """
    with pq.ParquetFile(path, pre_buffer=False) as file:
        table = file.read(use_threads=False)
        metadata = file.schema_arrow.metadata
        group_rows = file.metadata.row_group(0).num_rows
    changed = change(table)
    if changed.equals(table):
        return None
    sink = pa.BufferOutputStream()
    schema = table.schema.with_metadata(metadata)
    pq.write_table(changed.cast(schema), sink, row_group_size=group_rows, compression="zstd")
    return bytes(sink.getvalue())


def _put(table: pa.Table, name: str, values: list[object]) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def _permuted(table: pa.Table, names: list[str]) -> pa.Table:
    order = np.arange(len(table))
    order[:2] = order[1::-1]
    for name in names:
        table = _put(table, name, table[name].take(pa.array(order)).to_pylist())
    return table


def _another(table: pa.Table, name: str, value: object) -> pa.Table:
    values = table[name].to_pylist()
    return _put(table, name, [value, *values[1:]])


SAMPLE_CHANGES: Mapping[str, TableChange] = {
    "two rows exchanged": lambda table: _permuted(table, SCHEMA.names),
    "two rows exchanged but for their numbers": lambda table: _permuted(table, SCHEMA.names[1:]),
    "its halves exchanged, labels too": lambda table: pa.concat_tables(
        [table.slice(len(table) // 2), table.slice(0, len(table) // 2)]
    ),
    "first row dropped": lambda table: table.slice(1),
    "last row dropped": lambda table: table.slice(0, len(table) - 1),
    "last row twice": lambda table: pa.concat_tables([table, table.slice(len(table) - 1)]),
    "last row in the place of the first": lambda table: pa.concat_tables(
        [table.slice(len(table) - 1), table.slice(1)]
    ),
    "no rows": lambda table: table.slice(0, 0),
    "a sample id twice": lambda table: _another(table, "sample_id", table["sample_id"][-1].as_py()),
    "another sample id": lambda table: _another(table, "sample_id", "elsewhere"),
    "another class": lambda table: _another(table, "class_index", 4),
    "a class that is none": lambda table: _another(table, "class_index", 99),
    "a negative row": lambda table: _another(table, "row", -1),
    "a status that is none": lambda table: _another(table, "status", "splendid"),
    "a labelled row missing": lambda table: _another(table, "status", "missing"),
}

"""Which programs read what: a store of each encoding, and the forms that a Parquet column of scores could take.

``python benchmarks/readers.py`` writes small files and has each reader return every number of them; a reader that
fails, or returns another number, is shown with what it said.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe_machine

from relabel_store.store.reader import open_store
from relabel_store.testing import make_manifest, make_store

Reader = Callable[[Path], Any]
N, K, GRID = 600, 5, (7, 7)


def read_zarr(path: Path) -> Any:
    """Read as zarr-python does."""
    import zarr

    return zarr.open_group(path, mode="r")["values"][:]


def read_xarray(path: Path) -> Any:
    """Read as xarray does."""
    import xarray

    return xarray.open_zarr(path)["values"].to_numpy()


def read_tensorstore(path: Path) -> Any:
    """Read as TensorStore does."""
    import tensorstore

    place = {"driver": "file", "path": str(path / "values")}
    return tensorstore.open({"driver": "zarr3", "kvstore": place}, read=True).result().read().result()


def read_pyarrow(path: Path) -> Any:
    """Read as pyarrow does."""
    # Not the folder: pyarrow takes every file in it for Parquet, complete.json too.
    files = sorted(map(str, path.glob("*.parquet"))) if path.is_dir() else str(path)
    return pq.ParquetDataset(files).read(["values"])["values"].to_pylist()


def read_duckdb(path: Path) -> Any:
    """Read as DuckDB does."""
    import duckdb

    files = f"{path}/*.parquet" if path.is_dir() else str(path)
    rows = duckdb.sql(f"SELECT values FROM read_parquet('{files}', file_row_number = true)").fetchall()
    return [row[0] for row in rows]


def read_polars(path: Path) -> Any:
    """Read as Polars does."""
    import polars

    return polars.read_parquet(f"{path}/*.parquet" if path.is_dir() else path)["values"].to_list()


def read_datasets(path: Path) -> Any:
    """Read as Hugging Face datasets does."""
    import datasets

    files = sorted(map(str, path.glob("*.parquet"))) if path.is_dir() else str(path)
    with tempfile.TemporaryDirectory() as cache:
        found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
        return found["values"][:]


ZARR: dict[str, Reader] = {"zarr": read_zarr, "xarray": read_xarray, "tensorstore": read_tensorstore}
PARQUET: dict[str, Reader] = {
    "pyarrow": read_pyarrow,
    "duckdb": read_duckdb,
    "polars": read_polars,
    "datasets": read_datasets,
}


def answer(read: Reader, path: Path, expected: np.ndarray[Any, Any]) -> str:
    """Return ``yes``, or what went wrong."""
    try:
        found = np.array(read(path), np.float32).reshape(expected.shape)
    except Exception as error:  # whatever a reader raises is its answer
        return f"no: {type(error).__name__}: {str(error).splitlines()[0][:60]}"
    return "yes" if np.array_equal(found, expected) else "no: other numbers"


def write_column(
    path: Path, values: np.ndarray[Any, Any], *, dtype: type, is_split: bool, is_fixed: bool
) -> None:
    """Write label maps as one Parquet column of lists."""
    flat = pa.array(values.astype(dtype).reshape(-1))
    size = values[0].size
    if is_fixed:
        kind = pa.list_(pa.field("element", flat.type, nullable=False), size)
        column: pa.Array = pa.FixedSizeListArray.from_arrays(flat, type=kind)
    else:
        column = pa.ListArray.from_arrays(np.arange(0, len(flat) + 1, size, dtype=np.int32), flat)
    leaf = "values.list.element"
    table = pa.table({"values": column}, schema=pa.schema([pa.field("values", column.type, nullable=False)]))
    splits = [leaf] if is_split else False
    pq.write_table(table, path, compression="zstd", use_dictionary=False, use_byte_stream_split=splits)


def main() -> None:
    """Print three tables: versions, stores, columns."""
    print(describe_machine())
    print("\n| reader | version |", "| --- | --- |", sep="\n")
    for name in (*ZARR, *PARQUET):
        print(f"| {name} | {version(name)} |")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        print("\n| store | " + " | ".join((*ZARR, *PARQUET)) + " |")
        print("| --- |" + " --- |" * (len(ZARR) + len(PARQUET)))
        for encoding, readers in (("zarr", ZARR), ("parquet", PARQUET)):
            for step in (0.125, "exact"):
                path = root / f"{step}.{encoding}"
                manifest = make_manifest(
                    N, grid=GRID, k=K, value_step=step, shard_rows=256, chunk_rows=64, encoding=encoding
                )
                make_store(path, np.random.default_rng(0), manifest)
                expected = open_store(path).read_rows(range(N)).values.astype(np.float32)
                cells = [
                    answer(readers[name], path, expected) if name in readers else ""
                    for name in (*ZARR, *PARQUET)
                ]
                print(f"| {encoding}, step {step} | " + " | ".join(cells) + " |")
        print("\n| column of scores | bytes a row | " + " | ".join(PARQUET) + " |")
        print("| --- | ---: |" + " --- |" * len(PARQUET))
        for dtype in (np.float16, np.float32):
            for is_split in (False, True):
                for is_fixed in (False, True):
                    path = root / "column.parquet"
                    write_column(path, expected, dtype=dtype, is_split=is_split, is_fixed=is_fixed)
                    form = "split" if is_split else "plain"
                    what = f"{np.dtype(dtype)}, {form}, {'fixed-size' if is_fixed else 'variable'} lists"
                    cells = [answer(read, path, expected) for read in PARQUET.values()]
                    print(f"| {what} | {path.stat().st_size / N:.0f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

"""What the list of images takes, by kind of source: made-up images of one byte, each source opened in a fresh process.

    python benchmarks/image_source_memory.py [--rows 400000] [--work DIR]

Paths are as long as ImageNet's. Figures are the difference between so many rows and a quarter of them, so that what is
paid once is no part of them. Memory is resident; that of a mapped file is counted apart, since processes share it and
the system takes it back when it is short.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe_machine

_PER_CLASS = 1300
_MEASURE = """
import sys, time
import pyarrow.compute, pyarrow.csv, pyarrow.parquet
from relabel_store.images.recognise import open_images

def memory():
    found = dict(line.split(":") for line in open("/proc/self/status") if ":" in line)
    return [int(found[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile", "VmHWM")]

before = memory()
started = time.perf_counter()
source = open_images(sys.argv[1])
taken = time.perf_counter() - started
anonymous, mapped, peak = (after - first for after, first in zip(memory(), before))
print(taken, anonymous, mapped, peak)
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--work", type=Path, default=None)
    arguments = parser.parse_args()
    sizes = (arguments.rows // 4, arguments.rows)
    found: dict[str, list[list[float]]] = {}
    for rows in sizes:
        work = Path(tempfile.mkdtemp(prefix="relabel-store-benchmark-", dir=arguments.work))
        try:
            for kind, make in MAKERS.items():
                location = make(rows, work)
                for when in (" first", " again") if kind == "tar" else ("",):
                    found.setdefault(kind + when, []).append(measure(location, work / "cache"))
        finally:
            shutil.rmtree(work)
    print(describe_machine())
    print(f"per image, between {sizes[0]:,} and {sizes[1]:,} of them")
    print("| source, opened | us | bytes | of a mapped file | most while opening, bytes |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for kind, (few, many) in found.items():
        slopes = [(after - before) / (sizes[1] - sizes[0]) for before, after in zip(few, many, strict=True)]
        print(f"| {kind} | {slopes[0] * 1e6:.1f} | " + " | ".join(f"{one:,.0f}" for one in slopes[1:]) + " |")


def measure(location: str, cache: Path) -> list[float]:
    """Return seconds, resident bytes, those of mapped files, and the most there were."""
    answer = subprocess.run(
        [sys.executable, "-P", "-c", _MEASURE, location],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "RELABEL_STORE_CACHE": str(cache)},
    )
    return [float(number) for number in answer.stdout.split()]


def paths(rows: int) -> Iterator[str]:
    """Yield paths as ImageNet has them."""
    for row in range(rows):
        synset = f"n{row // _PER_CLASS:08d}"
        yield f"{synset}/{synset}_{row % _PER_CLASS}.JPEG"


def make_folder(rows: int, work: Path) -> str:
    """Write the files."""
    for path in paths(rows):
        target = work / "folder" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"1")
    return str(work / "folder")


def make_list(rows: int, work: Path) -> str:
    """List them."""
    with open(work / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path"], *([f"folder/{path}"] for path in paths(rows))])
    return str(work / "list.csv")


def make_tar(rows: int, work: Path) -> str:
    """Pack as many."""
    with tarfile.open(work / "all.tar", "w") as tar:
        for path in paths(rows):
            member = tarfile.TarInfo(path)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"1"))
            tar.members.clear()  # type: ignore[attr-defined]
    return str(work / "all.tar")


def make_parquet(rows: int, work: Path) -> str:
    """Write as many, a hundred a row group."""
    table = pa.table({"image": pa.array([{"bytes": b"1", "path": path} for path in paths(rows)])})
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))])
    pq.write_table(table.cast(schema), work / "all.parquet", row_group_size=100)
    return str(work / "all.parquet")


MAKERS = {
    "class folders": make_folder,
    "list (CSV)": make_list,
    "tar": make_tar,
    "Parquet": make_parquet,
}


if __name__ == "__main__":
    main()

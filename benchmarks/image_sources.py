"""How fast images are read, without decoding, from each kind of source: the same images, on this machine, in one run.

    python benchmarks/image_sources.py photos/ [--times 50] [--repeat 3]

The tree is copied so many times over, then packed; files are in the page cache, so that this is what reading costs on
top of the disk. In turn, so that a machine that changes its speed hurts all alike.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe_machine

from relabel_store.images.recognise import open_images
from relabel_store.images.source import ImageSource

_SHARD_IMAGES = 1000
_ROW_GROUP_IMAGES = 100  # what `datasets` puts into one
_BATCH = 32


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="relabel-store-benchmark-"))
    os.environ["RELABEL_STORE_CACHE"] = str(work / "cache")
    try:
        compare(arguments.images, work, arguments.times, arguments.repeat)
    finally:
        shutil.rmtree(work)


def compare(images: Path, work: Path, times: int, repeat: int) -> None:
    """Pack, open and read in every way."""
    files = sorted(path for path in images.rglob("*") if path.is_file())
    names = [
        (f"{path.parent.name}/{number:03d}_{path.name}", path) for path in files for number in range(times)
    ]
    size_mb = sum(path.stat().st_size for path in files) * times / 1e6
    print(describe_machine())
    print(f"{len(names):,} images, {size_mb:,.0f} MB")
    locations = {
        "class folders": pack_folder(names, work),
        "list (CSV)": pack_list(names, work),
        "tar": pack_tar(names, work),
        "WebDataset shards": pack_shards(names, work),
        f"Parquet, {_ROW_GROUP_IMAGES} a row group": pack_parquet(names, work, _ROW_GROUP_IMAGES),
        f"Parquet, {_SHARD_IMAGES} a row group": pack_parquet(names, work, _SHARD_IMAGES),
    }
    first_s, again_s = {}, {}
    sources: dict[str, ImageSource] = {}
    for kind, location in locations.items():
        first_s[kind] = seconds(lambda location=location: open_images(location))
        again_s[kind] = seconds(lambda location=location: open_images(location))
        sources[kind] = open_images(location)
    reads: dict[str, list[float]] = {kind: [] for kind in sources}
    strided: dict[str, list[float]] = {kind: [] for kind in sources}
    for _ in range(repeat):
        for kind, source in sources.items():
            rows = range(len(source))
            reads[kind].append(seconds(lambda source=source, rows=rows: read_all(source, rows)))
            every_fourth = [row for row in rows if row // _BATCH % 4 == 0]
            strided[kind].append(
                seconds(lambda source=source, rows=every_fourth: read_all(source, rows))
                * len(rows)
                / len(every_fourth)
            )
    print(
        "| source | open first, s | open again, s | read, images/s | one of four workers, images/s | pickled, bytes |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for kind, source in sources.items():
        speeds = [len(source) / statistics.median(found[kind]) for found in (reads, strided)]
        print(
            f"| {kind} | {first_s[kind]:.3f} | {again_s[kind]:.3f} | {speeds[0]:,.0f} | {speeds[1]:,.0f} | "
            f"{len(pickle.dumps(source)):,} |"
        )


def read_all(source: ImageSource, rows: Iterable[int]) -> None:
    """Read images, and keep none."""
    for row in rows:
        source.read(row)


def seconds(run: object) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    run()  # type: ignore[operator]
    return time.perf_counter() - started


def pack_folder(names: list[tuple[str, Path]], work: Path) -> str:
    """Copy into class folders."""
    for name, path in names:
        target = work / "folder" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return str(work / "folder")


def pack_list(names: list[tuple[str, Path]], work: Path) -> str:
    """List the class folders."""
    (work / "list.csv").write_text("\n".join(["path", *(f"folder/{name}" for name, _ in names)]))
    return str(work / "list.csv")


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def pack_tar(names: list[tuple[str, Path]], work: Path) -> str:
    """Pack into one tar."""
    with tarfile.open(work / "all.tar", "w") as tar:
        for name, path in names:
            add(tar, name, path.read_bytes())
    return str(work / "all.tar")


def shards(names: list[tuple[str, Path]]) -> Iterator[tuple[int, list[tuple[str, Path]]]]:
    """Yield numbers and images of shards."""
    for number, start in enumerate(range(0, len(names), _SHARD_IMAGES)):
        yield number, names[start : start + _SHARD_IMAGES]


def pack_shards(names: list[tuple[str, Path]], work: Path) -> str:
    """Pack as WebDataset does, with a class beside each image."""
    (work / "shards").mkdir()
    for number, some in shards(names):
        with tarfile.open(work / "shards" / f"train-{number:04d}.tar", "w") as tar:
            for name, path in some:
                key = name.rpartition(".")[0]
                add(tar, f"{key}.jpg", path.read_bytes())
                add(tar, f"{key}.cls", b"0")
    return str(work / "shards")


def pack_parquet(names: list[tuple[str, Path]], work: Path, row_group: int) -> str:
    """Pack as ``datasets`` does."""
    folder = work / f"parquet-{row_group}"
    folder.mkdir()
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))])
    features = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})
    for number, some in shards(names):
        rows = [{"image": {"bytes": path.read_bytes(), "path": name}} for name, path in some]
        table = pa.Table.from_pylist(rows, schema).replace_schema_metadata({"huggingface": features})
        pq.write_table(table, folder / f"train-{number:05d}-of-99999.parquet", row_group_size=row_group)
    return str(folder)


if __name__ == "__main__":
    main()

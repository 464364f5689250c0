"""Bytes an image, error and speed of every form of a store, beside the pickles that people publish.

    python benchmarks/size.py maps.npz [--rows 4096] [--plot docs/images/size.png]

The maps are an .npz file with ``indices`` and ``values`` (float32), or a store that was built with ``--value-step
exact``. Bytes are those of ``indices`` and ``values`` of these maps, without the sample table. The error is the total
variation between the pooled target of a random crop as stored and as the teacher gave it. Speed is measured on many
maps that are made of these by turning, mirroring and renaming classes: a part in memory, CPU time of one core.
``docs/explanation/size.md`` has the table and the picture.
"""

from __future__ import annotations

import argparse
import io
import lzma
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from chunk_codecs import read_maps
from machine import describe_machine
from numpy.typing import NDArray
from size_plot import draw

from relabel_store import spec
from relabel_store.labels.pooling import soft_targets
from relabel_store.labels.topk import sort_ranks
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import Compression, Encoding, Manifest
from relabel_store.store.arrays import Arrays, array_specs
from relabel_store.store.encodings import encoding_of
from relabel_store.store.packed_chunks import encode_chunk
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_manifest, make_samples

NUM_CLASSES = 1000
STEPS: dict[str, float | None] = {"exact": None, "1/8": 0.125, "1/4": 0.25}
CROPS = 20  # an image

Maps = tuple[NDArray[np.uint16], NDArray[np.float32]]


@dataclass(frozen=True)
class Form:
    """What one way of storing maps costs.

    Attributes
    ----------
    error_mean, error_p99
        Total variation of pooled targets.
    written, read
        Rows a second and core.
    """

    name: str
    step: str
    bytes_an_image: float
    error_mean: float
    error_p99: float
    written: float | None
    read: float | None


def main() -> None:
    """Print the table, and draw the picture where it is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("maps")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    maps = read_maps(arguments.maps, 10**9)
    many = multiplied(maps, arguments.rows)
    print(describe_machine(), f"{len(maps[0])} maps, speed on {arguments.rows} made of them", sep="\n")
    print(
        "| form | value step | bytes an image | error, mean | error, p99 | written, rows/s | read, rows/s |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    forms = []
    for form in measured(maps, many):
        forms.append(form)
        speeds = " | ".join("" if speed is None else f"{speed:,.0f}" for speed in (form.written, form.read))
        error = f"{form.error_mean:.4f} | {form.error_p99:.4f}"
        print(f"| {form.name} | {form.step} | {form.bytes_an_image:,.0f} | {error} | {speeds} |", flush=True)
    if arguments.plot is not None:
        draw(forms, arguments.plot)


def multiplied(maps: Maps, rows: int) -> Maps:
    """Return maps of as many rows: turned and mirrored, with their classes renamed, so that no two are alike."""
    rng = np.random.default_rng(0)
    indices, scores = [], []
    for copy in range(-(-rows // len(maps[0]))):
        names = rng.permutation(NUM_CLASSES).astype(np.uint16)
        scale = 1 + 0.02 * rng.standard_normal((len(maps[0]), 1, 1, 1))
        turned = [np.rot90(array, copy % 4, (2, 3)) for array in (names[maps[0]], maps[1] * scale)]
        turned = [array[..., ::-1] if copy // 4 % 2 else array for array in turned]
        indices.append(turned[0])
        scores.append(turned[1].astype(np.float32))
    return np.concatenate(indices)[:rows], np.concatenate(scores)[:rows]


def measured(maps: Maps, many: Maps) -> Iterator[Form]:
    """Yield every form, ours last."""
    errors = errors_by_step(maps)
    yield from published(maps, errors["exact"])
    for encoding, compression in product(("parquet", "zarr", "packed"), Compression):
        for step in STEPS:
            size = sum(sizes(encoding, compression, step, maps)) / len(maps[0])
            name = f"{encoding}, {compression.value}"
            yield Form(name, step, size, *errors[step], *speeds(encoding, compression, step, many))


# Errors


def errors_by_step(maps: Maps) -> dict[str, tuple[float, float]]:
    """Return mean and 99th percentile of the total variation between pooled targets, over random crops."""
    boxes = random_boxes(np.random.default_rng(0), len(maps[0]) * CROPS)
    indices, scores = (array.repeat(CROPS, axis=0) for array in maps)
    exact = soft_targets(indices, scores, boxes, num_classes=NUM_CLASSES)
    errors = {}
    for name, step in STEPS.items():
        stored = ValueStep(step).encode(scores)
        found = soft_targets(indices, stored, boxes, num_classes=NUM_CLASSES)
        variation = np.abs(found - exact).sum(axis=1) / 2
        errors[name] = (float(variation.mean()), float(np.quantile(variation, 0.99)))
    return errors


def random_boxes(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Return crops as RandomResizedCrop draws them: 8 to 100 % of the area, 3:4 to 4:3."""
    area, ratio = rng.uniform(0.08, 1, n), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), n))
    sides = np.minimum(np.sqrt(area * np.stack([ratio, 1 / ratio])), 1)
    starts = rng.uniform(0, 1 - sides)
    return np.concatenate([starts, starts + sides]).T


# What people publish


def published(maps: Maps, error_of_float16: tuple[float, float]) -> Iterator[Form]:
    """Yield a file of `torch.save` for each image, as ReLabel and TokenLabeling publish them, and these compressed."""
    for name, dtype, is_zip, error in (
        ("float32 pickles (ReLabel)", torch.float32, False, (0.0, 0.0)),
        ("float16 pickles (TokenLabeling)", torch.float16, True, error_of_float16),
    ):
        stacked = torch.from_numpy(np.stack([maps[0].astype(np.float32), maps[1]], axis=1)).to(dtype)

        def save(stacked: torch.Tensor = stacked, is_zip: bool = is_zip) -> list[bytes]:
            return [saved(one.clone(), is_zip) for one in stacked]

        files = save()
        n = len(files)
        yield Form(
            name, "exact", sum(map(len, files)) / n, *error, n / seconds(save, 5), n / seconds(load(files), 5)
        )
        for how, compress in (("each in .xz", each_in_xz), ("in one .tar.xz", in_tar_xz)):
            yield Form(f"{name}, {how}", "exact", compress(files) / n, *error, None, None)


def saved(tensor: torch.Tensor, is_zip: bool) -> bytes:
    """Return a tensor as `torch.save` writes it, before its version 1.6 or since."""
    buffer = io.BytesIO()
    torch.save(tensor, buffer, _use_new_zipfile_serialization=is_zip)
    return buffer.getvalue()


def load(files: list[bytes]) -> Callable[[], object]:
    """Return what loads every file."""
    return lambda: [torch.load(io.BytesIO(data), weights_only=True) for data in files]


def each_in_xz(files: list[bytes]) -> int:
    """Return the bytes of files, each compressed."""
    return sum(len(lzma.compress(data, preset=9)) for data in files)


def in_tar_xz(files: list[bytes]) -> int:
    """Return the bytes of an archive of all files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=9) as archive:
        for number, data in enumerate(files):
            member = tarfile.TarInfo(f"{number:05d}.pt")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return len(buffer.getvalue())


# What stores are made of


def stored(step: str, maps: Maps) -> Arrays:
    """Return maps as a store holds them."""
    indices, values = sort_ranks(maps[0], ValueStep(STEPS[step]).encode(maps[1]))
    return {spec.INDICES: np.ascontiguousarray(indices), spec.VALUES: np.ascontiguousarray(values)}


def described(encoding: str, compression: Compression, step: str, n: int) -> Manifest:
    """Return the manifest of a store of one part, in chunks as `build` makes them."""
    shard_rows = -(-n // spec.CHUNK_ROWS) * spec.CHUNK_ROWS
    manifest = make_manifest(
        n,
        grid=(15, 15),
        k=5,
        num_classes=NUM_CLASSES,
        value_step=STEPS[step] or "exact",
        shard_rows=shard_rows,
        chunk_rows=spec.CHUNK_ROWS,
    )
    return replace(manifest, encoding=Encoding.of(encoding, compression))


def sizes(encoding: str, compression: Compression, step: str, maps: Maps) -> list[int]:
    """Return the bytes that hold ``indices`` and ``values``."""
    manifest, arrays = described(encoding, compression, step, len(maps[0])), stored(step, maps)
    if encoding == spec.ENCODING_PACKED:
        starts = range(0, len(maps[0]), spec.CHUNK_ROWS)
        chunks = [{name: rows[at : at + spec.CHUNK_ROWS] for name, rows in arrays.items()} for at in starts]
        return [len(encode_chunk(manifest.label_map, compression, chunk)) for chunk in chunks]
    files = encoding_of(manifest).encode_part(manifest, 0, arrays, make_samples(manifest))
    if encoding == spec.ENCODING_ZARR:
        return [len(data) for data in files.values()]
    (data,) = files.values()
    metadata = pq.ParquetFile(pa.BufferReader(data)).metadata
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    columns = [group.column(column) for group in groups for column in range(metadata.num_columns)]
    return [column.total_compressed_size for column in columns if ".list." in column.path_in_schema]


def speeds(encoding: str, compression: Compression, step: str, maps: Maps) -> tuple[float, float]:
    """Return rows a second of encoding and of decoding a part in memory."""
    n, arrays = len(maps[0]), stored(step, maps)
    manifest = described(encoding, compression, step, n)
    coder, samples = encoding_of(manifest), make_samples(manifest)
    with tempfile.TemporaryDirectory() as work:
        writer = StoreWriter.begin(Path(work) / "store", manifest, samples)
        shards = coder.open_shards(writer.files, manifest, None)
        files = coder.encode_part(manifest, 0, arrays, samples)
        into = {name: array.empty(n) for name, array in array_specs(manifest).items()}
        written = seconds(
            lambda: coder.encode_part(manifest, 0, arrays, samples),
            rounds=10 if compression is Compression.FAST else 1,
        )
        read = seconds(lambda: shards.read_part(0, files.__getitem__, into))
    for name, rows in arrays.items():
        assert np.array_equal(into[name], rows)
    return n / written, n / read


def seconds(work: Callable[[], object], rounds: int = 25) -> float:
    """Return the CPU time of some work, the best of several rounds: others use the machine too."""
    times = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


if __name__ == "__main__":
    main()

"""Samples a second and core of each form that labels are written in, beside what a user would write without us.

    python benchmarks/convert_out.py [maps.npz] [--rows 4096] [--folder /dev/shm]

The maps are those of an .npz file with ``indices`` and ``values`` (n, k, rows, cols), rounded to the default step;
without one they are made up. They are repeated with other classes each time, so that no compressor finds them again.
Ours is a whole conversion from memory in this process: checks, counts, files. CPU time of this process; the second run
of two, so that nothing is imported in it. In a folder in memory it is the programs that are measured, not the disk.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import describe_machine

from relabel_store import spec
from relabel_store.convert import formats
from relabel_store.convert.into_files import convert_into_files
from relabel_store.convert.observer import ConversionObserver
from relabel_store.labels.maps import LabelMaps
from relabel_store.labels.topk import sort_ranks
from relabel_store.labels.values import ValueStep
from relabel_store.testing import MadeUpLabels, make_label_maps, make_manifest, make_sample_ids


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("maps", nargs="?")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--folder")
    arguments = parser.parse_args()
    labels = read_labels(arguments.maps, arguments.rows)
    n, grid = arguments.rows, labels.manifest.label_map.grid
    print(describe_machine(), f"{n} maps of {grid[0]} x {grid[1]} x {labels.manifest.label_map.k}", sep="\n")
    print(
        "| form | samples/s a core | bytes a sample | written by hand | samples/s a core | bytes a sample |"
    )
    print("| --- | ---: | ---: | --- | ---: | ---: |")
    for form, (how, by_hand) in BY_HAND.items():
        ours = measure(arguments.folder, lambda path, form=form: convert(labels, path, form), n)
        theirs = "| |"
        if by_hand:
            theirs = measure(arguments.folder, lambda path, by_hand=by_hand: by_hand(labels.maps, path), n)
        print(f"| `{form}` {ours} | {how} {theirs} |")
    assert list(BY_HAND) == [name for name in formats.target_names() if name not in spec.ENCODING_VERSIONS]


def read_labels(file: str | None, n: int) -> MadeUpLabels:
    """Return so many maps, a few of them over and over."""
    if file is None:
        few = make_label_maps(
            np.random.default_rng(0), make_manifest(64, grid=(15, 15), k=5, num_classes=1000)
        )
        indices, values = few.indices, few.values
    else:
        with np.load(file) as arrays:
            scores = ValueStep(spec.DEFAULT_VALUE_STEP).encode(arrays["values"].astype(np.float32))
            indices, values = sort_ranks(arrays["indices"].astype(np.uint16), scores)
    again = -(-n // len(indices))
    rng = np.random.default_rng(0)
    other = np.concatenate([rng.permutation(1000).astype(np.uint16)[indices] for _ in range(again)])[:n]
    indices, values = sort_ranks(other, np.concatenate([values] * again)[:n])
    _, k, *grid = indices.shape
    manifest = make_manifest(
        n, grid=(grid[0], grid[1]), k=k, num_classes=1000, shard_rows=4096, chunk_rows=256
    )
    return MadeUpLabels(manifest, LabelMaps(make_sample_ids(n), indices, values.astype(np.float16), None))


def measure(where: str | None, write: Callable[[Path], object], n: int) -> str:
    """Return the cells of a table: samples a second of CPU time, and bytes a sample."""
    for _ in range(2):
        with tempfile.TemporaryDirectory(dir=where) as folder:
            path = Path(folder, "labels")
            started = time.process_time()
            write(path)
            seconds = time.process_time() - started
            size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return f"| {n / seconds:,.0f} | {size / n:,.0f}"


def convert(labels: MadeUpLabels, path: Path, form: str) -> None:
    """Convert as the command does, in this process."""
    convert_into_files(
        labels, path, form, formats.target_maker(form), workers=1, observer=ConversionObserver()
    )


def save_tensors(maps: LabelMaps, path: Path, dtype: str) -> None:
    """Call `torch.save` for each sample."""
    import torch

    for row, sample_id in enumerate(maps.sample_ids):
        file = path / f"{sample_id}.pt"
        file.parent.mkdir(parents=True, exist_ok=True)
        tensor = torch.stack(
            [torch.from_numpy(maps.values[row]), torch.from_numpy(maps.indices[row].astype(np.float16))]
        )
        torch.save(tensor.to(getattr(torch, dtype)), file)


def write_tars(maps: LabelMaps, path: Path) -> None:
    """Use the writer of webdataset."""
    import webdataset

    path.mkdir()
    with webdataset.TarWriter(str(path / "labels-000000.tar")) as tar:
        for row, sample_id in enumerate(maps.sample_ids):
            facts = {"sample_id": sample_id, "row": row}
            tar.write(
                {
                    "__key__": sample_id,
                    "indices.npy": maps.indices[row],
                    "values.npy": maps.values[row],
                    "label.json": facts,
                }
            )


def write_records(maps: LabelMaps, path: Path) -> None:
    """Use the writer of TensorFlow."""
    import tensorflow as tf

    def text(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    path.mkdir()
    with tf.io.TFRecordWriter(str(path / "labels.tfrecord")) as writer:
        for row, sample_id in enumerate(maps.sample_ids):
            features = {
                "sample_id": text(sample_id.encode()),
                "indices": text(maps.indices[row].tobytes()),
                "values": text(maps.values[row].tobytes()),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def write_hdf5(maps: LabelMaps, path: Path) -> None:
    """Let h5py compress as it does by default, all rows at once."""
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("indices", data=maps.indices, compression="gzip")
        file.create_dataset("values", data=maps.values, compression="gzip")
        file.create_dataset("sample_ids", data=list(maps.sample_ids))


def write_npz(maps: LabelMaps, path: Path) -> None:
    """Let NumPy compress, all rows at once."""
    file = io.BytesIO()
    np.savez_compressed(
        file, indices=maps.indices, values=maps.values, sample_ids=np.array(list(maps.sample_ids))
    )
    path.write_bytes(file.getvalue())


def write_dataset(maps: LabelMaps, path: Path) -> None:
    """Give `datasets` the maps in its own type."""
    from datasets import Array3D, Dataset, Features, Value

    shape = maps.indices.shape[1:]
    features = Features(
        {
            "sample_id": Value("string"),
            "indices": Array3D(shape, "uint16"),
            "values": Array3D(shape, "float32"),
        }
    )
    columns = {
        "sample_id": list(maps.sample_ids),
        "indices": maps.indices,
        "values": maps.values.astype(np.float32),
    }
    path.mkdir()
    Dataset.from_dict(columns, features).to_parquet(path / "train.parquet")


def _has_tensorflow() -> bool:
    from importlib.util import find_spec

    return find_spec("tensorflow") is not None


BY_HAND: dict[str, tuple[str, Callable[[LabelMaps, Path], None] | None]] = {
    "relabel": ("`torch.save`", lambda maps, path: save_tensors(maps, path, "float32")),
    "token-labeling": ("`torch.save`", lambda maps, path: save_tensors(maps, path, "float16")),
    "webdataset": ("`webdataset.TarWriter`", write_tars),
    "tfrecord": ("`tf.io.TFRecordWriter`", write_records if _has_tensorflow() else None),
    "hdf5": ("h5py, gzip", write_hdf5),
    "npz": ("`np.savez_compressed`", write_npz),
    "huggingface": ("`Dataset.to_parquet`, `Array3D`", write_dataset),
}


if __name__ == "__main__":
    main()

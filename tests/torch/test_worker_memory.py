"""The memory of a worker process over an epoch: what is read there stays shared, and nothing is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from relabel_store.store.reader import open_store
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_samples

N_SAMPLES = 4096
FOLDERS = "/".join(["f" * 200] * 16)  # so that all ids together take 12 MiB
BOUND = 5 * 2**20  # bytes by which a worker may grow

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="the system does not say what a process shares"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of many samples with long names, materialized, and the one image that all of them are."""
    folder = tmp_path_factory.mktemp("worker")
    manifest = make_manifest(N_SAMPLES, shard_rows=2048, chunk_rows=256)
    ids = [f"cat/{FOLDERS}/{row:05d}" for row in range(N_SAMPLES)]
    samples = make_samples(manifest, ids)
    paths = pa.array([f"{FOLDERS}/image.png"] * N_SAMPLES)
    samples = samples.set_column(samples.schema.get_field_index("path"), samples.schema.field("path"), paths)
    maps = make_label_maps(np.random.default_rng(0), manifest)
    writer = StoreWriter.begin(folder / "large.zarr", manifest, samples)
    for part in range(manifest.num_parts):
        writer.write_part(part, make_part(manifest, maps, part))
    writer.complete()
    open_store(folder / "large.zarr").materialize(folder / "cache")
    image = folder / "images" / FOLDERS / "image.png"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (20, 15)).save(image)
    return folder


@pytest.fixture(scope="module")
def grown_bytes(place: Path) -> dict[str, int]:
    """By how much a worker grew, by dataset and by how it was started."""
    command = [sys.executable, "-P", str(Path(__file__).parent / "measure_worker.py"), str(place)]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in lines}


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_worker_does_not_grow_over_an_epoch(context: str, grown_bytes: dict[str, int]) -> None:
    assert grown_bytes[f"ours {context}"] < BOUND


def test_the_growth_of_a_worker_is_seen(grown_bytes: dict[str, int]) -> None:
    assert grown_bytes["list fork"] > 2 * BOUND

"""The memory of a worker process over an epoch: what is read there stays shared, and nothing is kept."""

from __future__ import annotations

import gc
import multiprocessing
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from relabel_store.store.reader import LabelStore, open_store
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_samples
from relabel_store.torch.dataset import LabelDataset
from relabel_store.torch.images import SampleImages

N_SAMPLES = 4096
FOLDERS = "/".join(["f" * 200] * 16)  # so that all ids together take 12 MiB
BOUND = 8 * 2**20  # bytes by which a worker may grow


def dirty_bytes(pid: int) -> int:
    """Return what a process has written to and shares with none: unlike mapped files, its very own memory."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return 1024 * sum(
        int(number) for number in re.findall(r"^(?:Private_Dirty|Swap):\s+(\d+) kB", rollup, re.M)
    )


pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="the system does not say what a process shares"
)


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    """Keep collections in a forked worker from writing to what tests before these have left."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def large_store(tmp_path: Path, rng: np.random.Generator) -> LabelStore:
    """Many samples with long names, all of one image, materialized."""
    manifest = make_manifest(N_SAMPLES, shard_rows=2048, chunk_rows=256)
    ids = [f"cat/{FOLDERS}/{row:05d}" for row in range(N_SAMPLES)]
    samples = make_samples(manifest, ids)
    paths = pa.array([f"{FOLDERS}/image.png"] * N_SAMPLES)
    samples = samples.set_column(samples.schema.get_field_index("path"), samples.schema.field("path"), paths)
    maps = make_label_maps(rng, manifest)
    writer = StoreWriter.begin(tmp_path / "large.zarr", manifest, samples)
    for part in range(manifest.num_parts):
        writer.write_part(part, make_part(manifest, maps, part))
    writer.complete()
    return open_store(tmp_path / "large.zarr").materialize(tmp_path / "cache")


def grown_bytes(dataset: Dataset[object], context: str) -> int:
    """Return by how much a worker grows from a first few samples to the end of the second epoch."""
    order = list(range(512))
    loader = DataLoader(
        dataset,
        64,
        sampler=order,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context=context,
    )
    others = multiprocessing.active_children()

    def run_epoch() -> int:
        for _ in loader:
            pass
        (worker,) = (child for child in multiprocessing.active_children() if child not in others)
        assert worker.pid is not None
        return dirty_bytes(worker.pid)

    warm = run_epoch()
    order[:] = range(len(dataset))  # type: ignore[arg-type]
    return max(run_epoch() for _ in range(2)) - warm


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_worker_does_not_grow_over_an_epoch(context: str, large_store: LabelStore, tmp_path: Path) -> None:
    image = tmp_path / "images" / FOLDERS / "image.png"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (20, 15)).save(image)
    crop = v2.Compose([v2.RandomResizedCrop(8), v2.ToImage()])
    dataset = LabelDataset(SampleImages(tmp_path / "images", large_store), large_store, crop)
    assert grown_bytes(dataset, context) < BOUND


class Names(Dataset[int]):
    """What costs memory in forked workers: looking at a string of a list counts a reference, which writes to it."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, position: int) -> int:
        return len(self.names[position])


def test_the_growth_of_a_worker_is_seen(large_store: LabelStore) -> None:
    assert grown_bytes(Names(large_store.samples["sample_id"].to_pylist()), "fork") > 1.5 * BOUND

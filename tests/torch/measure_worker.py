"""Print by how many bytes a DataLoader's worker grows: run by test_worker_memory.py in a process of its own.

What tests before these left in theirs, a forked worker would share and then write to.

    python measure_worker.py FOLDER

prints a line for each dataset and each way to start a worker: ``ours fork``, ``ours spawn`` and ``list fork``.
"""

from __future__ import annotations

import gc
import multiprocessing
import re
import sys
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from relabel_store.store.reader import open_store
from relabel_store.torch import LabelDataset, SampleImages


class Names(Dataset[int]):
    """What costs memory in forked workers: looking at a string of a list counts a reference, which writes to it."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, position: int) -> int:
        return len(self.names[position])


def make_dataset(kind: str, place: Path) -> Dataset[Any]:
    store = open_store(place / "large.zarr").materialize(place / "cache")
    if kind == "list":
        return Names(store.samples["sample_id"].to_pylist())
    crop = v2.Compose([v2.RandomResizedCrop(8), v2.ToImage()])
    return LabelDataset(SampleImages(place / "images", store), store, crop)


def grown_bytes(dataset: Any, context: str) -> int:
    """Return by how much a worker grows from a first few samples to the end of an epoch."""
    order = list(range(512))
    loader = DataLoader(
        dataset,
        64,
        sampler=order,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context=context,
    )

    def run_epoch() -> int:
        for _ in loader:
            pass
        (worker,) = multiprocessing.active_children()  # that of another dataset has ended with its loader
        assert worker.pid is not None
        return dirty_bytes(worker.pid)

    warm = run_epoch()
    order[:] = range(len(dataset))
    return run_epoch() - warm


def dirty_bytes(pid: int) -> int:
    """Return what a process has written to and shares with none: unlike mapped files, its very own memory."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return 1024 * sum(
        int(number) for number in re.findall(r"^(?:Private_Dirty|Swap):\s+(\d+) kB", rollup, re.M)
    )


def main() -> None:
    for kind, context in (("ours", "fork"), ("ours", "spawn"), ("list", "fork")):
        dataset = make_dataset(kind, Path(sys.argv[1]))
        # A collection in a forked worker writes once to every object that it looks at; that is no growth of ours.
        gc.freeze()
        sys.stdout.write(f"{kind} {context} {grown_bytes(dataset, context)}\n")


if __name__ == "__main__":
    main()

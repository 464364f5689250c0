"""What labels cost in a training loop, each beside what published code does, in the same run.

    python benchmarks/reader.py STORE [--photos FOLDER] [--boxes 1000000]

STORE is any store of 256 samples or more. With `--photos`, the folder that it was built from, the share of a loader's
CPU time is measured too. Alternatives are what the published ReLabel code does: `torch.load` of one file a sample, the
dense map, torchvision's `roi_align`. One thread; CPU time, which other users of the machine disturb least.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import zarr
from machine import describe_machine
from torch import Tensor
from torchvision.ops import roi_align
from torchvision.transforms import v2

import relabel_store
from relabel_store.store.cache import materialize_store
from relabel_store.store.encoded import EncodedStore
from relabel_store.torch import CropBox, LabelPooling, SampleImages

BATCH = 256


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("--photos")
    parser.add_argument("--boxes", type=int, default=1_000_000, help="random boxes compared with roi_align")
    parser.add_argument("--repeat", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine())

    with tempfile.TemporaryDirectory(prefix="relabel-store-benchmark-") as work:
        encoded = relabel_store.open_store(arguments.store)
        store = materialize_store(encoded, Path(work) / "cache")
        rng = np.random.default_rng(0)
        rows = np.array([row for row in range(len(store)) if store.has_label(row)])
        batches = [rng.choice(rows, BATCH) for _ in range(8)]
        files = write_published_files(store, np.unique(np.concatenate(batches)), Path(work) / "files")
        boxes = [random_crops(rng, BATCH) for _ in batches]
        pool = LabelPooling(store.num_classes)

        def fetch(at: int) -> tuple[Tensor, Tensor]:
            maps = store.read_rows(batches[at])
            return torch.from_numpy(maps.indices), torch.from_numpy(maps.values)

        def fetch_published(at: int) -> list[Tensor]:
            return [torch.load(files[row], weights_only=True) for row in batches[at]]

        ready = [fetch(at) for at in range(len(batches))]
        published = [torch.stack(fetch_published(at)) for at in range(2)]
        print(
            f"{store.grid[0]}x{store.grid[1]} cells x top {store.k} of {store.num_classes:,}, batches of {BATCH}"
        )
        print("| what, us a sample | ours | published code | ratio |")
        print("| --- | ---: | ---: | ---: |")
        for name, ours, theirs in (
            ("fetch of random maps, hot", lambda at: fetch(at), lambda at: fetch_published(at)),
            (
                "crop to target",
                lambda at: pool(*ready[at], boxes[at]),
                lambda at: dense_targets(published[at % 2], boxes[at], store.num_classes),
            ),
            (
                "both",
                lambda at: pool(*fetch(at), boxes[at]),
                lambda at: dense_targets(torch.stack(fetch_published(at)), boxes[at], store.num_classes),
            ),
        ):
            one = measure(ours, len(batches), arguments.repeat) / BATCH * 1e6
            other = measure(theirs, 2, 3) / BATCH * 1e6
            print(f"| {name} | {one:.2f} | {other:.0f} | {other / one:.0f} |")

        tokens = LabelPooling(store.num_classes, (14, 14))
        few = slice(0, 32)
        one = (
            measure(lambda at: tokens.logits(ready[at][0][few], ready[at][1][few], boxes[at][few]), 4, 5) / 32
        )
        other = (
            measure(
                lambda at: dense_logits(published[at % 2][few], boxes[at][few], store.num_classes, (14, 14)),
                2,
                3,
            )
            / 32
        )
        print(
            f"| crop to 14x14 tokens, before softmax | {one * 1e6:.0f} | {other * 1e6:.0f} | {other / one:.1f} |"
        )

        decode(encoded, arguments.repeat)
        compare_boxes(store, rows, arguments.boxes)
        if arguments.photos:
            share_of_loader(arguments.photos, store, pool)


def write_published_files(store: relabel_store.LabelStore, rows: np.ndarray, folder: Path) -> dict[int, Path]:
    """Write label maps as the ReLabel files hold them: one float32 tensor (2, k, rows, cols) each."""
    folder.mkdir()
    files = {}
    for row in rows.tolist():
        found = store[row]
        files[row] = folder / f"{row}.pt"
        stacked = np.stack([found.values.astype(np.float32), found.indices.astype(np.float32)])
        torch.save(torch.from_numpy(stacked), files[row])
    return files


def random_crops(rng: np.random.Generator, n: int) -> Tensor:
    """Return boxes as RandomResizedCrop draws them on a photo of 500 x 375."""
    crop = v2.RandomResizedCrop(224)
    torch.manual_seed(int(rng.integers(2**31)))
    photo = torch.zeros(3, 375, 500, dtype=torch.uint8)
    return torch.stack([crop(photo, CropBox.of(photo))[1].as_subclass(Tensor) for _ in range(n)])


def dense_logits(
    maps: Tensor, boxes: Tensor, num_classes: int, output_size: tuple[int, int] = (1, 1)
) -> Tensor:
    """Return pooled logits as the published code makes them: the dense map, then roi_align."""
    n, _, _, n_rows, n_cols = maps.shape
    dense = torch.zeros(n, num_classes, n_rows, n_cols).scatter_(1, maps[:, 1].long(), maps[:, 0])
    rois = torch.cat(
        [torch.arange(n)[:, None], boxes * torch.tensor([n_cols, n_rows, n_cols, n_rows]) - 0.5], 1
    )
    return roi_align(dense, rois, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=False)


def dense_targets(maps: Tensor, boxes: Tensor, num_classes: int) -> Tensor:
    """Return targets as the published code makes them."""
    return dense_logits(maps, boxes, num_classes)[:, :, 0, 0].softmax(1)


def measure(run: Callable[[int], object], n: int, repeat: int) -> float:
    """Return the median CPU seconds of a call."""
    found = []
    for at in range(n):
        run(at)
    for _ in range(repeat):
        for at in range(n):
            started = time.process_time()
            run(at)
            found.append(time.process_time() - started)
    return statistics.median(found)


def decode(store: EncodedStore, repeat: int) -> None:
    """Print how fast a whole store is decoded."""
    group = zarr.open_group(store.files.path, mode="r")
    step = store.manifest.layout.shard_rows
    room = {name: np.empty((step, *array.shape[1:]), array.dtype) for name, array in group.arrays()}

    def ours() -> None:
        for part in sorted(store.parts):
            n_rows = len(store.manifest.rows_of_part(part))
            store.decode_part(part, {name: array[:n_rows] for name, array in room.items()})

    def theirs() -> None:
        for name in room:
            for start in range(0, len(store), step):
                group[name][start : start + step]

    def cached() -> None:
        with tempfile.TemporaryDirectory(prefix="relabel-store-benchmark-") as work:
            materialize_store(store, work)

    one, other, whole = (
        len(store) / measure(lambda _, run=run: run(), 1, min(repeat, 7)) for run in (ours, theirs, cached)
    )
    print(f"decoding the whole store, digests checked: {one:,.0f} rows a second of one core; ", end="")
    print(f"zarr-python, a shard at a time, unchecked: {other:,.0f} ({one / other:.2f} times); ", end="")
    print(f"and written into a cache, CPU time of the system included: {whole:,.0f}")


def compare_boxes(store: relabel_store.LabelStore, rows: np.ndarray, n: int) -> None:
    """Print the largest difference from roi_align over random boxes, of which some leave the image."""
    rng, largest, done = np.random.default_rng(1), 0.0, 0
    pool = LabelPooling(store.num_classes)
    while done < n:
        maps = store.read_rows(rng.choice(rows, BATCH))
        corners = rng.uniform(-0.5, 1.0, (BATCH, 2))
        sizes = rng.choice([0.02, 0.3, 1.0], (BATCH, 2)) * rng.uniform(0.2, 1, (BATCH, 2))
        boxes = torch.from_numpy(np.concatenate([corners, corners + sizes], 1)).float()
        stacked = torch.from_numpy(
            np.stack([maps.values.astype(np.float32), maps.indices.astype(np.float32)], 1)
        )
        indices, values = torch.from_numpy(maps.indices), torch.from_numpy(maps.values)
        expected = dense_logits(stacked, boxes, store.num_classes)[:, :, 0, 0]
        largest = max(largest, float((pool.logits(indices, values, boxes) - expected).abs().max()))
        done += BATCH
    print(f"largest difference of a logit from roi_align over {done:,} boxes: {largest:.1e}")


def share_of_loader(photos: str, store: relabel_store.LabelStore, pool: LabelPooling) -> None:
    """Print what labels and boxes take of a loader's CPU time."""
    images = SampleImages(photos, store)
    crop = v2.Compose([v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(), v2.ToImage()])
    rows = store.rows_of(images.sample_ids)
    positions = range(min(len(images), BATCH))

    def without() -> None:
        for position in positions:
            crop(images[position][0])

    def boxes() -> list[CropBox]:
        found = []
        for position in positions:
            image = images[position][0]
            found.append(crop(image, CropBox.of(image))[1])
        return found

    def labels(found: list[CropBox]) -> None:
        maps = store.read_rows(rows[list(positions)])
        pool(
            torch.from_numpy(maps.indices),
            torch.from_numpy(maps.values),
            torch.stack([box.as_subclass(Tensor) for box in found]),
        )

    found = boxes()
    loader = measure(lambda _: without(), 1, 7) / len(positions)
    tracked = measure(lambda _: boxes(), 1, 7) / len(positions)
    labelled = measure(lambda _: labels(found), 1, 7) / len(positions)
    print(
        f"decoding and cropping a photo: {loader * 1e3:.2f} ms; following the box: {tracked - loader:.1e} s "
        f"({(tracked - loader) / loader:.2%}); fetch and pool: {labelled * 1e6:.1f} us ({labelled / loader:.2%})"
    )


if __name__ == "__main__":
    main()

"""What it costs to know which region a crop shows: a pipeline with its crop box and without.

    python benchmarks/crop_tracking.py PHOTOS [--photos 200] [--rounds 15]

Decodes the photos of a folder with Pillow, then runs the training crops of torchvision's v2 and of timm on
the decoded pictures with the box and without, by turns, under the same seeds, in one thread. Figures are medians
over the rounds of the mean over the photos, the box's cost the median of the differences; the share is of
decoding and transforming. The lines are those in ``docs/explanation/crops.md``.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import v2

from relabel_store.torch import CropBox, as_tracked

SUFFIXES = {".jpg", ".jpeg"}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--photos", type=int, default=200, dest="count")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paths = [path for path in sorted(arguments.photos.rglob("*")) if path.suffix.lower() in SUFFIXES]
    paths = paths[: arguments.count]
    if not paths:
        raise SystemExit(f"{arguments.photos}: no JPEG files")
    decode_ms = median(time_of(decode, paths) for _ in range(5)) / len(paths) * 1e3
    images = [decode(path) for path in paths]
    print(
        describe_machine(), f"{len(paths)} photos, one thread, CPU time; decode {decode_ms:.2f} ms", sep="\n"
    )
    print("| pipeline | transform, ms an image | box, us an image | share of decode + transform |")
    print("| --- | ---: | ---: | ---: |")
    for name, plain, tracked in pipelines():
        transform_ms, box_us = measure(images, plain, tracked, arguments.rounds)
        share = box_us / 1e3 / (decode_ms + transform_ms)
        print(f"| {name} | {transform_ms:.2f} | {box_us:.0f} | {share:.2%} |")


def pipelines() -> list[tuple[str, Callable[..., Any], Callable[..., Any]]]:
    """Return names, pipelines of a picture, and the same of a picture and its box."""
    crop = [v2.RandomResizedCrop(224), v2.RandomHorizontalFlip()]
    crops = v2.Compose(crop)
    training = v2.Compose(
        [*crop, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
    )
    timm = create_transform(224, is_training=True, color_jitter=None, interpolation="bilinear")
    return [
        ("v2: crop, flip", crops, crops),
        ("v2: crop, flip, to tensor, normalize", training, training),
        ("the same through as_tracked", training, as_tracked(training)),
        ("timm: crop, flip, to tensor, normalize, through as_tracked", timm, as_tracked(timm)),
    ]


def decode(path: Path) -> Image.Image:
    """Return a photo as torchvision's default loader does."""
    with Image.open(path) as image:
        return image.convert("RGB")


def measure(
    images: list[Image.Image], plain: Callable[..., Any], tracked: Callable[..., Any], rounds: int
) -> tuple[float, float]:
    """Return milliseconds an image without a box, and microseconds that the box adds."""
    without, added = [], []
    for number in range(-1, rounds):  # one round to warm up
        seed(number + 1)
        plain_s = time_of(plain, images)
        seed(number + 1)
        tracked_s = time_of(lambda image: tracked(image, CropBox.of(image)), images)
        if number >= 0:
            without.append(plain_s)
            added.append(tracked_s - plain_s)
    return median(without) / len(images) * 1e3, median(added) / len(images) * 1e6


def time_of(work: Callable[[Any], object], items: list[Any]) -> float:
    """Return the CPU seconds that some work takes on every item; results are dropped, as a loader does."""
    started = time.process_time()
    for item in items:
        work(item)
    return time.process_time() - started


def seed(number: int) -> None:
    """Seed everything that the pipelines draw from."""
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


if __name__ == "__main__":
    main()

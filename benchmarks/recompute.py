"""By how much a teacher's logits differ from one arithmetic to another: what `validate --recompute` has to allow.

    python benchmarks/recompute.py --images SOURCE [--teacher NAME] [--photos N]

Prints, for each arithmetic beside float32 in batches of eight, by how much the five best logits of a cell differ, of
the largest logit of their map.
"""

from __future__ import annotations

import argparse

import torch
from machine import describe_machine
from torch import Tensor

from relabel_store.generate.batches import decoded_batches
from relabel_store.generate.limit import LimitedImages
from relabel_store.generate.load import load_teacher
from relabel_store.generate.precision import Precision
from relabel_store.generate.teacher import Teacher
from relabel_store.images.recognise import open_images
from relabel_store.labels.tolerance import Tolerance


def main() -> None:
    """Compare arithmetics and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", required=True)
    parser.add_argument("--teacher", default="efficientnet_lite0")
    parser.add_argument("--photos", type=int, default=32)
    options = parser.parse_args()
    teacher = load_teacher(options.teacher)
    source = LimitedImages(open_images(options.images), options.photos)
    (batch,) = decoded_batches(source, teacher.facts.input, [range(len(source))], workers=0, pin_memory=False)
    reference = logits(teacher, batch.pixels, Precision.FP32, 8)
    largest = reference.abs().amax(dim=(1, 2, 3))
    top = reference.topk(5, dim=1)
    print(f"{options.teacher}, {len(source)} photos, {describe_machine()}")
    print(
        f"{'arithmetic':24} {'median':>9} {'p99':>9} {'largest':>9} {'allowed':>9}   of the map's largest logit"
    )
    for name, precision, batch_size in (
        ("fp32, batches of 3", Precision.FP32, 3),
        ("fp16", Precision.FP16, 8),
        ("bf16", Precision.BF16, 8),
    ):
        found = logits(teacher, batch.pixels, precision, batch_size).gather(1, top.indices)
        cells = ((found - top.values).abs().amax(dim=1) / largest[:, None, None]).flatten()
        allowed = Tolerance.of(precision.value, "cpu", "exact").relative
        numbers = [float(cells.median()), float(cells.quantile(0.99)), float(cells.max()), allowed]
        print(f"{name:24} " + " ".join(f"{number:9.5f}" for number in numbers))


def logits(teacher: Teacher, pixels: Tensor, precision: Precision, batch_size: int) -> Tensor:
    """Return the dense logits of images, scored in batches."""
    with torch.inference_mode():
        return torch.cat(
            [
                teacher.dense_logits(teacher.facts.input.normalize(some), precision)
                for some in pixels.split(batch_size)
            ]
        )


if __name__ == "__main__":
    main()

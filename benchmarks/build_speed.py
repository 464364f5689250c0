"""What a build costs over decoding and the bare teacher, all measured in the same run.

    python benchmarks/build_speed.py photos/ [--teacher efficientnet_lite0] [--input-size 475] [--repeat 3]

In turn, so that a machine that changes its speed hurts all alike: the teacher's own forward pass on ready pixels, the
same with dense maps, decoding (in one worker, as the build does) and dense maps, the whole build.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe_machine

from relabel_store.generate.batches import decoded_batches, split_rows
from relabel_store.generate.build import build
from relabel_store.generate.load import load_teacher
from relabel_store.generate.precision import Precision
from relabel_store.generate.teacher import TimmTeacher
from relabel_store.generate.teacher_options import TeacherOptions
from relabel_store.images.recognise import open_images
from relabel_store.inspect.summary import summarize
from relabel_store.store.reader import open_store


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images")
    parser.add_argument("--teacher", default="efficientnet_lite0")
    parser.add_argument("--input-size", type=int)
    parser.add_argument("--value-step", default="0.125")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()

    source = open_images(Path(arguments.images))
    teacher = load_teacher(arguments.teacher, TeacherOptions(input_size=arguments.input_size))
    assert isinstance(teacher, TimmTeacher)
    teacher.to(torch.device("cpu"))
    batches = split_rows(range(len(source)), arguments.batch_size)
    work = Path(tempfile.mkdtemp(prefix="relabel-store-benchmark-"))

    def forward(pixels: torch.Tensor) -> None:
        with torch.inference_mode():
            teacher.model(teacher.facts.input.normalize(pixels))

    def dense(pixels: torch.Tensor) -> None:
        with torch.inference_mode():
            teacher.dense_logits(teacher.facts.input.normalize(pixels), Precision.FP32)

    def decode(then: Callable[[torch.Tensor], None]) -> None:
        for batch in decoded_batches(source, teacher.facts.input, batches, workers=1, pin_memory=False):
            then(batch.pixels)

    def over_ready_pixels(then: Callable[[torch.Tensor], None]) -> None:
        for pixels in ready:
            then(pixels)

    def whole() -> None:
        shutil.rmtree(work / "labels.zarr", ignore_errors=True)
        build(
            teacher,
            source,
            work / "labels.zarr",
            batch_size=arguments.batch_size,
            value_step=arguments.value_step,
            absent="zero",
            device="cpu",
        )

    ready = [
        batch.pixels
        for batch in decoded_batches(source, teacher.facts.input, batches, workers=0, pin_memory=False)
    ]
    runs: dict[str, Callable[[], None]] = {
        "decoding alone, one worker": lambda: decode(lambda _: None),
        "teacher's own forward on ready pixels": lambda: over_ready_pixels(forward),
        "dense maps on ready pixels": lambda: over_ready_pixels(dense),
        "decoding + dense maps": lambda: decode(dense),
        "whole build": whole,
    }
    walls: dict[str, list[float]] = {name: [] for name in runs}
    cpus: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.repeat):
        for name, run in runs.items():
            wall_s, cpu_s = measure(run)
            walls[name].append(wall_s)
            cpus[name].append(cpu_s)

    reference = "decoding + dense maps"
    print(describe_machine())
    print(
        f"{arguments.teacher}, {teacher.facts.input.size} px, {len(source)} images, {torch.get_num_threads()} threads"
    )
    print("| what | images/s | time | CPU time |")
    print("| --- | ---: | ---: | ---: |")
    for name in runs:
        ratios = [
            statistics.median(a / b for a, b in zip(found[name], found[reference], strict=True))
            for found in (walls, cpus)
        ]
        speed = len(source) / statistics.median(walls[name])
        print(f"| {name} | {speed:.2f} | {ratios[0]:.3f} | {ratios[1]:.3f} |")
    print(
        f"times: medians of {arguments.repeat} ratios to {reference!r} of the same round; CPU time of all processes"
    )
    summary = summarize(open_store(work / "labels.zarr"))
    identity = summary.manifest.teacher.dense.identity_error
    print(f"bytes an image: {summary.bytes_per_sample:.0f}; identity error {identity}")
    shutil.rmtree(work)


def measure(run: Callable[[], None]) -> tuple[float, float]:
    """Return the seconds and the CPU seconds, of this process and those it started, that a call takes."""

    def cpu_seconds() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in used)

    cpu_started, started = cpu_seconds(), time.perf_counter()
    run()
    return time.perf_counter() - started, cpu_seconds() - cpu_started


if __name__ == "__main__":
    main()

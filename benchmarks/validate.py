"""Time and memory of each level of validation, beside reading, hashing and decoding the same files once.

    python benchmarks/validate.py WORK_DIR [--rows 1281167] [--keep] [--images SOURCE]

The maps are made up: one real-looking chunk written again and again, under names like those of ImageNet. Each folder is
a known class, so that all statistics are counted. Every job runs in a process of its own, on all cores, over files that
the system has in memory. What level sense takes of content is the CPU time of its own calls inside it.

With `--images`, real photos are labelled by the smallest teacher that weights come with, and what the levels images and
teacher, and the photos of level sense, take is measured on them: an image each, and what that makes of as many as
ImageNet has.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from large_store import large_manifest, sample_ids, write
from machine import describe_machine

from relabel_store import build, spec
from relabel_store.images.recognise import open_images
from relabel_store.manifest import Classes, Compression, Encoding

JOBS = {
    "read the files": "for_each(lambda path: len(path.read_bytes()))",
    "read and hash them": "for_each(lambda path: hashlib.sha256(path.read_bytes()).digest())",
    "decode the labels": "decode()",
    "structure": "check('structure')",
    "content": "check('content')",
    "of it sense": "sense()",
}
IMAGENET = 1_281_167

MEASURE = """
import hashlib, json, math, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from relabel_store import open_store, validate_store
from relabel_store.store.arrays import array_specs
from relabel_store.store.decoded import for_each_part, usable_cores
import relabel_store.validate.run, pyarrow.parquet

store = Path(sys.argv[1])

def for_each(look):
    with ThreadPoolExecutor(usable_cores()) as threads:
        list(threads.map(look, [path for path in store.rglob("*") if path.is_file()]))

def decode():
    opened = open_store(store)
    specs, rooms = array_specs(opened.manifest), threading.local()

    def one(part):
        if not hasattr(rooms, "arrays"):
            rooms.arrays = {name: array.empty(opened.manifest.layout.shard_rows) for name, array in specs.items()}
        n = len(opened.manifest.rows_of_part(part))
        opened.decode_part(part, {name: array[:n] for name, array in rooms.arrays.items()})

    for_each_part(opened, one)

def check(level):
    report = validate_store(store, level=level)
    assert not report.has_errors(), report.groups  # that maps repeat is a warning, and true

def sense():
    from relabel_store.validate.sense import SenseScan

    lock = threading.Lock()

    def timed(method):
        def call(*given, **named):
            began = time.thread_time()
            result = method(*given, **named)
            if method.__name__ == "conclude":
                result = list(result)
            with lock:
                found["cpu_s"] = found.get("cpu_s", 0) + time.thread_time() - began
            return result
        return call

    for name in ("look", "add", "conclude"):
        setattr(SenseScan, name, timed(getattr(SenseScan, name)))
    check("content")
    found.update(wall_s=math.nan, memory_mb=math.nan)  # within that of content

def with_images(source, what, count):
    from relabel_store.generate.relabel import RecordedTeacher
    from relabel_store.images.recognise import open_images
    from relabel_store.validate.images import ImagesStage
    from relabel_store.validate.photos import PhotoSenseStage
    from relabel_store.validate.teacher import TeacherStage

    images = open_images(source)
    stages = {
        "images": lambda: [ImagesStage(images)],
        "sense": lambda: [PhotoSenseStage(images)],
        "teacher": lambda: [TeacherStage(images, RecordedTeacher(workers=0), count)],
        "": lambda: [],
    }
    report = validate_store(store, level="structure", stages=stages[what]())
    assert not report.has_errors(), report.groups

def peak_mb():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3

found = {}
before = peak_mb()
wall, cpu = time.perf_counter(), time.process_time()
JOB
whole = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "memory_mb": peak_mb() - before}
print(json.dumps({**whole, **found}))
"""


def main() -> None:
    """Write the store, then do each job twice and keep the faster run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=1_281_167)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--images", help="Photos to measure the levels images and teacher on.")
    arguments = parser.parse_args()
    path = arguments.work / f"validate-{arguments.rows}.zarr"
    if not (path / spec.COMPLETE_FILE).exists():
        write_known(path, sample_ids(arguments.rows))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(describe_machine())
    print(f"{arguments.rows:,} rows at 15x15x5, {size / 1e9:.2f} GB")
    print(f"{'':>20} {'wall, s':>9} {'CPU, s':>9} {'CPU us/row':>11} {'memory, MB':>11}")
    found = {name: best_of(path, job) for name, job in JOBS.items()}
    for name, run in found.items():
        per_row = run["cpu_s"] / arguments.rows * 1e6
        print(f"{name:>20} {run['wall_s']:9.2f} {run['cpu_s']:9.2f} {per_row:11.2f} {run['memory_mb']:11.0f}")
    ratio = found["content"]["cpu_s"] / found["decode the labels"]["cpu_s"]
    print(f"content takes {ratio:.2f} times the CPU time of decoding")
    if arguments.images is not None:
        print_photos(arguments.images, arguments.work / "photos.zarr")
    if not arguments.keep:
        shutil.rmtree(path)


def print_photos(images: str, path: Path) -> None:
    """Label photos, then print what the levels that look at images take of them."""
    if not (path / spec.COMPLETE_FILE).exists():
        build("efficientnet_lite0", images, path, device="cpu", workers=0)
    photos = len(open_images(images))
    plain = best_of(path, f"with_images({images!r}, '', 0)")["cpu_s"]
    print(f"{photos} photos: {'images':>11} {'CPU, s':>9} {'ms/image':>9}")
    for level, count in (
        ("images", photos),
        ("sense", min(photos, 200)),
        ("teacher", min(photos, 10)),
        ("teacher", min(photos, 50)),
    ):
        cpu_s = best_of(path, f"with_images({images!r}, {level!r}, {count})")["cpu_s"] - plain
        print(f"{level:>20} {count:>6} {cpu_s:9.1f} {cpu_s / count * 1e3:9.1f}")
        if level == "images":
            print(f"{'that of ImageNet':>20} {IMAGENET:>6,} {cpu_s / count * IMAGENET:9.0f}")


def write_known(path: Path, ids: list[str]) -> None:
    """Write a store whose folders are the teacher's classes."""
    folders = sorted({sample_id.split("/")[0] for sample_id in ids})
    classes = [*folders, *(f"other {number}" for number in range(1000 - len(folders)))]
    manifest = replace(
        large_manifest(ids),
        classes=Classes.of(classes, None, "made up"),
        encoding=Encoding.of(spec.ENCODING_ZARR, Compression.FAST),
    )
    write(path, ids, manifest)


def best_of(path: Path, job: str) -> dict[str, float]:
    """Do a job twice; return the run that took less time of the processor."""
    return min((measure(path, job) for _ in range(2)), key=lambda run: run["cpu_s"])


def measure(path: Path, job: str) -> dict[str, float]:
    """Do a job in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.replace("JOB", job), str(path)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    run: dict[str, float] = json.loads(done.stdout)
    return run


if __name__ == "__main__":
    main()

"""What a build will take, from a few batches that are labelled and thrown away."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from relabel_store.generate.batches import Batch, decoded_batches
from relabel_store.generate.engines.local import MAX_UNWRITTEN_PARTS
from relabel_store.generate.part import PartLabeller, Scores, UnencodedPart
from relabel_store.generate.profile import Profile, Stage
from relabel_store.images.source import ImageSource
from relabel_store.manifest import AbsentRule, Manifest
from relabel_store.store.encodings import encoding_of
from relabel_store.store.estimate import estimated_size_bytes
from relabel_store.store.part_labels import encode_part
from relabel_store.store.writer import StoreWriter

TIMED_BATCHES = 3  # after one that warms up

# Measured at 4,096 and 1,024 rows of 15x15x5: encoding a part takes 196 and 85 MB besides its scores.
_ENCODE_BYTES = 48_000_000
_ENCODE_BYTES_PER_PAIR = 32
_SCORE_BYTES_PER_PAIR = 8  # int32 and float32
# Measured over a million images: 110 MB, and in time the list of images once more.
_DECODER_BYTES = 110_000_000
_DECODER_BYTES_PER_IMAGE = 210
_BATCHES_A_DECODER = 3  # two that are ready, and the one that it is at


@dataclass(frozen=True)
class Forecast:
    """What a build will take.

    Parameters
    ----------
    rows, parts
        That are left to this process.
    store_bytes
        Of the whole store once it is finished.
    missing_bytes
        Those of them that are not written yet, by whatever share.
    free_bytes
        Where the store lies; None in an object store.
    memory_bytes
        The most that this process and its decoders will have, and those of the other devices.
    device_bytes
        The most of a GPU's memory; None on a CPU.
    seconds_a_row
        What one device takes for a row.
    limit
        The stage that takes longest.
    devices
        That work at the same time.
    """

    rows: int
    parts: int
    store_bytes: int
    missing_bytes: int
    free_bytes: int | None
    memory_bytes: int
    device_bytes: int | None
    seconds_a_row: float
    limit: Stage
    devices: int = 1

    @property
    def seconds(self) -> float:
        """What is left to this process takes so long: as long as the device that has most of its parts."""
        most = -(-self.parts // self.devices)
        return self.rows * self.seconds_a_row * most / self.parts

    @property
    def is_space_enough(self) -> bool:
        """Whether the store fits where it shall lie."""
        return self.free_bytes is None or self.missing_bytes <= self.free_bytes


def make_forecast(
    labeller: PartLabeller,
    source: ImageSource,
    writer: StoreWriter,
    *,
    device: torch.device,
    parts: Sequence[int],
    parts_missing: int,
    workers: int,
    devices: int,
    free_bytes: int | None,
) -> Forecast:
    """Label three batches from all over the images and say what the rest takes; nothing is written.

    Parameters
    ----------
    parts
        That are left to this process.
    parts_missing
        Of the store, whoever builds them.
    workers
        Processes that decode images for a device.
    devices
        That will work at the same time, each as this one does.

    Raises
    ------
    ImageReadError, BadImageStop, AbsentRuleError, NonFiniteLogitsError, TeacherError
        As the build itself would.

    Notes
    -----
    Decoding, scoring and encoding are timed one after the other. In the build they run side by side: on a GPU the
    slowest of them sets the pace, on a CPU they share its cores.
    """
    manifest = writer.manifest
    rows = sum(len(manifest.rows_of_part(part)) for part in parts)
    batches, scores = _label(labeller, source, device, workers)
    encoded_row_bytes, encode_s = _encode(labeller, writer, batches, scores)
    seconds = paces(labeller.profile, encode_s)
    limit = max(seconds, key=lambda stage: seconds[stage])
    store_bytes = estimated_size_bytes(manifest, writer.samples, encoded_row_bytes)
    return Forecast(
        rows=rows,
        parts=len(parts),
        store_bytes=store_bytes,
        missing_bytes=store_bytes * parts_missing // manifest.num_parts,
        free_bytes=free_bytes,
        memory_bytes=devices * _memory_bytes(manifest, len(parts), workers),
        device_bytes=torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None,
        seconds_a_row=seconds[limit] if device.type == "cuda" else sum(seconds.values()),
        limit=limit,
        devices=devices,
    )


def spread_batches(n: int, batch_size: int, count: int) -> list[range]:
    """Return the rows of some batches, spread evenly over n rows."""
    size = min(batch_size, n)
    return [range(start, start + size) for start in (number * (n - size) // count for number in range(count))]


def _label(
    labeller: PartLabeller, source: ImageSource, device: torch.device, workers: int
) -> tuple[list[Batch], list[Scores]]:
    """Decode, then score; leave in the labeller's profile what three batches took."""
    decoded = list(
        decoded_batches(
            source,
            labeller.input,
            spread_batches(len(source), labeller.batch_size, 1 + TIMED_BATCHES),
            workers=workers,
            pin_memory=device.type == "cuda",
        )
    )
    warming_up = list(labeller.score(decoded[:1]))
    labeller.profile = Profile(device, workers=workers)
    started = time.perf_counter()
    scored = list(labeller.score(decoded[1:]))
    labeller.profile.wall_s = time.perf_counter() - started
    return decoded, [scores for _, scores in warming_up + scored]


def _encode(
    labeller: PartLabeller, writer: StoreWriter, batches: Sequence[Batch], scores: Sequence[Scores]
) -> tuple[float, float]:
    """Encode what was labelled; return bytes and seconds a row, without what a part costs whatever its length."""
    manifest = writer.manifest
    overhead = encoding_of(manifest).part_overhead(manifest)

    def encode(count: int) -> tuple[int, int, float]:
        started = time.perf_counter()
        some = [facts for batch in batches[:count] for facts in batch.facts]
        labels = labeller.encode(UnencodedPart(0, list(scores[:count]), some))
        # Of fewer images than three batches take, some were labelled twice.
        samples = writer.samples.take(np.arange(len(some)) % len(writer.samples))
        files = encode_part(manifest, 0, labels, samples)
        return len(some), sum(map(len, files.values())) - overhead, time.perf_counter() - started

    few, _, few_s = encode(1)
    many, size_bytes, many_s = encode(len(batches))
    return size_bytes / many, max(many_s - few_s, 0.0) / (many - few)


def paces(profile: Profile, encode_s: float) -> dict[Stage, float]:
    """Return the seconds a row that decoding, scoring and encoding hold up whatever they share.

    Parameters
    ----------
    profile
        Of some batches; its ``wall_s`` is what scoring them took.
    encode_s
        Seconds a row that encoding takes of one thread.
    """
    forward_s = profile.wall_s / profile.images
    decode_s = (profile.seconds[Stage.READ] + profile.seconds[Stage.DECODE]) / profile.images
    if profile.device.type == "cuda":
        at_once, cores = max(profile.workers, 1), 1
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        at_once = cores if profile.workers else 1
    return {Stage.DECODE: decode_s / at_once, Stage.FORWARD: forward_s, Stage.WRITE: encode_s / cores}


def _memory_bytes(manifest: Manifest, parts: int, workers: int) -> int:
    """Return what this process has had until now, and what parts and decoders will take besides."""
    label_map = manifest.label_map
    cells = label_map.grid[0] * label_map.grid[1]
    part_rows = min(manifest.layout.shard_rows, manifest.num_samples)
    pairs = part_rows * label_map.k * cells
    scores = pairs * _SCORE_BYTES_PER_PAIR
    if label_map.absent is AbsentRule.REST:
        scores += part_rows * cells * 4
    at_once = min(parts, 2 + MAX_UNWRITTEN_PARTS)  # one being labelled, some waiting, one being written
    assert manifest.build is not None
    assert manifest.geometry.input_size is not None
    height, width = manifest.geometry.input_size
    batch = manifest.build.batch_size * height * width * 3
    decoder = _DECODER_BYTES + _DECODER_BYTES_PER_IMAGE * manifest.num_samples + _BATCHES_A_DECODER * batch
    decoders = workers * decoder
    return _peak_bytes() + at_once * scores + _ENCODE_BYTES + pairs * _ENCODE_BYTES_PER_PAIR + decoders


def _peak_bytes() -> int:
    """Return the most memory that this process has had resident."""
    import resource  # POSIX, as the locks of a build are

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

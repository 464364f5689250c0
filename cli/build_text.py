"""What a build does, or did, as text for people."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.table import Table

from .store_text import agreement, exif_orientations
from .words import byte_count, count, duration, field_lines, table_text

if TYPE_CHECKING:
    from relabel_store.generate.build_report import BuildReport
    from relabel_store.generate.forecast import Forecast
    from relabel_store.generate.profile import Profile
    from relabel_store.inspect.status import BuildStatus
    from relabel_store.store.running import FailedPart

_LISTED_BAD_IMAGES = 20


def build_report(report: BuildReport) -> str:
    """Return how a build ended."""
    manifest = report.manifest
    lines = []
    if report.is_complete:
        assert manifest.statistics is not None
        lines.append(f"{report.location}: complete, {count(manifest.statistics.labelled, 'image')} labelled")
        lines += field_lines(agreement(manifest))
        if manifest.statistics.exif_oriented:
            lines += field_lines([("EXIF", f"{exif_orientations(manifest.statistics.exif_oriented)}")])
    elif report.failed_parts:
        lines.append(f"{report.location}: {count(report.labelled, 'image')} labelled; not finished:")
        lines += [f"  {_failed_part(failed)}" for failed in report.failed_parts]
        lines.append(
            "Mend what the reasons say and run the same command again; relabel-store status has them in full."
        )
    else:
        lines.append(
            f"{report.location}: {count(report.labelled, 'image')} labelled, "
            f"{count(report.parts_left, 'part')} left to other shares"
        )
    if report.bad_images:
        lines.append(f"{count(len(report.bad_images), 'image')} without a label:")
        lines += [f"  {path!r}: {reason}" for path, reason in report.bad_images[:_LISTED_BAD_IMAGES]]
        if len(report.bad_images) > _LISTED_BAD_IMAGES:
            lines.append(f"  and {len(report.bad_images) - _LISTED_BAD_IMAGES} more")
        lines.append(
            "Mend them and run the same command with --on-bad-image retry, or leave them out in training."
        )
    return "\n".join(lines)


def build_status(found: BuildStatus) -> str:
    """Return how far a build is."""
    done = f"{found.parts_finished} of {count(found.parts, 'part')}, {found.samples:,} of {found.num_samples:,} images"
    bad = f", {found.bad_images:,} without a label" if found.bad_images else ""
    lines = [f"{found.name}: {'complete' if found.is_complete else 'being built'}, {done}{bad}"]
    if found.samples_per_s is not None and found.time_left is not None:
        left = timedelta(seconds=round(found.time_left.total_seconds()))
        lines.append(f"{found.samples_per_s:,.1f} images/s, {left} left at that rate")
    elif not found.is_complete:
        lines.append(_unknown_rate(found))
    if found.workers:
        table = Table(box=None, pad_edge=False, header_style="")
        for heading in ("PART", "WORKER", "SINCE", "ATTEMPT", "IMAGES/S", "STATE"):
            table.add_column(
                heading, no_wrap=True, justify="right" if heading in ("PART", "IMAGES/S") else "left"
            )
        for worker in found.workers:
            rate = worker.samples_per_s
            table.add_row(
                str(worker.part.part),
                f"{worker.part.host}:{worker.part.pid}",
                worker.part.since,
                str(worker.part.attempt),
                "" if rate is None else f"{rate:.1f}",
                worker.state.value,
            )
        lines.append(table_text(table))
    lines += [_failed_part(failed) for failed in found.failed]
    return "\n".join(lines)


def _unknown_rate(found: BuildStatus) -> str:
    """Return why nobody can say how fast an unfinished build is."""
    from relabel_store.inspect.status import WorkerState

    if any(worker.state is WorkerState.RUNNING for worker in found.workers):
        return "how fast that is will be known when a first part is finished"
    who = "nobody is at work any more" if found.workers else "nobody is at work, or has only just begun"
    return f"{who}; run the same build again to go on"


def _failed_part(failed: FailedPart) -> str:
    last = next((line for line in reversed(failed.reason.strip().splitlines()) if line.strip()), "no reason")
    return f"part {failed.part} was given up after {count(failed.attempts, 'attempt')}: {last.strip()}"


def forecast(report: BuildReport) -> str:
    """Return what a build will take."""
    found, manifest = report.forecast, report.manifest
    if found is None:
        state = "complete" if report.is_complete else "nothing is left to label here"
        return f"{report.location}: dry run, {state}"
    label_map, teacher = manifest.label_map, manifest.teacher
    rows, columns = label_map.grid
    per_row = found.store_bytes / manifest.num_samples
    size = f"about {byte_count(found.store_bytes)}, {per_row:,.0f} bytes a row"
    if found.free_bytes is not None:
        enough = (
            ""
            if found.is_space_enough
            else f"; too little, {byte_count(found.missing_bytes)} are to be written"
        )
        size += f"; {byte_count(found.free_bytes)} free{enough}"
    memory = f"about {byte_count(found.memory_bytes)}"
    if found.device_bytes is not None:
        memory += f", and {byte_count(found.device_bytes)} of the GPU's"
    assert manifest.build is not None
    parts = count(manifest.num_parts, "part")
    here = f"{count(found.rows, 'row')} in {count(found.parts, 'part')}"
    speed = f"{1 / found.seconds_a_row:,.1f} images/s on {teacher.device} in {teacher.precision}"
    others = f", {found.devices} devices at once" if found.devices > 1 else ""
    fields = [
        (
            "rows",
            f"{manifest.num_samples:,}, {rows}x{columns} cells, top {label_map.k} of {label_map.num_classes}",
        ),
        ("parts", f"{parts} of {count(manifest.layout.shard_rows, 'row')}"),
        ("left here", here),
        ("size", size),
        ("memory", memory),
        ("speed", f"{speed}, batches of {manifest.build.batch_size}{others}"),
        ("time", f"about {duration(found.seconds)} for the {here}"),
    ]
    return "\n".join([f"{report.location}: dry run, no store is made", *field_lines(fields), _held_up(found)])


def _held_up(found: Forecast) -> str:
    from relabel_store.generate.profile import Stage

    what = {
        Stage.DECODE: "reading and decoding images; more --workers or more cores would help",
        Stage.FORWARD: "the teacher itself, as it should be; more devices (--device cuda:all, --share) would help",
        Stage.WRITE: "compressing the labels; more devices (--share), each with a thread that does it, would help",
    }
    return f"bottleneck: {what[found.limit]}"


def profile(found: Profile | None) -> str:
    """Return where the time of a build went, and what would make it shorter."""
    from relabel_store.generate.profile import PLACES

    if found is None or not found.images:
        return "profile: nothing was labelled by this run"
    table = Table(box=None, pad_edge=False, header_style="")
    for heading in ("STAGE", "BY", "SECONDS", "MS AN IMAGE", "BUSY"):
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("STAGE", "BY") else "right")
    for stage, seconds in found.seconds.items():
        by = PLACES[stage]
        if by == "workers":
            by = count(found.workers, "worker") if found.workers else "main"
        table.add_row(
            stage.value,
            by,
            f"{seconds:.2f}",
            f"{seconds / found.images * 1e3:.2f}",
            f"{found.busy(stage):.0%}",
        )
    whole = f"{found.images} images in {found.wall_s:.2f} s, {found.images / found.wall_s:.1f} images/s"
    return f"{table_text(table)}\n{whole}\n{_bottleneck(found)}"


def _bottleneck(found: Profile) -> str:
    from relabel_store.generate.profile import Stage

    stage = found.bottleneck()
    assert stage is not None
    if stage in (Stage.READ, Stage.DECODE):
        what = "reading images" if stage is Stage.READ else "decoding images"
        cores = os.cpu_count() or 1
        if found.workers < cores:
            return (
                f"bottleneck: {what}; more --workers than {found.workers} would help, there are {cores} cores"
            )
        where = "a faster disk" if stage is Stage.READ else "more cores"
        return f"bottleneck: {what}, with {found.workers} workers on {cores} cores; {where} would help"
    if stage in (Stage.ENCODE, Stage.WRITE):
        return "bottleneck: writing the store; a faster disk for --out would help"
    if stage is Stage.TOP_K:
        return "bottleneck: finding the best classes on the device; more devices (--share) would help"
    if stage is Stage.TRANSFER:
        return "bottleneck: moving images to the device; a larger --batch-size or more devices (--share) would help"
    faster = "--precision bf16" if found.device.type == "cuda" else "a GPU"
    return f"bottleneck: the teacher itself, as it should be; {faster}, --compile or more devices (--share) would help"

"""Results of the library as text for people."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from relabel_store.convert.run import ConversionReport
    from relabel_store.generate.build import BuildReport
    from relabel_store.generate.catalog import CatalogEntry
    from relabel_store.generate.forecast import Forecast
    from relabel_store.generate.profile import Profile
    from relabel_store.inspect.status import BuildStatus
    from relabel_store.inspect.summary import ClassFrequency, SampleSummary, StoreSummary
    from relabel_store.manifest import Geometry, Manifest, TeacherInfo
    from relabel_store.repair.report import RepairReport
    from relabel_store.store.cache import CacheEntry
    from relabel_store.store.running import FailedPart

_LISTED_BAD_IMAGES = 20
_LISTED_CLASSES = 10
_DIGEST_DIGITS = 12
_REMEDIES = {
    "restored": "labelled again, the same bytes",
    "relabelled": "labelled again, with other bytes",
    "dropped": "dropped, its rows have no label now",
}


def teachers(entries: Sequence[CatalogEntry]) -> str:
    """Return a table of teachers."""
    table = Table(box=None, pad_edge=False, header_style="")
    for heading in ("NAME", "TIMM", "INPUT", "GRID", "DENSE MAP", "LICENCE", "WEIGHTS"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "WEIGHTS")
    for entry in entries:
        table.add_row(
            entry.name,
            "" if entry.timm_name == entry.name else entry.timm_name,
            f"{entry.input_size} px",
            f"{entry.grid}x{entry.grid}" if entry.grid else "at load",
            entry.dense_kind or "at load",
            entry.licence or "not stated",
            entry.weights,
        )
    return _table_text(table)


def _table_text(table: Table) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def cache_entries(entries: Sequence[CacheEntry], directory: Path) -> str:
    """Return a table of materialized stores."""
    if not entries:
        return f"{directory}: no materialized stores"
    table = Table(box=None, pad_edge=False, header_style="")
    for heading in ("STORE", "LABEL MAPS", "SIZE", "LAST USED", "DIGEST"):
        table.add_column(
            heading, no_wrap=True, justify="right" if heading in ("LABEL MAPS", "SIZE") else "left"
        )
    for entry in entries:
        used = datetime.fromtimestamp(entry.used_s).strftime("%Y-%m-%d %H:%M")
        digest = entry.path.name.lstrip(".")[:_DIGEST_DIGITS]
        table.add_row(
            entry.name or "(cannot be used)", f"{entry.num_samples:,}", _bytes(entry.size_bytes), used, digest
        )
    total = _bytes(sum(entry.size_bytes for entry in entries))
    return f"{_table_text(table)}\n{total} in {directory}"


def cleared_entries(entries: Sequence[CacheEntry]) -> str:
    """Return what was removed from the cache."""
    size = _bytes(sum(entry.size_bytes for entry in entries))
    return f"{_count(len(entries), 'materialized store')} removed, {size}"


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
            by = _count(found.workers, "worker") if found.workers else "main"
        table.add_row(
            stage.value,
            by,
            f"{seconds:.2f}",
            f"{seconds / found.images * 1e3:.2f}",
            f"{found.busy(stage):.0%}",
        )
    whole = f"{found.images} images in {found.wall_s:.2f} s, {found.images / found.wall_s:.1f} images/s"
    return f"{_table_text(table)}\n{whole}\n{_bottleneck(found)}"


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


def forecast(report: BuildReport) -> str:
    """Return what a build will take."""
    found, manifest = report.forecast, report.manifest
    if found is None:
        state = "complete" if report.is_complete else "nothing is left to label here"
        return f"{report.location}: dry run, {state}"
    label_map, teacher = manifest.label_map, manifest.teacher
    rows, columns = label_map.grid
    per_row = found.store_bytes / manifest.num_samples
    size = f"about {_bytes(found.store_bytes)}, {per_row:,.0f} bytes a row"
    if found.free_bytes is not None:
        enough = (
            "" if found.is_space_enough else f"; too little, {_bytes(found.missing_bytes)} are to be written"
        )
        size += f"; {_bytes(found.free_bytes)} free{enough}"
    memory = f"about {_bytes(found.memory_bytes)}"
    if found.device_bytes is not None:
        memory += f", and {_bytes(found.device_bytes)} of the GPU's"
    assert manifest.build is not None
    parts = _count(manifest.num_parts, "part")
    here = f"{_count(found.rows, 'row')} in {_count(found.parts, 'part')}"
    speed = f"{1 / found.seconds_a_row:,.1f} images/s on {teacher.device} in {teacher.precision}"
    others = f", {found.devices} devices at once" if found.devices > 1 else ""
    fields = [
        (
            "rows",
            f"{manifest.num_samples:,}, {rows}x{columns} cells, top {label_map.k} of {label_map.num_classes}",
        ),
        ("parts", f"{parts} of {_count(manifest.layout.shard_rows, 'row')}"),
        ("left here", here),
        ("size", size),
        ("memory", memory),
        ("speed", f"{speed}, batches of {manifest.build.batch_size}{others}"),
        ("time", f"about {_hours(found.seconds)} for the {here}"),
    ]
    return "\n".join([f"{report.location}: dry run, no store is made", *_fields(fields), _held_up(found)])


def _dense_map(teacher: TeacherInfo) -> str:
    text = teacher.dense.kind
    if teacher.dense.head != "replay":
        text += f", head {teacher.dense.head}"
    if teacher.dense.identity_error is not None:
        text += f", identity error {teacher.dense.identity_error:.1e}"
    return text + (", averaged with that of the mirror image" if teacher.flip else "")


def _seen(geometry: Geometry) -> str:
    what = {
        "squash": "whole image squashed to",
        "center-crop": "square in the middle of the image, resized to",
        "unknown": "unknown part of the image, resized to",
    }[geometry.resize]
    size = "an unknown size" if geometry.input_size is None else _pixels(geometry.input_size)
    interpolation = geometry.interpolation or "interpolation unknown"
    return f"{what} {size}, {interpolation}, EXIF orientation {geometry.exif_orientation}"


def _pixels(size: tuple[int, int]) -> str:
    height, width = size
    return f"{height}x{width}" + ("" if height == width else " (height x width)")


def _held_up(found: Forecast) -> str:
    from relabel_store.generate.profile import Stage

    what = {
        Stage.DECODE: "reading and decoding images; more --workers or more cores would help",
        Stage.FORWARD: "the teacher itself, as it should be; more devices (--device cuda:all, --share) would help",
        Stage.WRITE: "compressing the labels; more devices (--share), each with a thread that does it, would help",
    }
    return f"bottleneck: {what[found.limit]}"


def _hours(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def build_status(found: BuildStatus) -> str:
    """Return how far a build is."""
    done = f"{found.parts_finished} of {_count(found.parts, 'part')}, {found.samples:,} of {found.num_samples:,} images"
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
        lines.append(_table_text(table))
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
    return f"part {failed.part} was given up after {_count(failed.attempts, 'attempt')}: {last.strip()}"


def build_report(report: BuildReport) -> str:
    """Return how a build ended."""
    manifest = report.manifest
    lines = []
    if report.is_complete:
        assert manifest.statistics is not None
        lines.append(f"{report.location}: complete, {_count(manifest.statistics.labelled, 'image')} labelled")
        lines += _fields(_agreement(manifest))
        if manifest.statistics.exif_oriented:
            lines += _fields([("EXIF", f"{_exif(manifest.statistics.exif_oriented)}")])
    elif report.failed_parts:
        lines.append(f"{report.location}: {_count(report.labelled, 'image')} labelled; not finished:")
        lines += [f"  {_failed_part(failed)}" for failed in report.failed_parts]
        lines.append(
            "Mend what the reasons say and run the same command again; relabel-store status has them in full."
        )
    else:
        lines.append(
            f"{report.location}: {_count(report.labelled, 'image')} labelled, "
            f"{_count(report.parts_left, 'part')} left to other shares"
        )
    if report.bad_images:
        lines.append(f"{_count(len(report.bad_images), 'image')} without a label:")
        lines += [f"  {path!r}: {reason}" for path, reason in report.bad_images[:_LISTED_BAD_IMAGES]]
        if len(report.bad_images) > _LISTED_BAD_IMAGES:
            lines.append(f"  and {len(report.bad_images) - _LISTED_BAD_IMAGES} more")
        lines.append(
            "Mend them and run the same command with --on-bad-image retry, or leave them out in training."
        )
    return "\n".join(lines)


def conversion_report(report: ConversionReport) -> str:
    """Return what a conversion did."""
    rate = report.samples / max(report.seconds, 1e-9)
    size = "" if report.size_bytes is None else f", {_bytes(report.size_bytes)}"
    lines = [
        f"{report.location}: {_count(report.samples, 'sample')} from {report.source_form!r} to "
        f"{report.target_form!r}{size}, {_hours(report.seconds)} ({rate:,.0f} samples/s)",
        *report.notes,
    ]
    if report.without_label:
        lines.append(f"{_count(len(report.without_label), 'sample')} without a label:")
        lines += [f"  {name!r}: {reason}" for name, reason in report.without_label[:_LISTED_BAD_IMAGES]]
        if len(report.without_label) > _LISTED_BAD_IMAGES:
            lines.append(f"  and {len(report.without_label) - _LISTED_BAD_IMAGES} more")
    return "\n".join(lines)


def repair_report(report: RepairReport) -> str:
    """Return how a repair ended."""
    lines = [f"part {part.part}: {part.damage}: {_REMEDIES[part.remedy.value]}" for part in report.parts]
    lines += [f"{name}: made again" for name in report.files]
    if report.is_root_new:
        recorded = "none can be read" if report.digest_before is None else report.digest_before
        lines.append(
            f"complete.json was made anew from the files as they are: digest {report.digest_after}, recorded before: "
            f"{recorded}. It is no proof against changes made before the repair"
        )
    elif report.digest_before and report.digest_before != report.digest_after:
        lines.append(f"the store has another digest now, {_short(report.digest_after)}")
    lines += [f"still wrong: {message}" for message in report.left]
    mended = bool(report.parts or report.files)
    if report.is_whole:
        lines.append(f"{report.location}: {'repaired' if mended else 'nothing is damaged'}")
    else:
        lines.append(
            f"{report.location}: not valid; --images labels damaged parts again, --drop leaves them without labels"
        )
    return "\n".join(lines)


def store_summary(summary: StoreSummary) -> str:
    """Return a store in one screen."""
    manifest, form = summary.manifest, summary.form
    label_map, teacher, geometry = manifest.label_map, manifest.teacher, manifest.geometry
    rows, columns = label_map.grid
    step = "float16, exact" if label_map.value_step == "exact" else f"rounded to {label_map.value_step}"
    absent = "0" if label_map.absent.value == "zero" else "an even share of the stored rest"
    fields = [
        (
            "format",
            f"{manifest.format_version}, {form.encoding} {form.version}, compression {form.compression}",
        ),
        ("state", _state(summary)),
        ("labels", f"{rows}x{columns} cells, top {label_map.k} of {label_map.num_classes} classes"),
        ("values", f"{label_map.values}, {step}; a class that is not kept counts as {absent}"),
        (
            "teacher",
            f"{teacher.name} ({_join([teacher.architecture, teacher.tag], '.')}), {teacher.precision}",
        ),
        ("weights", f"{teacher.weights.origin}, {_short(teacher.weights.digest)}"),
        ("dense map", _dense_map(teacher)),
        (
            "images",
            f"{manifest.images.name} ({manifest.images.kind}), {_count(manifest.images.count, 'image')}",
        ),
        (
            "seen",
            _seen(geometry),
        ),
        ("classes", manifest.classes.source or "unknown; give --class-names when building"),
        ("size", _size(summary)),
        ("licence", manifest.licence or "of the labels: not stated"),
        *[("cite", citation) for citation in manifest.citation],
        *_agreement(manifest),
        *_statistics(summary),
    ]
    return "\n".join([manifest.name, *_fields(fields)])


def _state(summary: StoreSummary) -> str:
    text = f"{summary.manifest.state.value}, {_count(summary.labelled, 'sample')} labelled"
    if summary.bad_images:
        text += f", {summary.bad_images:,} without a label"
    if summary.missing:
        text += f", {summary.missing} not yet ({summary.parts_finished} of {_count(summary.parts, 'part')} finished)"
    return text


def _size(summary: StoreSummary) -> str:
    total = f"{_bytes(summary.size_bytes['total'])} in all"
    if summary.bytes_per_sample is None:
        return total
    arrays = " + ".join(
        f"{name} {_bytes(size)}" for name, size in summary.size_bytes.items() if name not in ("total",)
    )
    return f"{summary.bytes_per_sample:,.0f} bytes a sample; {arrays}; {total}"


def _agreement(manifest: Manifest) -> list[tuple[str, str]]:
    statistics = manifest.statistics
    if statistics is None or statistics.agreement is None:
        return []
    agreeing, samples = statistics.agreement.agreeing, statistics.agreement.samples
    return [
        (
            "agreement",
            f"{agreeing / samples:.1%} of {_count(samples, 'image')}: the pooled label is the folder's class",
        )
    ]


def _statistics(summary: StoreSummary) -> list[tuple[str, str]]:
    statistics = summary.manifest.statistics
    if statistics is None or not statistics.labelled:
        return []
    fields = [
        ("distinct", f"{statistics.distinct_classes_mean:.1f} classes win a cell of an image, on average"),
        (
            "range",
            f"values from {statistics.value_min:g} to {statistics.value_max:g}, {_negative(summary)} below 0",
        ),
        ("frequent", _frequencies(summary.most_frequent)),
    ]
    if summary.least_frequent:
        rare = (
            f"{_first_name(entry.name)} {_count(entry.cells, 'cell')}" for entry in summary.least_frequent
        )
        fields.append(("rare", ", ".join(rare)))
    if summary.classes_never_best:
        fields.append(("never best", _count(summary.classes_never_best, "class", "classes")))
    if statistics.exif_oriented:
        fields.append(("EXIF", _exif(statistics.exif_oriented)))
    return fields


def _exif(images: int) -> str:
    return f"{_count(images, 'image')} with an orientation, which was not applied"


def _negative(summary: StoreSummary) -> str:
    assert summary.manifest.statistics is not None
    return f"{summary.manifest.statistics.negative_fraction or 0:.2%}"


def _frequencies(frequencies: Iterable[ClassFrequency]) -> str:
    return ", ".join(f"{_first_name(entry.name)} {entry.fraction:.2%}" for entry in frequencies)


def sample_summary(sample: SampleSummary, plot: Path | None) -> str:
    """Return one sample's classes by area."""
    rows, columns = sample.grid
    fields = [
        ("file", f"{sample.path}, {sample.width}x{sample.height} pixels, row {sample.row}"),
        ("folder", _folder(sample)),
        ("label map", f"{rows}x{columns} cells, {_count(len(sample.classes), 'class', 'classes')} win one"),
    ]
    lines = [sample.sample_id, *_fields(fields), "", f"  {'area':>6}  {'sure':>6}  class"]
    for area in sample.classes[:_LISTED_CLASSES]:
        name = area.name or f"class {area.class_index}"
        lines.append(f"  {area.fraction:6.1%}  {area.confidence:6.1%}  {name} ({area.class_index})")
    if len(sample.classes) > _LISTED_CLASSES:
        others = sample.classes[_LISTED_CLASSES:]
        lines.append(f"  {sum(area.fraction for area in others):6.1%}          {len(others)} other classes")
    if plot is not None:
        lines += ["", f"picture: {plot}"]
    return "\n".join(lines)


def _folder(sample: SampleSummary) -> str:
    if sample.class_name is None:
        return "none"
    known = "no class of the teacher" if sample.class_index is None else f"class {sample.class_index}"
    return f"{sample.class_name} ({known})"


def _fields(fields: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {name:<10} {text}" for name, text in fields]


def _count(n: int, noun: str, plural: str | None = None) -> str:
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def _bytes(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _short(digest: str | None) -> str:
    return "digest unknown" if digest is None else digest[:19] + "…"


def _join(words: Iterable[str | None], separator: str) -> str:
    return separator.join(word for word in words if word) or "not timm's"


def _first_name(name: str) -> str:
    return name.split(",")[0]

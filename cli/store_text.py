"""A store, or a sample of one, as text for people."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .words import byte_count, count, field_lines, short_digest

if TYPE_CHECKING:
    from relabel_store.inspect.summary import ClassFrequency, SampleSummary, StoreSummary
    from relabel_store.manifest import Geometry, Manifest, TeacherInfo

_LISTED_CLASSES = 10


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
        ("weights", f"{teacher.weights.origin}, {short_digest(teacher.weights.digest)}"),
        ("dense map", _dense_map(teacher)),
        (
            "images",
            f"{manifest.images.name} ({manifest.images.kind}), {count(manifest.images.count, 'image')}",
        ),
        (
            "seen",
            _seen(geometry),
        ),
        ("classes", manifest.classes.source or "unknown; give --class-names when building"),
        ("size", _size(summary)),
        ("licence", manifest.licence or "of the labels: not stated"),
        *[("cite", citation) for citation in manifest.citation],
        *agreement(manifest),
        *_statistics(summary),
    ]
    return "\n".join([manifest.name, *field_lines(fields)])


def _state(summary: StoreSummary) -> str:
    text = f"{summary.manifest.state.value}, {count(summary.labelled, 'sample')} labelled"
    if summary.bad_images:
        text += f", {summary.bad_images:,} without a label"
    if summary.missing:
        text += f", {summary.missing} not yet ({summary.parts_finished} of {count(summary.parts, 'part')} finished)"
    return text


def _size(summary: StoreSummary) -> str:
    total = f"{byte_count(summary.size_bytes['total'])} in all"
    if summary.bytes_per_sample is None:
        return total
    arrays = " + ".join(
        f"{name} {byte_count(size)}" for name, size in summary.size_bytes.items() if name not in ("total",)
    )
    return f"{summary.bytes_per_sample:,.0f} bytes a sample; {arrays}; {total}"


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


def agreement(manifest: Manifest) -> list[tuple[str, str]]:
    """Return how often the pooled label is the folder's class, as fields; none where that is not known."""
    statistics = manifest.statistics
    if statistics is None or statistics.agreement is None:
        return []
    agreeing, samples = statistics.agreement.agreeing, statistics.agreement.samples
    return [
        (
            "agreement",
            f"{agreeing / samples:.1%} of {count(samples, 'image')}: the pooled label is the folder's class",
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
        rare = (f"{_first_name(entry.name)} {count(entry.cells, 'cell')}" for entry in summary.least_frequent)
        fields.append(("rare", ", ".join(rare)))
    if summary.classes_never_best:
        fields.append(("never best", count(summary.classes_never_best, "class", "classes")))
    if statistics.exif_oriented:
        fields.append(("EXIF", exif_orientations(statistics.exif_oriented)))
    return fields


def exif_orientations(images: int) -> str:
    """Return in words how many images have an EXIF orientation."""
    return f"{count(images, 'image')} with an orientation, which was not applied"


def _negative(summary: StoreSummary) -> str:
    assert summary.manifest.statistics is not None
    return f"{summary.manifest.statistics.negative_fraction or 0:.2%}"


def _frequencies(frequencies: Iterable[ClassFrequency]) -> str:
    return ", ".join(f"{_first_name(entry.name)} {entry.fraction:.2%}" for entry in frequencies)


def _first_name(name: str) -> str:
    return name.split(",")[0]


def _join(words: Iterable[str | None], separator: str) -> str:
    return separator.join(word for word in words if word) or "not timm's"


def sample_summary(sample: SampleSummary, plot: Path | None) -> str:
    """Return one sample's classes by area."""
    rows, columns = sample.grid
    fields = [
        ("file", f"{sample.path}, {sample.width}x{sample.height} pixels, row {sample.row}"),
        ("folder", _folder(sample)),
        ("label map", f"{rows}x{columns} cells, {count(len(sample.classes), 'class', 'classes')} win one"),
    ]
    lines = [sample.sample_id, *field_lines(fields), "", f"  {'area':>6}  {'sure':>6}  class"]
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

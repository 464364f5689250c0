"""Converting labels from one form into another: what the command calls."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from relabel_store import spec
from relabel_store.convert import formats
from relabel_store.convert.into_files import convert_into_files
from relabel_store.convert.into_store import convert_into_store
from relabel_store.convert.observer import ConversionObserver
from relabel_store.convert.source import LabelSource, Location, SourceOptions
from relabel_store.convert.workers import usable_cores
from relabel_store.errors import OptionError, TargetExistsError
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import AbsentRule, Compression, Encoding
from relabel_store.store.apart import is_inside, require_outside_stores
from relabel_store.store.journal import BadImage
from relabel_store.store.location import is_url, open_files


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes
    ----------
    source_form, target_form
        Names as `formats` has them.
    without_label
        Sample id and reason of those that have none.
    notes
        What was found out about the labels as a whole, and what users of the layout should know.
    seconds
        Of this attempt.
    """

    location: str
    source_form: str
    target_form: str
    samples: int
    without_label: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    size_bytes: int | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types, in ``convert-v1.schema.json``."""
        missing = [{"sample_id": sample_id, "reason": reason} for sample_id, reason in self.without_label]
        return {**asdict(self), "without_label": missing, "notes": list(self.notes)}


def convert(
    source: Location,
    destination: Location,
    *,
    source_form: str | None = None,
    target_form: str | None = None,
    images: str | os.PathLike[str] | None = None,
    value_step: str | float | None = None,
    absent: AbsentRule | str | None = None,
    class_names: Path | None = None,
    num_classes: int | None = None,
    compression: Compression | str | None = None,
    workers: int | None = None,
    observer: ConversionObserver | None = None,
) -> ConversionReport:
    """Convert labels from one form into another; an interrupted conversion goes on when it is called again.

    Parameters
    ----------
    source
        A store of ours, or labels of another form.
    destination
        Where they are written; nothing else may be there.
    source_form, target_form
        Names as `formats` has them; None recognises the source, and takes the target from the destination's end.
    images
        The images that were labelled: their ids, classes and sizes are joined, and the maps held against them.
    value_step
        ``"exact"`` or a power of two. None rounds foreign labels to 1/8 and leaves those of a store as they are.
    absent
        What a class counts as that the labels do not hold.
    class_names
        A file with the teacher's classes in order.
    num_classes
        How many classes the teacher tells apart.
    compression
        How hard to try to make a store small; None is fast.
    workers
        Processes; None takes as many as there are cores.

    Raises
    ------
    LabelSourceError
        The labels are of no known form, or cannot be used as a whole.
    OptionError
        An option that is out of range, or means nothing for these forms.
    TargetExistsError
        Something else is at the destination, or it lies in the source, among the images, or in a store.
    SettingsChangedError
        Another conversion was begun there.
    """
    started = time.monotonic()
    if workers is not None and workers < 1:
        raise OptionError(f"workers: {workers}, expected 1 or more")
    observer = ConversionObserver() if observer is None else observer
    target = formats.target_named_by(destination) if target_form is None else target_form
    options = SourceOptions(
        value_step=None if value_step is None else ValueStep.parse(value_step),
        absent=None if absent is None else AbsentRule(absent),
        class_names=class_names,
        num_classes=num_classes,
        images=None if images is None else os.fspath(images),
    )
    _require_apart(destination, source, options.images)
    form, opened = formats.open_source(source, source_form, options)
    observer.on_source(form, opened)
    count = usable_cores() if workers is None else workers
    if target in spec.ENCODING_VERSIONS:
        report = _into_store(opened, destination, target, compression, count, observer)
    else:
        report = _into_files(opened, destination, target, compression, count, observer)
    without_label, size_bytes, notes = report
    return ConversionReport(
        location=os.fspath(destination),
        source_form=form,
        target_form=target,
        samples=opened.manifest.num_samples,
        without_label=without_label,
        notes=(*opened.notes, *notes),
        size_bytes=size_bytes,
        seconds=time.monotonic() - started,
    )


def _require_apart(destination: Location, source: Location, images: str | None) -> None:
    """Check that what is written does not become part of what is read, nor of a store."""
    if is_url(destination):
        return
    path = open_files(destination).path
    assert path is not None
    for what, location in (("labels", source), ("images", images)):
        if is_inside(path, location):
            raise TargetExistsError(
                f"output {os.fspath(destination)!r}: lies in the {what} {str(location)!r}, of which it would become a "
                "part; choose a path outside of it"
            )
    require_outside_stores(path)


_Outcome = tuple[tuple[tuple[str, str], ...], int | None, tuple[str, ...]]  # without label, bytes, notes


def _into_store(
    source: LabelSource,
    destination: Location,
    encoding: str,
    compression: Compression | str | None,
    workers: int,
    observer: ConversionObserver,
) -> _Outcome:
    how = Encoding.of(encoding, Compression.FAST if compression is None else Compression(compression))
    writer = convert_into_store(source, open_files(destination), how, workers=workers, observer=observer)
    bad = (bad for record in writer.records().values() for bad in record.bad_images)
    size = sum(entry.size_bytes for record in writer.records().values() for entry in record.files.values())
    return _named(source, bad), size, ()


def _into_files(
    source: LabelSource,
    destination: Location,
    form: str,
    compression: Compression | str | None,
    workers: int,
    observer: ConversionObserver,
) -> _Outcome:
    if compression is not None:
        raise OptionError(f"compression: means nothing for {form!r}; it is for stores, leave it out")
    if is_url(destination):
        raise OptionError(
            f"output {str(destination)!r}: {form!r} is written to this machine's disks only; give a path"
        )
    outcome = convert_into_files(
        source, Path(destination), form, formats.target_maker(form), workers=workers, observer=observer
    )
    return _named(source, outcome.without_label), None, outcome.notes


def _named(source: LabelSource, without_label: Iterable[BadImage]) -> tuple[tuple[str, str], ...]:
    ids = source.samples["sample_id"]
    return tuple((ids[bad.row].as_py(), bad.reason) for bad in without_label)

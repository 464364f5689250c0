"""What a build tells while it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relabel_store.images.source import ImageSource
    from relabel_store.manifest import TeacherInfo


@dataclass(frozen=True)
class BatchReport:
    """What a batch adds to the progress of a build."""

    samples: int
    bad_images: int
    known_class: int  # samples whose folder is a class of the teacher
    agreeing: int  # those whose pooled label is that class

    @classmethod
    def total(cls, reports: Iterable[BatchReport]) -> BatchReport:
        """Return what several batches add together."""
        counts = [astuple(report) for report in reports]
        return cls(*(sum(column) for column in zip(*counts, strict=True))) if counts else cls(0, 0, 0, 0)


class BuildObserver:
    """What a build tells while it runs; every method may be overridden, none has to be."""

    def on_images(self, source: ImageSource) -> None:
        """The images are listed."""

    def on_teacher(self, teacher: TeacherInfo) -> None:
        """The teacher is loaded and checked."""

    def on_start(self, *, samples: int, finished_samples: int, parts: int) -> None:
        """Labelling starts; the samples and parts of this share."""

    def on_batch(self, report: BatchReport) -> None:
        """A batch is labelled."""

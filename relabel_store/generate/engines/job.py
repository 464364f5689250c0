"""What a process elsewhere needs to label parts of a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from relabel_store.generate.device import choose_device, default_workers
from relabel_store.generate.load import load_teacher
from relabel_store.generate.observer import BatchReport
from relabel_store.generate.part import PartLabeller
from relabel_store.generate.precision import Precision
from relabel_store.generate.teacher import Teacher, compile_teacher
from relabel_store.generate.teacher_options import TeacherOptions
from relabel_store.images.source import ImageSource
from relabel_store.store.files import StoreFiles
from relabel_store.store.writer import StoreWriter


@dataclass(frozen=True)
class LabelJob:
    """Teacher, images and store: it can be pickled, and means the same on any host.

    Parameters
    ----------
    images
        As they were listed by whoever began the build, `detached`. Who listed them anew would take longer, and may find
        others by now.
    files
        Of a store that was begun.
    device
        As for `build`; one GPU of those that the process sees.
    workers
        Processes that decode images for each that labels; None chooses by the device.
    """

    teacher: str | Teacher
    teacher_options: TeacherOptions
    images: ImageSource
    files: StoreFiles
    device: str
    workers: int | None
    is_absent_rule_named: bool
    stop_on_bad_image: bool

    @property
    def decoders(self) -> int:
        """Processes that decode images on the node that this is asked on."""
        return default_workers(choose_device(self.device)) if self.workers is None else self.workers

    def start(self, on_batch: Callable[[BatchReport], None] | None = None) -> PartLabeller:
        """Load the teacher and open the store."""
        device = choose_device(self.device)
        teacher = load_by_name(self.teacher, self.teacher_options)
        teacher.to(device)
        writer = StoreWriter.resume(self.files)
        assert writer.manifest.build is not None
        if writer.manifest.build.is_compiled:
            precision = Precision(writer.manifest.teacher.precision)
            compile_teacher(teacher, device, precision, writer.manifest.build.batch_size)
        return PartLabeller(
            teacher,
            self.images,
            writer,
            device=device,
            is_absent_rule_named=self.is_absent_rule_named,
            stop_on_bad_image=self.stop_on_bad_image,
            on_batch=on_batch,
        )


def load_by_name(teacher: str | Teacher, options: TeacherOptions) -> Teacher:
    """Return a teacher that is given by name, or as it is."""
    return load_teacher(teacher, options) if isinstance(teacher, str) else teacher

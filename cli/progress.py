"""The progress of long commands: a line on a terminal, and lines in the log."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from relabel_store.convert.observer import ConversionObserver
from relabel_store.generate.observer import BuildObserver
from relabel_store.validate.stage import ValidationObserver

if TYPE_CHECKING:
    from relabel_store.convert.source import LabelSource
    from relabel_store.generate.observer import BatchReport
    from relabel_store.images.source import ImageSource
    from relabel_store.manifest import TeacherInfo
    from relabel_store.validate.rule import Level

log = logging.getLogger("relabel_store.build")

_LOG_EVERY_S = 30.0
_FOLDERS = ("class-folders", "folder")
_NO_PATHS = ("positions", "file names")  # what a folder of the same images need not call them


@contextlib.contextmanager
def show_progress(*, is_quiet: bool) -> Iterator[BuildObserver]:
    """Yield an observer that shows a build on stderr, where that is a terminal, and in the log."""
    with _progress_bar("labelling", is_quiet=is_quiet) as bar:
        yield _ProgressObserver(bar, is_quiet=is_quiet)


@contextlib.contextmanager
def show_conversion(*, is_quiet: bool) -> Iterator[ConversionObserver]:
    """Yield an observer that shows a conversion on stderr, where that is a terminal, and in the log."""
    with _progress_bar("converting", is_quiet=is_quiet) as bar:
        yield _ConversionProgress(bar)


def _progress_bar(verb: str, *, is_quiet: bool) -> Progress:
    return Progress(
        TextColumn(verb),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=is_quiet or not sys.stderr.isatty(),
    )


class _ConversionProgress(ConversionObserver):
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, facts="", visible=False)
        self._written = 0
        self._started = time.monotonic()

    def on_source(self, form: str, source: LabelSource) -> None:
        text = f"{source.manifest.num_samples:,} label maps of the form {form!r}"
        log.info(text)
        if not self._bar.disable:
            self._bar.console.print(text, highlight=False, soft_wrap=True)

    def on_start(self, samples: int, finished_samples: int) -> None:
        self._started = time.monotonic()
        if finished_samples:
            log.info("going on: %d of %d samples are converted already", finished_samples, samples)
        self._bar.update(self._task, total=samples, completed=finished_samples, visible=True)

    def on_part(self, samples: int) -> None:
        self._written += samples
        rate = self._written / max(time.monotonic() - self._started, 1e-9)
        self._bar.update(self._task, advance=samples, facts=f"{rate:,.0f} samples/s")


@contextlib.contextmanager
def show_validation(*, is_quiet: bool) -> Iterator[ValidationObserver]:
    """Yield an observer that shows a validation on stderr, where that is a terminal."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=is_quiet or not sys.stderr.isatty(),
    )
    with bar:
        yield _ValidationBar(bar)


class _ValidationBar(ValidationObserver):
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, visible=False)

    def on_start(self, *, level: Level, parts: int) -> None:
        self._bar.reset(self._task, total=parts, description=level.value, visible=parts > 0)

    def on_part(self) -> None:
        self._bar.advance(self._task)


class _ProgressObserver(BuildObserver):
    def __init__(self, bar: Progress, *, is_quiet: bool) -> None:
        self._bar = bar
        self._is_quiet = is_quiet
        self._task = bar.add_task("", total=None, facts="", visible=False)
        self._labelled = self._known = self._agreeing = self._bad = 0
        self._started = self._logged = time.monotonic()

    def on_images(self, source: ImageSource) -> None:
        text = f"{len(source)} images in {source.name!r} ({source.kind}), sample ids from {source.ids_from}"
        if source.ids_from in _NO_PATHS:
            text += ", which a folder of the same images need not have; SHA-256 joins those (sample_ids_by_digest)"
        log.info(text)
        # What was recognised is no progress: it is said where stderr is a file too, unless nothing had to be.
        is_recognised = source.kind not in _FOLDERS
        if not self._bar.disable or (is_recognised and not self._is_quiet):
            self._bar.console.print(text, highlight=False, soft_wrap=True)

    def on_teacher(self, teacher: TeacherInfo) -> None:
        error = teacher.dense.identity_error
        identity = "" if error is None else f", identity error {error:.1e}"
        self._say(
            f"teacher {teacher.name} on {teacher.device} in {teacher.precision}, {teacher.dense.kind}{identity}"
        )

    def on_start(self, *, samples: int, finished_samples: int, parts: int) -> None:
        if finished_samples:
            self._say(f"going on: {finished_samples} of {samples} images are labelled already")
        self._started = self._logged = time.monotonic()
        self._bar.update(self._task, total=samples, completed=finished_samples, visible=parts > 0)

    def on_batch(self, report: BatchReport) -> None:
        self._labelled += report.samples
        self._known += report.known_class
        self._agreeing += report.agreeing
        self._bad += report.bad_images
        self._bar.update(self._task, advance=report.samples, facts=self._facts())
        if time.monotonic() - self._logged > _LOG_EVERY_S:
            self._logged = time.monotonic()
            task = self._bar.tasks[self._task]
            left = (
                "" if task.time_remaining is None else f", {timedelta(seconds=int(task.time_remaining))} left"
            )
            log.info("%d of %d images, %s%s", task.completed, task.total or 0, self._facts(), left)

    def _facts(self) -> str:
        elapsed_s = max(time.monotonic() - self._started, 1e-9)
        facts = [f"{self._labelled / elapsed_s:.1f} images/s"]
        if self._known:
            facts.append(f"agreement {self._agreeing / self._known:.1%}")
        if self._bad:
            facts.append(f"{self._bad} bad")
        return ", ".join(facts)

    def _say(self, text: str) -> None:
        log.info(text)
        if not self._bar.disable:
            self._bar.console.print(text, highlight=False)

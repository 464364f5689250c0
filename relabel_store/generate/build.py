"""The build: from a teacher and images to a finished store, once or in pieces."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

import torch

from relabel_store import spec
from relabel_store.errors import NotEnoughSpaceError, OptionError, TeacherError
from relabel_store.generate.batch_size import best_batch_size
from relabel_store.generate.engines.local import label_locally
from relabel_store.generate.images import ImageSource, open_images
from relabel_store.generate.limit import LimitedImages
from relabel_store.generate.load import TeacherOptions, load_teacher, planned_input_size
from relabel_store.generate.observer import BuildObserver
from relabel_store.generate.part import PartLabeller
from relabel_store.generate.precision import Precision
from relabel_store.generate.profile import Profile
from relabel_store.generate.resume import require_same_images, require_same_labels
from relabel_store.generate.scoring import Scorer
from relabel_store.generate.share import Share, hold_share
from relabel_store.generate.teacher import Teacher, check_identity, compile_teacher, probe_grid
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import (
    AbsentRule,
    BuildInfo,
    Dense,
    Geometry,
    ImagesInfo,
    LabelSpec,
    Layout,
    Manifest,
    TeacherInfo,
)
from relabel_store.sample_ids import digest_of_ids
from relabel_store.store.samples import planned_samples
from relabel_store.store.writer import StoreWriter, is_store, require_free_target

log = logging.getLogger("relabel_store.build")

_CPU_BATCH = 8
_MAX_CUDA_WORKERS = 16
# Measured at 15x15x5 in the exact form, the largest: 2,600 bytes a sample of 1,125 pairs; the sample table
# takes 60 more with ImageNet's names.
_BYTES_PER_PAIR = 2.5
_BYTES_PER_SAMPLE = 200
_USUAL_STRIDE = 32  # pixels a cell, of nearly every classifier


class OnBadImage(StrEnum):
    """What to do about an image that cannot be decoded."""

    RECORD = "record"
    STOP = "stop"
    RETRY = "retry"  # record new ones, and try those again that an earlier run recorded


@dataclass(frozen=True)
class BuildOptions:
    """What a build may be told besides teacher, images and output.

    Parameters
    ----------
    top_k
        Classes kept a cell; at most the class count.
    absent
        None is ``zero``, with a look at the first batch.
    name, licence, citation
        Of the labels, for the manifest.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
    precision
        None is bf16 on a GPU that has it, fp32 elsewhere.
    batch_size, workers
        Images a batch; processes that decode. None chooses by the device: on a GPU, the batch is the
        largest that fits and still gains.
    compile
        Compile the teacher's features.
    limit
        Label only so many images, spread evenly over all of them.
    """

    top_k: int = spec.DEFAULT_K
    value_step: ValueStep = field(default_factory=lambda: ValueStep(spec.DEFAULT_VALUE_STEP))
    absent: AbsentRule | None = None
    name: str | None = None
    licence: str | None = None
    citation: tuple[str, ...] = ()
    device: str = "auto"
    precision: Precision | None = None
    batch_size: int | None = None
    workers: int | None = None
    compile: bool = False
    shard_rows: int = spec.SHARD_ROWS
    limit: int | None = None
    on_bad_image: OnBadImage = OnBadImage.RECORD
    share: Share = field(default_factory=Share)

    def __post_init__(self) -> None:
        for name, value, least in (
            ("top_k", self.top_k, 1),
            ("batch_size", self.batch_size, 1),
            ("workers", self.workers, 0),
            ("shard_rows", self.shard_rows, 1),
            ("limit", self.limit, 1),
        ):
            if value is not None and value < least:
                raise OptionError(f"{name}: {value}, expected at least {least}")
        for name, text in (
            ("name", self.name),
            ("licence", self.licence),
            ("citation", " ".join(self.citation)),
        ):
            if text is not None and not _is_utf8(text):
                raise OptionError(f"{name}: {text!r}, expected text that is UTF-8")
        if self.shard_rows > spec.CHUNK_ROWS and self.shard_rows % spec.CHUNK_ROWS:
            raise OptionError(
                f"shard_rows: {self.shard_rows}, expected a multiple of {spec.CHUNK_ROWS}, the rows of a chunk, "
                f"or at most {spec.CHUNK_ROWS}"
            )


@dataclass(frozen=True)
class BuildReport:
    """How a build ended.

    Parameters
    ----------
    is_complete
        Whether the store is finished; a share may leave parts to the others.
    labelled
        Samples labelled by this run.
    bad_images
        Path and reason of every image of the store that has no label.
    profile
        Where the time of this run went; None where nothing was left to label.
    """

    path: Path
    manifest: Manifest
    is_complete: bool
    labelled: int
    parts_left: int
    bad_images: tuple[tuple[str, str], ...]
    profile: Profile | None = None


def build(
    teacher: str | Teacher,
    images: str | os.PathLike[str] | ImageSource,
    out: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    class_names: str | os.PathLike[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    interpolation: str | None = None,
    top_k: int = spec.DEFAULT_K,
    value_step: float | str = spec.DEFAULT_VALUE_STEP,
    absent: str | None = None,
    name: str | None = None,
    licence: str | None = None,
    citation: Sequence[str] = (),
    device: str = "auto",
    precision: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    compile: bool = False,  # noqa: A002 - the option's name
    shard_rows: int = spec.SHARD_ROWS,
    limit: int | None = None,
    on_bad_image: str = "record",
    share: str | None = None,
    observer: BuildObserver | None = None,
) -> BuildReport:
    """Label images with a teacher and write a store, or go on with one.

    The keywords are the options of ``relabel-store build``.

    Parameters
    ----------
    teacher
        A name for `load_teacher`, or any object that is a `Teacher`.
    images
        Path or URL of a folder, tar, Parquet files, shards or a list: see `open_images`; or any `ImageSource`.
    out
        Path of the store. An unfinished store there is gone on with, a finished one is left as it is.
    weights, class_names, input_size, mean, std, interpolation
        Of a teacher that is given by name: see `TeacherOptions`.
    value_step
        Spacing of the stored values, a power of two, or ``"exact"``.
    absent
        ``"zero"`` or ``"rest"``; None is ``"zero"``, after a look at the first batch.
    precision
        ``"fp32"``, ``"bf16"`` or ``"fp16"``; None is bf16 on a GPU that has it, fp32 elsewhere.
    limit
        Label only so many images, spread evenly over all of them.
    on_bad_image
        ``"record"``, ``"stop"`` or ``"retry"``.
    share
        ``"I/N"``: build every N-th part, beginning with part I.
    observer
        Is told what happens.

    Raises
    ------
    OptionError
        An option is out of range (a plain `ValueError` where it is none of the choices).
    TargetExistsError, ImageSourceError, NotEnoughSpaceError
        Before the teacher is loaded.
    TeacherError
        The teacher cannot be used.
    SettingsChangedError, ImagesChangedError
        The store at `out` was begun with other labels or images in mind.
    StoreBusyError
        Another process of this host builds the same share.
    ImageReadError, BadImageStop, AbsentRuleError, ValueRangeError
        While labelling; the parts that are finished stay.

    Examples
    --------
    >>> import relabel_store                                                            # doctest: +SKIP
    >>> report = relabel_store.build("efficientnet_l2", "imagenet/train", "l2.zarr")    # doctest: +SKIP
    """
    options = BuildOptions(
        top_k=top_k,
        value_step=ValueStep.parse(value_step),
        absent=None if absent is None else AbsentRule(absent),
        name=name,
        licence=licence,
        citation=tuple(citation),
        device=device,
        precision=None if precision is None else Precision(precision),
        batch_size=batch_size,
        workers=workers,
        compile=compile,
        shard_rows=shard_rows,
        limit=limit,
        on_bad_image=OnBadImage(on_bad_image),
        share=Share() if share is None else Share.parse(share),
    )
    teacher_options = TeacherOptions(
        weights=None if weights is None else Path(weights),
        class_names=None if class_names is None else Path(class_names),
        input_size=input_size,
        mean=mean,
        std=std,
        interpolation=interpolation,
    )
    return _Build(Path(out), options, teacher_options, observer or BuildObserver()).run(teacher, images)


@dataclass(frozen=True)
class _Build:
    path: Path
    options: BuildOptions
    teacher_options: TeacherOptions
    observer: BuildObserver

    def run(self, teacher: str | Teacher, images: str | os.PathLike[str] | ImageSource) -> BuildReport:
        if isinstance(teacher, str):
            size = planned_input_size(teacher, self.teacher_options)
        elif self.teacher_options != TeacherOptions():
            raise TeacherError("teacher: options are given, but a teacher that is an object has its own")
        else:
            size = teacher.facts.input.size
        require_free_target(self.path)
        device = choose_device(self.options.device)
        source = self._open_images(images)
        self.observer.on_images(source)
        if not is_store(self.path):
            self._require_space(
                len(source), (size[0] // _USUAL_STRIDE, size[1] // _USUAL_STRIDE) if size else (15, 15)
            )
        with hold_share(self.path, self.options.share):
            loaded = load_teacher(teacher, self.teacher_options) if isinstance(teacher, str) else teacher
            loaded.to(device)
            manifest = self._describe(loaded, source, device)
            self.observer.on_teacher(manifest.teacher)
            writer = self._open_writer(manifest, source)
            if self.options.compile:  # after the checks, which look at batches of other sizes
                assert writer.manifest.build is not None
                precision = Precision(writer.manifest.teacher.precision)
                compile_teacher(loaded, device, precision, writer.manifest.build.batch_size)
            return self._label(writer, loaded, source, device)

    def _open_images(self, images: str | os.PathLike[str] | ImageSource) -> ImageSource:
        source = open_images(images, beside=self.path) if isinstance(images, str | os.PathLike) else images
        limit = self.options.limit
        return source if limit is None or limit >= len(source) else LimitedImages(source, limit)

    def _require_space(self, samples: int, grid: tuple[int, int]) -> None:
        pairs = self.options.top_k * grid[0] * grid[1]
        needed = int(samples * (pairs * _BYTES_PER_PAIR + _BYTES_PER_SAMPLE))
        existing = next(parent for parent in (self.path, *self.path.absolute().parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        if free < needed:
            raise NotEnoughSpaceError(
                f"output {str(self.path)!r}: {free / 1e6:,.1f} MB free, about {needed / 1e6:,.1f} MB needed for "
                f"{samples} images at {grid[0]}x{grid[1]} cells and top {self.options.top_k}; free some or use --limit"
            )

    def _describe(self, teacher: Teacher, source: ImageSource, device: torch.device) -> Manifest:
        """Return the manifest that a new build with these arguments begins with."""
        options, facts = self.options, teacher.facts
        if options.top_k > facts.num_classes:
            raise OptionError(
                f"top_k: {options.top_k}, expected at most {facts.num_classes}, the teacher's class count"
            )
        precision = options.precision or _best_precision(device)
        error = check_identity(teacher, device)
        grid = probe_grid(teacher, device)
        if not is_store(self.path):
            self._require_space(len(source), grid)
        chunk_rows = min(spec.CHUNK_ROWS, options.shard_rows)
        whole_chunks = -(-len(source) // chunk_rows) * chunk_rows
        return Manifest(
            name=options.name or f"{source.name}, {facts.name}",
            licence=options.licence,
            citation=options.citation,
            num_samples=len(source),
            label_map=LabelSpec(
                grid=grid,
                k=options.top_k,
                num_classes=facts.num_classes,
                value_step=options.value_step.to_json(),
                absent=options.absent or AbsentRule.ZERO,
            ),
            classes=facts.classes,
            geometry=Geometry(
                input_size=facts.input.size,
                interpolation=facts.input.interpolation.value,
                mean=facts.input.mean,
                std=facts.input.std,
            ),
            teacher=TeacherInfo(
                name=facts.name,
                architecture=facts.architecture,
                tag=facts.tag,
                weights=facts.weights,
                dense=Dense(facts.dense_kind, error),
                precision=precision.value,
                device=device.type,
                versions=_versions(),
            ),
            images=ImagesInfo(
                source.name, source.kind, len(source), digest_of_ids(source.sample_ids), source.order
            ),
            layout=Layout(shard_rows=min(options.shard_rows, whole_chunks), chunk_rows=chunk_rows),
            build=BuildInfo(
                batch_size=options.batch_size or self._best_batch_size(teacher, device, precision),
                threads=torch.get_num_threads(),
                is_compiled=options.compile,
            ),
        )

    def _best_batch_size(self, teacher: Teacher, device: torch.device, precision: Precision) -> int:
        if device.type != "cuda" or is_store(self.path):  # that was begun with one of its own
            return _CPU_BATCH
        options = self.options
        with_rest = options.absent is AbsentRule.REST
        scorer = Scorer(teacher, device, precision=precision, k=options.top_k, with_rest=with_rest)
        found = best_batch_size(scorer, teacher.facts.input.size)
        log.info("%d images a batch: the largest that fits and still gains", found)
        return found

    def _open_writer(self, manifest: Manifest, source: ImageSource) -> StoreWriter:
        if is_store(self.path):
            writer = StoreWriter.resume(self.path)
        else:
            samples = planned_samples(
                source.sample_ids, source.paths, source.class_names, manifest.classes.index_of_folder()
            )
            writer = StoreWriter.begin(self.path, manifest, samples)
        require_same_labels(
            writer.manifest, manifest, is_batch_size_given=self.options.batch_size is not None
        )
        _drop_damaged_parts(writer)
        require_same_images(writer, source)
        if self.options.on_bad_image is OnBadImage.RETRY:
            _drop_bad_parts(writer, self.options.share)
        return writer

    def _label(
        self, writer: StoreWriter, teacher: Teacher, source: ImageSource, device: torch.device
    ) -> BuildReport:
        missing = self.options.share.of(writer.missing_parts())
        mine = self.options.share.of(range(writer.manifest.num_parts))
        samples = sum(len(writer.manifest.rows_of_part(part)) for part in mine)
        to_do = sum(len(writer.manifest.rows_of_part(part)) for part in missing)
        self.observer.on_start(samples=samples, finished_samples=samples - to_do, parts=len(missing))
        profile = self._label_parts(writer, teacher, source, device, missing) if missing else None
        left = writer.missing_parts()
        if not left:
            writer.complete()
        bad = sorted(
            (bad.row, bad.reason) for record in writer.records().values() for bad in record.bad_images
        )
        return BuildReport(
            path=self.path,
            manifest=writer.manifest,
            is_complete=not left,
            labelled=to_do,
            parts_left=len(left),
            bad_images=tuple((source.paths[row], reason) for row, reason in bad),
            profile=profile,
        )

    def _label_parts(
        self,
        writer: StoreWriter,
        teacher: Teacher,
        source: ImageSource,
        device: torch.device,
        parts: Sequence[int],
    ) -> Profile:
        labeller = PartLabeller(
            teacher,
            source,
            writer,
            device=device,
            is_absent_rule_named=self.options.absent is not None,
            stop_on_bad_image=self.options.on_bad_image is OnBadImage.STOP,
            on_batch=self.observer.on_batch,
        )
        assert writer.manifest.build is not None
        workers = _default_workers(device) if self.options.workers is None else self.options.workers
        started = time.perf_counter()
        with _fixed_arithmetic(writer.manifest.build.threads):
            for record in label_locally(labeller, parts, workers=workers):
                log.info(
                    "part %d of %d finished: %d rows",
                    record.part,
                    writer.manifest.num_parts,
                    len(record.rows),
                )
        labeller.profile.wall_s = time.perf_counter() - started
        return labeller.profile


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def choose_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is the first GPU, or the CPU.

    Raises
    ------
    OptionError
        It names no device.
    TeacherError
        There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise OptionError(f"device: {name!r}, expected auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise OptionError(f"device: {name!r}, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TeacherError(f"device: {name!r}, but {torch.cuda.device_count()} CUDA devices are visible here")
    return device


def _best_precision(device: torch.device) -> Precision:
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return Precision.BF16
    return Precision.FP32


def _default_workers(device: torch.device) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # On the CPU the teacher needs the cores itself, and one decoder outruns it many times.
    return min(cores, _MAX_CUDA_WORKERS) if device.type == "cuda" else 1


@contextlib.contextmanager
def _fixed_arithmetic(threads: int) -> Iterator[None]:
    """Make the teacher's arithmetic repeatable to the bit while the block runs."""
    threads_before = torch.get_num_threads()
    cudnn = torch.backends.cudnn
    torch.set_num_threads(threads)
    try:
        with cudnn.flags(
            enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=cudnn.allow_tf32
        ):
            yield
    finally:
        torch.set_num_threads(threads_before)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("relabel-store", "torch", "timm", "Pillow")}


def _drop_damaged_parts(writer: StoreWriter) -> None:
    damaged = writer.damaged_parts()
    for part, what in damaged.items():
        log.warning("part %d is damaged and labelled anew: %s", part, what)
    if damaged:
        writer.drop_parts(damaged)


def _drop_bad_parts(writer: StoreWriter, share: Share) -> None:
    bad = share.of([part for part, record in writer.records().items() if record.bad_images])
    if bad:
        log.info("%d parts hold bad images and are labelled anew", len(bad))
        writer.drop_parts(bad)


__all__ = ["BuildObserver", "BuildOptions", "BuildReport", "OnBadImage", "build", "choose_device"]

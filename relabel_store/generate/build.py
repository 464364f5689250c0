"""The build: from a teacher and images to a finished store, once or in pieces."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from relabel_store import spec
from relabel_store.errors import OptionError, TeacherError
from relabel_store.generate.arithmetic import fixed_arithmetic
from relabel_store.generate.build_options import BuildOptions, Engine, OnBadImage
from relabel_store.generate.build_report import BuildReport
from relabel_store.generate.describe import describe_build
from relabel_store.generate.device import (
    choose_device,
    choose_devices,
    default_workers,
)
from relabel_store.generate.engines.devices import build_shares
from relabel_store.generate.engines.job import LabelJob, load_by_name
from relabel_store.generate.engines.local import label_locally
from relabel_store.generate.forecast import make_forecast
from relabel_store.generate.limit import open_limited
from relabel_store.generate.load import planned_input_size
from relabel_store.generate.observer import BuildObserver
from relabel_store.generate.part import PartLabeller
from relabel_store.generate.precision import Precision
from relabel_store.generate.profile import Profile
from relabel_store.generate.resume import require_same_images, require_same_labels
from relabel_store.generate.room import free_bytes, require_room
from relabel_store.generate.share import Share, hold_share
from relabel_store.generate.target import require_apart
from relabel_store.generate.teacher import Teacher, compile_teacher
from relabel_store.generate.teacher_options import TeacherOptions
from relabel_store.images.source import ImageSource, detached
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import (
    AbsentRule,
    Manifest,
)
from relabel_store.store.files import StoreFiles
from relabel_store.store.journal import PartRecord
from relabel_store.store.location import open_files
from relabel_store.store.occupied import is_store, require_free_target
from relabel_store.store.running import FailedPart, note_failure
from relabel_store.store.samples import planned_samples
from relabel_store.store.writer import StoreWriter

log = logging.getLogger("relabel_store.build")

_USUAL_STRIDE = 32  # pixels a cell, of nearly every classifier


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
    head: str | None = None,
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
    flip: bool = False,
    encoding: str | None = None,
    shard_rows: int = spec.SHARD_ROWS,
    limit: int | None = None,
    on_bad_image: str = "record",
    share: str | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    ray_workers: int | None = None,
    dry_run: bool = False,
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
        Path of the store, or its ``s3://`` or ``gs://`` URL as text. An unfinished store there is gone on with, a
        finished one is left as it is.
    weights, class_names, input_size, mean, std, interpolation, head
        Of a teacher that is given by name: see `TeacherOptions`.
    value_step
        Spacing of the stored values, a power of two, or ``"exact"``.
    absent
        ``"zero"`` or ``"rest"``; None is ``"zero"``, after a look at the first batch.
    precision
        ``"fp32"``, ``"bf16"`` or ``"fp16"``; None is bf16 on a GPU that has it, fp32 elsewhere.
    flip
        Average each map with that of the mirror image, mirrored back, before the best classes are chosen.
    encoding
        ``"zarr"``, ``"parquet"`` or ``"packed"``; None is what `out` ends in, as in ``labels.parquet``, else Zarr.
    limit
        Label only so many images, spread evenly over all of them.
    on_bad_image
        ``"record"``, ``"stop"`` or ``"retry"``.
    share
        ``"I/N"``: build every N-th part, beginning with part I. ``"auto"``: what torchrun or a Slurm array gives
        to this process.
    engine, ray_address, ray_workers
        ``"local"``: label in this process. ``"ray"``: on the workers of a Ray cluster, by default one of this
        machine, so many parts at once.
    dry_run
        Label three batches, say in the report's `forecast` what the build will take, and make no store.
    observer
        Is told what happens.

    Raises
    ------
    OptionError
        An option is out of range (a plain `ValueError` where it is none of the choices).
    ObjectStoreError
        An object store cannot be reached, or refuses; finished parts stay.
    TargetExistsError, ImageSourceError, NotEnoughSpaceError
        Before the teacher is loaded.
    TeacherError
        The teacher cannot be used.
    SettingsChangedError, ImagesChangedError
        The store at `out` was begun with other labels or images in mind.
    StoreBusyError
        Another process of this host builds the same share.
    EngineError, MissingDependencyError
        There is no such cluster, or no Ray.
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
        flip=flip,
        encoding=encoding,
        shard_rows=shard_rows,
        limit=limit,
        on_bad_image=OnBadImage(on_bad_image),
        share=Share() if share is None else Share.parse(share),
        engine=Engine(engine),
        ray_address=ray_address,
        ray_workers=ray_workers,
        dry_run=dry_run,
    )
    teacher_options = TeacherOptions(
        weights=None if weights is None else Path(weights),
        class_names=None if class_names is None else Path(class_names),
        input_size=input_size,
        mean=mean,
        std=std,
        interpolation=interpolation,
        head=head,
    )
    return _Build(open_files(out), options, teacher_options, observer or BuildObserver()).run(teacher, images)


@dataclass(frozen=True)
class _Build:
    files: StoreFiles
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
        require_free_target(self.files)
        require_apart(self.files, images)
        if self.options.share == Share():
            _point_out_shares()
        # Before a million images are listed.
        devices = choose_devices(self.options.device) if self.options.engine is Engine.LOCAL else []
        if self.options.engine is Engine.RAY and isinstance(images, str | os.PathLike):
            images = _wherever(images)  # workers are in another directory
        source = open_limited(images, self.options.limit, self.files)
        self.observer.on_images(source)
        if not is_store(self.files):
            grid = (size[0] // _USUAL_STRIDE, size[1] // _USUAL_STRIDE) if size else (15, 15)
            require_room(self.files, self.options, len(source), grid)
        if self.options.dry_run:
            return self._look_ahead(teacher, source, devices)
        if len(devices) > 1:
            return self._label_on_devices(devices, teacher, source)
        label = self._label_on_ray if self.options.engine is Engine.RAY else self._label_here
        with hold_share(self.files.path, self.options.share):
            return label(teacher, source)

    def _label_here(self, teacher: str | Teacher, source: ImageSource) -> BuildReport:
        device = choose_device(self.options.device)
        loaded = load_by_name(teacher, self.teacher_options)
        loaded.to(device)
        writer, missing = self._plan(describe_build(loaded, source, device, self.options, self.files), source)
        if not missing:
            return self._report(writer, missing)
        labeller = self._labeller(loaded, source, writer, device)
        started = time.perf_counter()
        with fixed_arithmetic(labeller.threads):
            for record in label_locally(labeller, missing, workers=self._workers(device)):
                _log_part(record, writer)
        labeller.profile.wall_s = time.perf_counter() - started
        return self._report(writer, missing, labeller.profile)

    def _look_ahead(
        self, teacher: str | Teacher, source: ImageSource, devices: Sequence[torch.device]
    ) -> BuildReport:
        """Do all that a build does before it labels, then three batches on the first device, and write no store."""
        device = devices[0]
        loaded = load_by_name(teacher, self.teacher_options)
        loaded.to(device)
        manifest = describe_build(loaded, source, device, self.options, self.files)
        self.observer.on_teacher(manifest.teacher)
        writer = self._open_writer(manifest, source)
        missing = set(writer.missing_parts())
        if self.options.on_bad_image is OnBadImage.RETRY:
            missing.update(_bad_parts(writer, self.options.share))
        mine = self.options.share.of(sorted(missing))
        report = BuildReport(self.files.location, writer.manifest, writer.is_complete, 0, len(missing), ())
        if not mine:
            return report
        labeller = self._labeller(loaded, source, writer, device)
        with fixed_arithmetic(labeller.threads):
            forecast = make_forecast(
                labeller,
                source,
                writer,
                device=device,
                parts=mine,
                parts_missing=len(missing),
                workers=self._workers(device, sharing=len(devices)),
                devices=len(devices),
                free_bytes=free_bytes(self.files),
            )
        return replace(report, forecast=forecast, profile=labeller.profile)

    def _labeller(
        self, teacher: Teacher, source: ImageSource, writer: StoreWriter, device: torch.device
    ) -> PartLabeller:
        assert writer.manifest.build is not None
        if self.options.compile:  # after the checks, which look at batches of other sizes
            precision = Precision(writer.manifest.teacher.precision)
            compile_teacher(teacher, device, precision, writer.manifest.build.batch_size)
        return PartLabeller(
            teacher,
            source,
            writer,
            device=device,
            is_absent_rule_named=self.options.absent is not None,
            stop_on_bad_image=self.options.on_bad_image is OnBadImage.STOP,
            on_batch=None if self.options.dry_run else self.observer.on_batch,
        )

    def _workers(self, device: torch.device, *, sharing: int = 1) -> int:
        chosen = self.options.workers
        return default_workers(device, sharing=sharing) if chosen is None else chosen

    def _label_on_devices(
        self, devices: Sequence[torch.device], teacher: str | Teacher, source: ImageSource
    ) -> BuildReport:
        """Build a share of the parts on each device, as processes that torchrun had started would."""
        shares = []
        for index, device in enumerate(devices):
            options = replace(
                self.options,
                device=str(device),
                share=Share(index, len(devices)).within(self.options.share),
                workers=self._workers(device, sharing=len(devices)),
                limit=None,  # the source has it in it
            )
            plan = replace(self, options=options, observer=BuildObserver())
            shares.append(functools.partial(_build_share, plan, teacher, source))
        names = [str(device) for device in devices]
        reports = build_shares(shares, names, self.observer)
        profiles = [report.profile for report in reports if report.profile is not None]
        return replace(
            self._report(StoreWriter.resume(self.files), parts=()),
            labelled=sum(report.labelled for report in reports),
            profile=Profile.of_several(profiles) if profiles else None,
        )

    def _label_on_ray(self, teacher: str | Teacher, source: ImageSource) -> BuildReport:
        from relabel_store.generate.engines.ray import RaySettings, ray_cluster

        threads = torch.get_num_threads()
        settings = RaySettings(
            self.options.ray_address, self.options.ray_workers, device=self.options.device, cpus_each=threads
        )
        images = detached(source)
        files = self.files if self.files.path is None else open_files(self.files.path.absolute())
        with ray_cluster(settings) as cluster:
            quiet = replace(self, files=files, observer=BuildObserver())
            manifest = cluster.call(_describe_elsewhere, quiet, teacher, images, threads)
            writer, missing = self._plan(manifest, source)
            job = LabelJob(
                teacher=teacher,
                teacher_options=self.teacher_options,
                images=images,
                files=files,
                device=self.options.device,
                workers=self.options.workers,
                is_absent_rule_named=self.options.absent is not None,
                stop_on_bad_image=self.options.on_bad_image is OnBadImage.STOP,
            )
            for record, report in cluster.label(job, missing):
                self.observer.on_batch(report)
                _log_part(record, writer)
            failed = tuple(cluster.failed[part] for part in sorted(cluster.failed))
            for one in failed:
                note_failure(self.files, one)
            return self._report(writer, missing, failed=failed)

    def _plan(self, manifest: Manifest, source: ImageSource) -> tuple[StoreWriter, list[int]]:
        """Begin the store, or go on with it; return also the parts that are this share's to label."""
        self.observer.on_teacher(manifest.teacher)
        writer = self._open_writer(manifest, source)
        missing = self.options.share.of(writer.missing_parts())
        mine = self.options.share.of(range(writer.manifest.num_parts))
        samples = sum(len(writer.manifest.rows_of_part(part)) for part in mine)
        to_do = sum(len(writer.manifest.rows_of_part(part)) for part in missing)
        self.observer.on_start(samples=samples, finished_samples=samples - to_do, parts=len(missing))
        return writer, missing

    def _report(
        self,
        writer: StoreWriter,
        parts: Sequence[int],
        profile: Profile | None = None,
        failed: tuple[FailedPart, ...] = (),
    ) -> BuildReport:
        """Finish the store if nothing is missing, and return how the build ended."""
        left = writer.missing_parts()
        if not left:
            writer.complete()
        bad = sorted(
            (bad.row, bad.reason) for record in writer.records().values() for bad in record.bad_images
        )
        given_up = {one.part for one in failed}
        return BuildReport(
            location=self.files.location,
            manifest=writer.manifest,
            is_complete=not left,
            labelled=sum(len(writer.manifest.rows_of_part(part)) for part in parts if part not in given_up),
            parts_left=len(left),
            bad_images=tuple((writer.samples["path"][row].as_py(), reason) for row, reason in bad),
            profile=profile,
            failed_parts=failed,
        )

    def _open_writer(self, manifest: Manifest, source: ImageSource) -> StoreWriter:
        samples = planned_samples(
            source.sample_ids, source.paths, source.class_names, manifest.classes.index_of_folder()
        )
        if is_store(self.files):
            writer = StoreWriter.resume(self.files, samples)
        else:
            begin = StoreWriter if self.options.dry_run else StoreWriter.begin
            writer = begin(self.files, manifest, samples)
        require_same_labels(
            writer.manifest, manifest, is_batch_size_given=self.options.batch_size is not None
        )
        if not self.options.dry_run:
            _drop_damaged_parts(writer)
        require_same_images(writer, source)
        if self.options.on_bad_image is OnBadImage.RETRY and not self.options.dry_run:
            _drop_bad_parts(writer, self.options.share)
        return writer


def _build_share(
    plan: _Build, teacher: str | Teacher, source: ImageSource, observer: BuildObserver
) -> BuildReport:
    with hold_share(plan.files.path, plan.options.share):
        return replace(plan, observer=observer)._label_here(teacher, source)


def _describe_elsewhere(plan: _Build, teacher: str | Teacher, source: ImageSource, threads: int) -> Manifest:
    """Return the manifest of a build whose teacher is on the node of a cluster that this runs on."""
    torch.set_num_threads(threads)
    device = choose_device(plan.options.device)
    loaded = load_by_name(teacher, plan.teacher_options)
    loaded.to(device)
    return describe_build(loaded, source, device, plan.options, plan.files)


def _wherever(images: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return where images lie as it means the same in any working directory."""
    return images if "://" in os.fspath(images) else Path(images).absolute()


def _point_out_shares() -> None:
    """Say that there seem to be others at the same work, who would do all of it too."""
    with contextlib.suppress(OptionError):
        found = Share.from_environment(os.environ)
        if found is not None and found.count > 1:
            log.warning(
                "this is process %d of %d, as torchrun or Slurm says, and labels everything; --share auto divides it",
                found.index,
                found.count,
            )


def _log_part(record: PartRecord, writer: StoreWriter) -> None:
    log.info("part %d of %d finished: %d rows", record.part, writer.manifest.num_parts, len(record.rows))


def _drop_damaged_parts(writer: StoreWriter) -> None:
    damaged = writer.damaged_parts()
    for part, what in damaged.items():
        log.warning("part %d is damaged and labelled anew: %s", part, what)
    if damaged:
        writer.drop_parts(damaged)


def _bad_parts(writer: StoreWriter, share: Share) -> list[int]:
    return share.of([part for part, record in writer.records().items() if record.bad_images])


def _drop_bad_parts(writer: StoreWriter, share: Share) -> None:
    bad = _bad_parts(writer, share)
    if bad:
        log.info("%d parts hold bad images and are labelled anew", len(bad))
        writer.drop_parts(bad)

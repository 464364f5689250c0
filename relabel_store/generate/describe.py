"""The manifest that a build begins with."""

from __future__ import annotations

import logging
from importlib.metadata import version

import torch

from relabel_store import spec
from relabel_store.errors import OptionError
from relabel_store.generate.batch_size import best_batch_size
from relabel_store.generate.build_options import BuildOptions
from relabel_store.generate.device import CPU_BATCH, best_precision
from relabel_store.generate.precision import Precision
from relabel_store.generate.room import require_room
from relabel_store.generate.scoring import Scorer
from relabel_store.generate.teacher import Teacher, check_identity, probe_grid
from relabel_store.images.source import ImageSource
from relabel_store.manifest import (
    AbsentRule,
    BuildInfo,
    Dense,
    Encoding,
    Geometry,
    ImagesInfo,
    LabelSpec,
    Layout,
    Manifest,
    TeacherInfo,
)
from relabel_store.sample_ids import digest_of_ids
from relabel_store.store.encodings import encoding_named_by
from relabel_store.store.files import StoreFiles
from relabel_store.store.occupied import is_store

log = logging.getLogger("relabel_store.build")


def describe_build(
    teacher: Teacher, source: ImageSource, device: torch.device, options: BuildOptions, files: StoreFiles
) -> Manifest:
    """Return the manifest that a new build begins with, after a look at what the teacher makes of an image.

    Raises
    ------
    OptionError
        More classes are to be kept than the teacher has.
    TeacherError
        Its map is not what it says.
    NotEnoughSpaceError
        A store of its maps does not fit where it is to lie.
    """
    facts = teacher.facts
    if options.top_k > facts.num_classes:
        raise OptionError(
            f"top_k: {options.top_k}, expected at most {facts.num_classes}, the teacher's class count"
        )
    precision = options.precision or best_precision(device)
    error = check_identity(teacher, device)
    grid = probe_grid(teacher, device)
    if not is_store(files):
        require_room(files, options, len(source), grid)
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
            dense=Dense(facts.dense_kind, error, facts.dense_head),
            precision=precision.value,
            device=device.type,
            versions=_versions(),
            flip=options.flip,
        ),
        images=ImagesInfo(
            source.name, source.kind, len(source), digest_of_ids(source.sample_ids), source.order
        ),
        layout=Layout(shard_rows=min(options.shard_rows, whole_chunks), chunk_rows=chunk_rows),
        encoding=Encoding.of(options.encoding or encoding_named_by(files.location)),
        build=BuildInfo(
            batch_size=options.batch_size or _best_batch_size(teacher, device, precision, options, files),
            threads=torch.get_num_threads(),
            is_compiled=options.compile,
        ),
    )


def _best_batch_size(
    teacher: Teacher, device: torch.device, precision: Precision, options: BuildOptions, files: StoreFiles
) -> int:
    if device.type != "cuda" or is_store(files):  # that was begun with one of its own
        return CPU_BATCH
    with_rest = options.absent is AbsentRule.REST
    scorer = Scorer(
        teacher,
        device,
        precision=precision,
        k=options.top_k,
        with_rest=with_rest,
        with_flip=options.flip,
    )
    found = best_batch_size(scorer, teacher.facts.input.size)
    log.info("%d images a batch: the largest that fits and still gains", found)
    return found


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("relabel-store", "torch", "timm", "Pillow")}

"""Labelling some images again as a store says that they were labelled: with its teacher, and all of its settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from relabel_store.errors import TeacherError, UnknownTeacherError, WeightsError
from relabel_store.generate.arithmetic import fixed_arithmetic
from relabel_store.generate.batches import decoded_batches, split_rows
from relabel_store.generate.device import choose_device, default_workers
from relabel_store.generate.limit import ChosenImages
from relabel_store.generate.load import load_teacher
from relabel_store.generate.precision import Precision
from relabel_store.generate.profile import Profile
from relabel_store.generate.scoring import Scorer
from relabel_store.generate.teacher import Teacher, compile_teacher, probe_grid
from relabel_store.generate.teacher_options import TeacherOptions
from relabel_store.images.source import ImageSource
from relabel_store.manifest import AbsentRule, BuildInfo, Manifest

_OF_A_FILE = "file "  # how the origin of weights begins that were given as a file


@dataclass(frozen=True)
class LabelledAgain:
    """What the teacher says of some images, before rounding.

    Parameters
    ----------
    indices
        int64 ``(n, k, n_rows, n_cols)``, by falling logit.
    values
        float32, same shape.
    rest
        float32 ``(n, n_rows, n_cols)``; None where an absent class counts as 0.
    reasons
        For each image why it cannot be decoded; None where it can.
    """

    indices: NDArray[np.int64]
    values: NDArray[np.float32]
    rest: NDArray[np.float32] | None
    reasons: tuple[str | None, ...]


@dataclass(frozen=True)
class RecordedTeacher:
    """Labels images as stores say that theirs were.

    Parameters
    ----------
    teacher
        What to use where the manifest's name of the teacher says too little: a ``module:factory``, or the teacher.
    weights
        The file that the teacher's weights came from.
    device
        ``auto`` is of the kind that is recorded, where there is one here.
    workers
        Processes that decode; None chooses by the device.
    """

    teacher: str | Teacher | None = None
    weights: Path | None = None
    device: str = "auto"
    workers: int | None = None

    def label(
        self,
        manifest: Manifest,
        images: ImageSource,
        rows: Sequence[int],
        on_image: Callable[[], None] = lambda: None,
    ) -> LabelledAgain:
        """Return the labels of some images of a source.

        Raises
        ------
        TeacherError
            The teacher cannot be had as it is recorded; `WeightsError` where its weights are others.
        ImageReadError
            An image cannot be read.
        """
        build = _require_build(manifest)
        teacher = self._load(manifest)
        device = self._choose_device(manifest)
        teacher.to(device)
        _require_same(teacher, manifest, probe_grid(teacher, device))
        precision = Precision(manifest.teacher.precision)
        if build.is_compiled:
            compile_teacher(teacher, device, precision, build.batch_size)
        scorer = Scorer(
            teacher,
            device,
            precision=precision,
            k=manifest.label_map.k,
            with_rest=manifest.label_map.absent is AbsentRule.REST,
            with_flip=manifest.teacher.flip,
            pad_to=build.batch_size if build.is_compiled else None,
        )
        profile = Profile(device)
        kept, reasons = [], []
        with fixed_arithmetic(build.threads):
            for batch in decoded_batches(
                ChosenImages(images, rows),
                teacher.facts.input,
                split_rows(range(len(rows)), build.batch_size),
                workers=default_workers(device) if self.workers is None else self.workers,
                pin_memory=device.type == "cuda",
            ):
                kept.append(scorer.launch(batch.pixels).result(profile))
                for facts in batch.facts:
                    reasons.append(facts.reason)
                    on_image()
        rests = [piece.rest for piece in kept if piece.rest is not None]
        return LabelledAgain(
            torch.cat([piece.indices for piece in kept]).numpy(),
            torch.cat([piece.values for piece in kept]).numpy(),
            torch.cat(rests).numpy() if rests else None,
            tuple(reasons),
        )

    def _load(self, manifest: Manifest) -> Teacher:
        if self.teacher is not None and not isinstance(self.teacher, str):
            return self.teacher
        recorded, geometry = manifest.teacher, manifest.geometry
        name = self.teacher or recorded.name
        if self.teacher is not None and ":" in name:
            return load_teacher(name, TeacherOptions(weights=self.weights))
        if self.weights is None and recorded.weights.origin.startswith(_OF_A_FILE):
            file = recorded.weights.origin.removeprefix(_OF_A_FILE)
            raise WeightsError(
                f"teacher {name!r}: its weights came from a file {file!r}; give that file with --weights"
            )
        options = TeacherOptions(
            weights=self.weights,
            input_size=geometry.input_size,
            mean=_three(geometry.mean),
            std=_three(geometry.std),
            interpolation=geometry.interpolation,
            head=recorded.dense.head,
        )
        try:
            return load_teacher(name, options)
        except UnknownTeacherError as error:
            raise UnknownTeacherError(
                f"{error}; if the labels were made with a teacher of your own, give its --teacher module:factory"
            ) from error

    def _choose_device(self, manifest: Manifest) -> torch.device:
        wanted = manifest.teacher.device
        if self.device != "auto" or wanted == "cpu":
            return choose_device("cpu" if self.device == "auto" else self.device)
        return choose_device("auto")


def _require_build(manifest: Manifest) -> BuildInfo:
    if manifest.build is None:
        raise TeacherError(
            f"labels {manifest.name!r}: they were converted, so nobody recorded how their teacher was run; expected "
            "labels that `relabel-store build` made"
        )
    return manifest.build


def _require_same(teacher: Teacher, manifest: Manifest, grid: tuple[int, int]) -> None:
    facts, recorded, geometry = teacher.facts, manifest.teacher, manifest.geometry
    ours, theirs = facts.weights.digest, recorded.weights.digest
    if ours is not None and theirs is not None and ours != theirs:
        raise WeightsError(
            f"teacher {facts.name!r}: weights {ours[:19]}… from {facts.weights.origin!r}, expected {theirs[:19]}… from "
            f"{recorded.weights.origin!r} as recorded; give the weights that made the labels with --weights"
        )
    pairs = {
        "name": (facts.name, recorded.name),
        "input size": (tuple(facts.input.size), geometry.input_size),
        "interpolation": (facts.input.interpolation.value, geometry.interpolation),
        "mean": (tuple(facts.input.mean), geometry.mean),
        "std": (tuple(facts.input.std), geometry.std),
        "classes": (facts.num_classes, manifest.label_map.num_classes),
        "grid": (grid, manifest.label_map.grid),
        "head": (facts.dense_head, recorded.dense.head),
    }
    for what, (found, expected) in pairs.items():
        if found != expected:
            raise TeacherError(
                f"teacher {facts.name!r}: its {what} is {found!r}, expected {expected!r} as recorded; give the "
                "teacher that made the labels"
            )


def _three(numbers: tuple[float, ...] | None) -> tuple[float, float, float] | None:
    return None if numbers is None else (numbers[0], numbers[1], numbers[2])

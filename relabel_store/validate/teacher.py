"""The level ``teacher``: some samples, chosen at random, are labelled again and compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from relabel_store.errors import (
    ImageReadError,
    MissingDependencyError,
    ObjectStoreError,
    OptionError,
    RelabelStoreError,
    TeacherError,
)
from relabel_store.images.source import ImageSource
from relabel_store.labels.maps import LabelMaps
from relabel_store.labels.tolerance import MapDifference, Tolerance, compare_maps
from relabel_store.manifest import Manifest
from relabel_store.store.encoded import EncodedStore
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.finding import Finding, Place, Problem
from relabel_store.validate.opened import open_sound, rows_of_images
from relabel_store.validate.report import Findings
from relabel_store.validate.rule import Level, check
from relabel_store.validate.sample_facts import labelled_rows
from relabel_store.validate.stage import ValidationObserver


class AgainLabelled(Protocol):
    """What a teacher says of some images, before rounding."""

    @property
    def indices(self) -> NDArray[np.int64]:
        """``(n, k, n_rows, n_cols)``, by falling logit."""

    @property
    def values(self) -> NDArray[np.float32]:
        """The same shape."""

    @property
    def rest(self) -> NDArray[np.float32] | None:
        """``(n, n_rows, n_cols)``; None where an absent class counts as 0."""

    @property
    def reasons(self) -> Sequence[str | None]:
        """For each image why it cannot be decoded; None where it can."""


class Relabeller(Protocol):
    """Labels images as a manifest says that those of its store were; `generate.relabel` has one."""

    def label(
        self, manifest: Manifest, images: ImageSource, rows: Sequence[int], on_image: Callable[[], None]
    ) -> AgainLabelled:
        """Return the labels of some images of a source.

        Raises
        ------
        TeacherError
            The teacher cannot be had as it is recorded.
        ImageReadError
            An image cannot be read.
        """


@check("RS901", level=Level.TEACHER)
def check_teacher(place: Place, error: str) -> Iterator[Problem]:
    """The teacher can be made again as it is recorded, with the same weights."""
    yield Problem(place, f"no label could be made again ({error})", "the recorded teacher")


@check("RS902", level=Level.TEACHER)
def check_labels_again(
    row: int, path: str, difference: MapDifference, precision: str, device: str
) -> Iterator[Problem]:
    """Labels that are made again are those that are stored, as closely as the teacher's arithmetic repeats."""
    yield Problem(
        Place(row=row),
        f"{difference.cells} of {difference.of} cells of image {path!r} differ, by up to {difference.largest:.2f}",
        f"{difference.tolerance:.2f} at most ({precision} on {device})",
        "the label is of another image or teacher, or was changed: compare the image (level images), then build its "
        "part again",
    )


@check("RS903", level=Level.TEACHER)
def check_decodable_again(row: int, path: str, reason: str) -> Iterator[Problem]:
    """An image that has a label can be decoded."""
    yield Problem(
        Place(row=row),
        f"image {path!r} cannot be decoded ({reason})",
        "the image that was labelled",
        "put the file back, or build its part again",
    )


@dataclass(frozen=True)
class TeacherStage:
    """What takes the teacher.

    Parameters
    ----------
    images
        Those that were labelled.
    relabeller
        Has the teacher.
    samples
        How many are labelled again. Which ones the store's digest decides: the same in every run.
    """

    images: ImageSource
    relabeller: Relabeller
    samples: int
    level: Level = Level.TEACHER

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise OptionError(f"samples: {self.samples}, expected 1 or more to label again")

    def run(self, evidence: Evidence, findings: Findings, observer: ValidationObserver) -> None:
        """Label some samples again and compare them."""
        what = "labels made again"
        opened = open_sound(evidence, findings, what)
        if opened is None:
            return
        store, table = opened
        of_images = rows_of_images(table, self.images)
        rows = self._choose(store, np.flatnonzero(labelled_rows(table["status"]) & (of_images >= 0)))
        if not len(rows):
            findings.skip(what, "no labelled sample has an image")
            return
        observer.on_start(level=self.level, parts=len(rows))
        try:
            stored = store.read_rows(rows)
        except ObjectStoreError:
            raise
        except (RelabelStoreError, OSError) as error:
            findings.skip(what, f"labels cannot be read ({' '.join(str(error).split())[:200]})")
            return
        try:
            made = self.relabeller.label(
                store.manifest, self.images, of_images[rows].tolist(), observer.on_part
            )
        except (TeacherError, ImageReadError, MissingDependencyError) as error:
            findings.add(check_teacher(Place(file=evidence.manifest_place, field="teacher"), str(error)))
            return
        paths = [table["path"][int(row)].as_py() for row in rows]
        findings.add(_compare(store.manifest, rows.tolist(), paths, stored, made))

    def _choose(self, store: EncodedStore, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        seed = hashlib.sha256((store.digest or store.manifest.digest()).encode()).digest()
        rng = np.random.default_rng(np.frombuffer(seed, np.uint32))
        return np.sort(rng.choice(rows, min(self.samples, len(rows)), replace=False))


def _compare(
    manifest: Manifest, rows: Sequence[int], paths: Sequence[str], stored: LabelMaps, made: AgainLabelled
) -> Iterator[Finding]:
    precision, device = manifest.teacher.precision, manifest.teacher.device
    tolerance = Tolerance.of(precision, device, manifest.label_map.value_step)
    for at, (row, path, reason) in enumerate(zip(rows, paths, made.reasons, strict=True)):
        if reason is not None:
            yield from check_decodable_again(row, path, reason)
            continue
        difference = compare_maps(
            (stored.indices[at], stored.values[at], None if stored.rest is None else stored.rest[at]),
            (made.indices[at], made.values[at], None if made.rest is None else made.rest[at]),
            num_classes=manifest.label_map.num_classes,
            tolerance=tolerance,
        )
        if difference.is_other:
            yield from check_labels_again(row, path, difference, precision, device)

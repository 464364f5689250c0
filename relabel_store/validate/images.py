"""The level ``images``: every image is read once, and compared with what the store recorded of it."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from relabel_store.images.names import OptionalTexts
from relabel_store.images.pixels import read_header
from relabel_store.images.source import ImageSource
from relabel_store.store.decoded import usable_cores
from relabel_store.store.samples import Status, column_values
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.finding import Finding
from relabel_store.validate.image_rules import (
    Sample,
    Seen,
    check_bad_image,
    check_class_folder,
    check_image_digest,
    check_image_size,
    check_image_there,
    check_images_labelled,
)
from relabel_store.validate.opened import open_sound, rows_of_images
from relabel_store.validate.report import KEPT, Findings
from relabel_store.validate.rule import Level
from relabel_store.validate.sample_facts import labelled_rows
from relabel_store.validate.stage import ValidationObserver

_AT_ONCE = 64  # neighbouring images that a thread reads before it asks for more
_MOST_THREADS = 16  # reading waits for disks and networks, which hashing does not


@dataclass(frozen=True)
class ImagesStage:
    """What takes reading every image.

    Parameters
    ----------
    images
        Those that were labelled.
    """

    images: ImageSource
    level: Level = Level.IMAGES

    def run(self, evidence: Evidence, findings: Findings, observer: ValidationObserver) -> None:
        """Join images to samples by id, then read those that are there and compare them."""
        opened = open_sound(evidence, findings, "images")
        if opened is None:
            return
        samples = opened[1]
        join = _Join(samples, self.images, rows_of_images(samples, self.images))
        findings.add(join.missing())
        findings.add(join.unlabelled())
        findings.add(join.moved())
        for field, what in (("sha256", "digests of images"), ("width", "sizes of images")):
            unknown = int(np.count_nonzero(join.is_labelled & ~_is_known(samples, field)))
            if unknown:
                why = f"none is recorded of {unknown:,} of {int(join.is_labelled.sum()):,} labelled samples"
                findings.skip(what, why)
        there = join.compared()
        observer.on_start(level=self.level, parts=len(there))
        for finding in _compare(join, there, observer):
            findings.add([finding])


class _Join:
    """Samples and their images."""

    def __init__(self, samples: pa.Table, images: ImageSource, rows: NDArray[np.int64]) -> None:
        self.images = images
        self.rows = rows
        self.is_labelled = labelled_rows(samples["status"])
        self._is_bad = np.asarray(pc.equal(samples["status"], Status.BAD_IMAGE.value).to_numpy(), np.bool_)
        self._samples = samples
        self._digests = samples["sha256"].combine_chunks()
        self._sizes = [column_values(samples[side]) for side in ("width", "height")]

    def sample(self, row: int) -> Sample:
        """Return what is recorded of a row's image."""
        values = self._samples.slice(row, 1).to_pylist()[0]
        return Sample(row, *(values[name] for name in ("path", "sha256", "width", "height", "class_name")))

    def missing(self) -> Iterator[Finding]:
        """Yield labelled samples without image."""
        without = np.flatnonzero(self.is_labelled & (self.rows < 0))
        for row, count in _first(without):
            yield from check_image_there(self.sample(row), "is not there", count)

    def unlabelled(self) -> Iterator[Finding]:
        """Yield images without label: strangers, and those of samples that were never labelled."""
        has_label = np.zeros(len(self.images), np.bool_)
        known = self.rows[(self.rows >= 0) & (self.is_labelled | self._is_bad)]
        has_label[known] = True
        without = np.flatnonzero(~has_label)
        if len(without):
            yield from check_images_labelled(self.images.paths[int(without[0])], len(without))

    def moved(self) -> Iterator[Finding]:
        """Yield labelled images in another class folder than their sample."""
        there = np.flatnonzero((self.rows >= 0) & self.is_labelled)
        if not len(there):
            return
        names = self.images.class_names
        theirs = names.column if isinstance(names, OptionalTexts) else pa.array(list(names), pa.string())
        taken = theirs.cast(pa.string()).take(pa.array(self.rows[there]))
        ours = self._samples["class_name"].combine_chunks().cast(pa.string()).take(pa.array(there))
        differs = pc.and_kleene(pc.is_valid(ours), pc.not_equal(ours, taken).fill_null(True))
        for at, count in _first(np.flatnonzero(np.asarray(differs.to_numpy(zero_copy_only=False), np.bool_))):
            yield from check_class_folder(self.sample(int(there[at])), taken[at].as_py(), count)

    def compared(self) -> NDArray[np.int64]:
        """Return the samples whose images are read, in the order in which these lie in their source."""
        there = np.flatnonzero((self.rows >= 0) & (self.is_labelled | self._is_bad))
        ordered: NDArray[np.int64] = there[np.argsort(self.rows[there], kind="stable")]
        return ordered

    def judge(self, row: int, image: Seen | str) -> Iterator[Finding]:
        """Yield what is wrong with an image, or with reading it."""
        if isinstance(image, Seen) and self._fits(row, image):
            return
        sample = self.sample(row)
        if not self.is_labelled[row]:
            yield from () if isinstance(image, str) else check_bad_image(sample, image)
        elif isinstance(image, str):
            yield from check_image_there(sample, f"cannot be read ({image})")
        else:
            changed = list(check_image_digest(sample, image))
            yield from changed or check_image_size(sample, image)

    def _fits(self, row: int, image: Seen) -> bool:
        """Tell whether everything is as recorded, as it nearly always is, without reading a line of the table."""
        width, height = (int(side[row]) for side in self._sizes)
        is_size = image.size is None or -1 in (width, height) or image.size == (width, height)
        return is_size and self._digests[row].as_py() in (None, image.sha256)


def _compare(join: _Join, there: NDArray[np.int64], observer: ValidationObserver) -> Iterator[Finding]:
    blocks = [there[start : start + _AT_ONCE] for start in range(0, len(there), _AT_ONCE)]
    reader = _Reader(join.images)
    threads = min(_MOST_THREADS, 4 * usable_cores(), max(len(blocks), 1))
    with ThreadPoolExecutor(threads, thread_name_prefix="images") as pool:
        seen = pool.map(lambda block: reader.look(join.rows[block]), blocks)
        for block, images in zip(blocks, seen, strict=True):
            for row, image in zip(block, images, strict=True):
                yield from join.judge(int(row), image)
                observer.on_part()


class _Reader:
    """Reads images in several threads: sources keep a file open, or a piece of one, and have no locks."""

    def __init__(self, images: ImageSource) -> None:
        self._images = images
        self._of_thread = threading.local()

    def look(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Seen | str]:
        """Return what the images of some rows are, or why they cannot be read."""
        if not hasattr(self._of_thread, "images"):
            self._of_thread.images = copy.deepcopy(self._images)
        return [_look(self._of_thread.images, int(row)) for row in rows]


def _look(images: ImageSource, row: int) -> Seen | str:
    try:
        data = images.read(row)
    except OSError as error:
        return error.strerror or type(error).__name__
    header = read_header(data)
    return Seen(hashlib.sha256(data).hexdigest(), None if header is None else header[:2])


def _first(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield the rows that are told of by name, and for how many each stands: the last one for all left."""
    for at, row in enumerate(rows[:KEPT]):
        yield int(row), len(rows) - at if at == KEPT - 1 else 1


def _is_known(samples: pa.Table, field: str) -> NDArray[np.bool_]:
    return np.asarray(pc.is_valid(samples[field]).to_numpy(), np.bool_)

"""Batches of decoded images, read ahead by worker processes."""

from __future__ import annotations

import contextlib
import hashlib
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from relabel_store.errors import BadImageError, ImageReadError
from relabel_store.generate.decode import Decoded, decode_image
from relabel_store.generate.decoder_watch import (
    DecoderBlame,
    DecoderWatch,
    EndReports,
    WorkerEndedError,
)
from relabel_store.generate.teacher import TeacherInput
from relabel_store.images.source import ImageSource

_READ_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.5  # 0.5, 1 and 2 s: a network file system that fails over, not a disk that is gone
_PREFETCHED_BATCHES = 2


@dataclass(frozen=True)
class ImageFacts:
    """What was found out about one image."""

    row: int
    sha256: str
    size_bytes: int
    mtime_ns: int
    width: int | None = None  # pixels, as stored in the file
    height: int | None = None
    exif_orientation: int = 1
    reason: str | None = None  # why it cannot be decoded


@dataclass(frozen=True)
class Batch:
    """Decoded images of neighbouring rows.

    Parameters
    ----------
    pixels
        uint8 ``(n, height, width, 3)``; black where an image is bad, so that every image keeps its
        place in the batch whatever becomes of its neighbours.
    read_s, decode_s
        Seconds that reading and decoding took.
    """

    rows: range
    pixels: Tensor
    facts: list[ImageFacts]
    read_s: float = 0.0
    decode_s: float = 0.0

    @property
    def is_good(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Bool ``(n,)``."""
        return np.array([facts.reason is None for facts in self.facts])


@dataclass(frozen=True)
class _Unread:
    """An image that could not be read: an error does not cross processes whole, its text does."""

    message: str


class _Decoder(Dataset["Batch | _Unread"]):
    """Decodes the batch of some rows; runs in worker processes.

    Parameters
    ----------
    watch
        Is told what each process is at.
    refused
        Why some rows are bad images that are not to be decoded.
    """

    def __init__(
        self, source: ImageSource, images: TeacherInput, watch: DecoderWatch, refused: Mapping[int, str]
    ) -> None:
        self._source = source
        self._input = images
        self._watch = watch
        self._refused = refused

    def __getitem__(self, rows: range) -> Batch | _Unread:
        started = time.perf_counter()
        files = []
        for row in rows:
            try:
                files.append(self._read(row))
            except OSError as error:
                return _Unread(f"image {self._source.paths[row]!r}: {error.strerror or type(error).__name__}")
        read = time.perf_counter()
        pixels = np.zeros((len(rows), *self._input.size, 3), np.uint8)
        facts = []
        with self._watch.decoding():
            for position, (row, (data, (size_bytes, mtime_ns))) in enumerate(zip(rows, files, strict=True)):
                found = ImageFacts(row, hashlib.sha256(data).hexdigest(), size_bytes, mtime_ns)
                try:
                    decoded = self._decode(row, data)
                except BadImageError as error:
                    facts.append(replace(found, reason=str(error)))
                    continue
                pixels[position] = decoded.pixels
                facts.append(
                    replace(
                        found,
                        width=decoded.width,
                        height=decoded.height,
                        exif_orientation=decoded.exif_orientation,
                    )
                )
        decode_s = time.perf_counter() - read
        return Batch(rows, torch.from_numpy(pixels), facts, read - started, decode_s)

    def _read(self, row: int) -> tuple[bytes, tuple[int, int]]:
        def read() -> tuple[bytes, tuple[int, int]]:
            return self._source.read(row), self._source.fingerprint(row)

        return with_retries(read)

    def _decode(self, row: int, data: bytes) -> Decoded:
        if row in self._refused:
            raise BadImageError(self._refused[row])
        self._watch.begin(row)
        return decode_image(data, size=self._input.size, interpolation=self._input.interpolation)


def with_retries(read: Callable[[], tuple[bytes, tuple[int, int]]]) -> tuple[bytes, tuple[int, int]]:
    """Return what a reading function gives, after pauses where it fails for a reason that may pass."""
    pause_s = _FIRST_PAUSE_S
    for _ in range(_READ_ATTEMPTS - 1):
        try:
            return read()
        except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
            raise  # waiting does not mend these
        except OSError:
            time.sleep(pause_s)
            pause_s *= 2
    return read()


def split_rows(rows: range, batch_size: int) -> list[range]:
    """Return the batches of a part, the last one shorter."""
    return [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]


def decoded_batches(
    source: ImageSource,
    images: TeacherInput,
    batches: Sequence[range],
    *,
    workers: int,
    pin_memory: bool,
) -> Iterator[Batch]:
    """Yield the batches of decoded images, in the order asked.

    Parameters
    ----------
    workers
        Processes that decode; 0 decodes in this one.

    Raises
    ------
    ImageReadError
        An image cannot be read, also after a few seconds; or the processes that decode end again and again.

    Notes
    -----
    An image whose decoder hangs, or takes its process down, is a bad image if it does so twice.
    """
    left = deque(batches)
    blame = DecoderBlame()
    reports = EndReports()
    try:
        while left:
            watch = DecoderWatch(workers)
            with _unadvised():
                loader = DataLoader(
                    _Decoder(source, images, watch, blame.refused),
                    batch_size=None,
                    sampler=tuple(left),
                    num_workers=workers,
                    pin_memory=pin_memory,
                    prefetch_factor=_PREFETCHED_BATCHES if workers else None,
                )
            try:
                with contextlib.closing(_caught(loader, reports)) as decoded:
                    for batch in decoded:
                        if isinstance(batch, _Unread):
                            raise ImageReadError(
                                f"{batch.message}; parts that are finished stay, run the same build again to go on"
                            )
                        yield batch
                        left.popleft()
                        blame.forgive()
            except WorkerEndedError as error:
                blame.take(watch, error)
    finally:
        reports.give_back()


@contextlib.contextmanager
def _unadvised() -> Iterator[None]:
    """Keep PyTorch from warning of more processes than cores: those that wait for a network need none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        yield


def _caught(loader: DataLoader[Batch | _Unread], reports: EndReports) -> Generator[Batch | _Unread]:
    """Yield batches; raise `WorkerEndedError` where a process that decodes them ended."""
    batches: Iterator[Batch | _Unread] | None = None
    while True:
        try:
            with reports.awaited():
                if batches is None:
                    with _unadvised():
                        batches = iter(loader)
                    reports.take_over()
                batch = next(batches, None)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise WorkerEndedError(str(error).splitlines()[0]) from error
        if batch is None:
            return
        yield batch

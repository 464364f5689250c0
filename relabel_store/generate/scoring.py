"""One batch of images through the teacher, on a device that is given the next one meanwhile."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from relabel_store.errors import TeacherError
from relabel_store.generate.precision import Precision
from relabel_store.generate.profile import DeviceClock, Profile, Stage
from relabel_store.generate.reduce import KeepingTopK, Kept
from relabel_store.generate.teacher import Teacher

log = logging.getLogger("relabel_store.build")


class Scorer:
    """Scores batches with a teacher on a device.

    Where a batch does not fit in memory, it and those after it are scored in halves, or halves of those.

    Parameters
    ----------
    k, with_rest
        As for `KeepingTopK`.
    with_flip
        Average each map with that of the mirror image, mirrored back.
    pad_to
        Fill shorter batches up to so many images, for a teacher that is compiled for one size.
    """

    def __init__(
        self,
        teacher: Teacher,
        device: torch.device,
        *,
        precision: Precision,
        k: int,
        with_rest: bool,
        with_flip: bool = False,
        pad_to: int | None = None,
    ) -> None:
        self._teacher = teacher
        self._device = device
        self.precision = precision
        self._k = k
        self._with_rest = with_rest
        self._with_flip = with_flip
        self._pad_to = pad_to
        self._at_once: int | None = None  # images, once a batch did not fit

    def fits(self, n: int) -> bool:
        """Tell whether batches of so many images have fitted in memory so far."""
        return self._at_once is None or n <= self._at_once

    def launch(self, pixels: Tensor) -> Scoring:
        """Give a batch to the device, without waiting for a GPU.

        Parameters
        ----------
        pixels
            uint8 ``(n, height, width, 3)`` in host memory.

        Raises
        ------
        TeacherError
            Not even one image fits in memory.
        """
        while True:
            scoring = self._try(pixels)
            if scoring is not None:
                return scoring
            self._halve(len(pixels))

    def _try(self, pixels: Tensor) -> Scoring | None:
        """Return the scores in the making; None where memory is too small for them."""
        clock = DeviceClock(self._device)
        at_once = self._at_once or len(pixels)
        try:
            if len(pixels) <= at_once:
                return Scoring([self._keep(pixels, clock)], clock)
            # One after the other, so that no more than one is in memory.
            return Scoring(
                [self._keep(piece, clock).result() for piece in torch.split(pixels, at_once)], clock
            )
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        return None  # from here, where the failed frames and their tensors are gone

    def _halve(self, n: int) -> None:
        tried = min(self._at_once or n, n)
        if tried == 1:
            raise TeacherError(
                f"teacher {self._teacher.facts.name!r}: out of memory on {self._device} with one image; "
                "use a smaller --input-size, --precision bf16, or a device with more memory"
            )
        self._at_once = (tried + 1) // 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "out of memory on %s with %d images at once: going on with %d", self._device, tried, self._at_once
        )

    def _keep(self, pixels: Tensor, clock: DeviceClock) -> KeepingTopK:
        n = len(pixels)
        size = self._pad_to if self._at_once is None else self._at_once
        if self._pad_to is not None and size is not None and n < size:
            pixels = torch.cat([pixels, pixels.new_zeros(size - n, *pixels.shape[1:])])
        with torch.inference_mode():
            images = self._teacher.facts.input.normalize(pixels.to(self._device, non_blocking=True))
            clock.mark(Stage.TRANSFER)
            logits = self._logits(images)[:n]
            clock.mark(Stage.FORWARD)
            keeping = KeepingTopK(logits, self._k, with_rest=self._with_rest)
            clock.mark(Stage.TOP_K)
        return keeping

    def _logits(self, images: Tensor) -> Tensor:
        logits = self._teacher.dense_logits(images, self.precision)
        if not self._with_flip:
            return logits
        mirrored = images.flip(3).contiguous(memory_format=torch.channels_last)
        # Not in place: what a teacher gives may be its own to keep.
        return (logits + self._teacher.dense_logits(mirrored, self.precision).flip(3)) / 2


class Scoring:
    """What is kept of a batch, which a GPU may still be at work on."""

    def __init__(self, pieces: list[KeepingTopK] | list[Kept], clock: DeviceClock) -> None:
        self._pieces = pieces
        self._clock = clock

    def result(self, profile: Profile) -> Kept:
        """Return what is kept, in host memory, and what the device did in a profile."""
        with profile.timed(Stage.COLLECT):
            kept = [piece.result() if isinstance(piece, KeepingTopK) else piece for piece in self._pieces]
        self._clock.add_to(profile)
        if len(kept) == 1:
            return kept[0]
        rests = [piece.rest for piece in kept if piece.rest is not None]
        return Kept(
            torch.cat([piece.indices for piece in kept]),
            torch.cat([piece.values for piece in kept]),
            torch.cat(rests) if rests else None,
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that a device or the host has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # PyTorch has no type of its own for the host's memory.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)

"""How many images a batch should have on a device."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from statistics import median

import torch

from relabel_store.errors import TeacherError
from relabel_store.generate.profile import Profile
from relabel_store.generate.scoring import Scorer

_LARGEST = 1024
_GAIN = 1.03  # what twice the images have to bring, to be worth twice the memory
_ROUNDS = 3
_PATIENCE_S = 5.0  # for one batch: a device that slow gains nothing from larger ones


def best_batch_size(scorer: Scorer, input_size: tuple[int, int]) -> int:
    """Return the smallest power of two that labels about as many images a second as any that fits.

    Parameters
    ----------
    scorer
        On the device, and with the teacher and the options, of the build.
    input_size
        ``(height, width)`` in pixels.

    Raises
    ------
    TeacherError
        Not even one image fits.
    """
    profile = Profile(torch.device("cpu"))  # of no interest to anyone

    def seconds(n: int) -> float | None:
        pixels = torch.zeros((n, *input_size, 3), dtype=torch.uint8)
        found = []
        for _ in range(1 + _ROUNDS):  # the first warms up
            started = time.perf_counter()
            both = scorer.launch(pixels), scorer.launch(pixels)  # as a build has two at once
            for scoring in both:
                scoring.result(profile)
            found.append((time.perf_counter() - started) / 2)
            if not scorer.fits(n):
                return None
            if found[0] > _PATIENCE_S:
                break
        return median(found[1:] or found)

    return search(seconds)


def search(seconds: Callable[[int], float | None]) -> int:
    """Return the smallest power of two from which doubling does not pay.

    Parameters
    ----------
    seconds
        The time of a batch of so many images; None where it does not fit.
    """
    best, fastest = 1, 0.0
    for size in itertools.takewhile(lambda n: n <= _LARGEST, (2**exponent for exponent in itertools.count())):
        taken_s = seconds(size)
        if taken_s is None:
            break
        speed = size / taken_s
        if speed < fastest * _GAIN:
            break
        best, fastest = size, speed
        if taken_s > _PATIENCE_S:
            break
    if not fastest:
        raise TeacherError("out of memory with one image; use a smaller --input-size or --precision bf16")
    return best

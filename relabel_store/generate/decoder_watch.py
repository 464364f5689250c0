"""Images that hang their decoder, or take its process down: which they are.

A broken file can drive a decoder written in C into a loop or a fault that no exception reports. The process that
decodes it then has to go; it leaves behind which row it was at.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import math
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType

import torch
from torch.utils.data import get_worker_info

from relabel_store.errors import ImageReadError

log = logging.getLogger("relabel_store.build")

DECODE_LIMIT_S = 60.0
"""Seconds that an image may take to be decoded: 178 megapixels, the most that are tried, take about 10."""

_ATTEMPTS = 2  # before it is the image's fault: the system may have ended the process for its own reasons
_ARMED_AGAIN = 0.1  # of the limit: an image gets at least nine tenths of it
_FRUITLESS_ENDS = 4  # of processes, with no batch between them and no image to blame
_IDLE = -1


class WorkerEndedError(Exception):
    """A process that decodes images ended."""


class DecoderWatch:
    """What each decoding process is at, in memory that outlives them.

    Parameters
    ----------
    workers
        Processes; with 0, nothing is watched: the process that is hung is the caller's own.
    """

    def __init__(self, workers: int) -> None:
        # Of each process: its id, the row that it decodes, since when on the clock that all processes share.
        self._slots = torch.full((workers, 3), _IDLE, dtype=torch.float64)
        self._slots.share_memory_()  # type: ignore[no-untyped-call]
        self._limit_s = DECODE_LIMIT_S
        self._armed_s = -math.inf
        self._null: int | None = None

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """Watch this process while the block decodes a batch."""
        try:
            yield
        finally:
            worker = get_worker_info()
            if worker is not None:
                faulthandler.cancel_dump_traceback_later()
                self._slots[worker.id, 1] = _IDLE
                self._armed_s = -math.inf

    def begin(self, row: int) -> None:
        """Note that this process decodes a row from now on; end it if that takes too long."""
        worker = get_worker_info()
        if worker is None:
            return
        now_s = time.monotonic()
        self._slots[worker.id] = torch.tensor([os.getpid(), row, now_s], dtype=torch.float64)
        if now_s - self._armed_s > self._limit_s * _ARMED_AGAIN:
            self._armed_s = now_s
            # By a thread that needs no lock of the interpreter, which a hung decoder may hold. It takes 60 us to
            # start, so one serves several images.
            faulthandler.dump_traceback_later(self._limit_s, exit=True, file=self._nowhere())

    def _nowhere(self) -> int:
        if self._null is None:
            self._null = os.open(os.devnull, os.O_WRONLY)
        return self._null

    def suspects(self, message: str) -> dict[int, str]:
        """Return the rows that a process may have ended over, and why it may have.

        Parameters
        ----------
        message
            PyTorch's, which names the processes.
        """
        named = {int(number) for number in re.findall(r"\d+", message)}
        found = {}
        for pid, row, since in self._slots.tolist():
            if row != _IDLE and int(pid) in named:
                hung = time.monotonic() - since >= self._limit_s * (1 - _ARMED_AGAIN)
                found[int(row)] = (
                    f"not decoded within {self._limit_s:g} s" if hung else "its decoder took its process down"
                )
        return found


class EndReports:
    """Has PyTorch report the end of a process to whoever waits for its images, and to nobody else.

    PyTorch reports it by an exception out of a signal handler, wherever the main thread is just then: mostly in the
    teacher's forward pass, which has nothing to do with it, or in a destructor, where it is lost.
    """

    def __init__(self) -> None:
        self._report: Callable[[int, FrameType | None], object] | None = None  # PyTorch's handler
        self._is_awaited = False
        self._is_due = False

    def take_over(self) -> None:
        """Stand between the signal and PyTorch's handler, which the first loader of a process has set."""
        if threading.current_thread() is not threading.main_thread():
            return  # PyTorch sets none from here either, and looks after its processes every five seconds
        found = signal.getsignal(signal.SIGCHLD)
        if callable(found) and found != self._hear:
            self._report = found
            signal.signal(signal.SIGCHLD, self._hear)

    def give_back(self) -> None:
        """Leave PyTorch's handler as it was."""
        if self._report is not None and signal.getsignal(signal.SIGCHLD) == self._hear:
            signal.signal(signal.SIGCHLD, self._report)
        self._is_awaited = True  # if others stand before it: they are not to be held up

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Let reports come while the block runs, the first of them one that was held back."""
        self._is_awaited = True
        try:
            if self._is_due and self._report is not None:
                self._is_due = False
                self._report(signal.SIGCHLD, None)
            yield
        finally:
            self._is_awaited = False

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        if self._is_awaited and self._report is not None:
            self._report(signum, frame)
        else:
            self._is_due = True


class DecoderBlame:
    """Which images are bad because processes ended over them."""

    def __init__(self) -> None:
        self.refused: dict[int, str] = {}
        """Why some rows are not to be decoded."""
        self._ends: Counter[int] = Counter()
        self._fruitless = 0

    def forgive(self) -> None:
        """Note that a batch came through."""
        self._fruitless = 0

    def take(self, watch: DecoderWatch, error: WorkerEndedError) -> None:
        """Find out which image a process ended over.

        Raises
        ------
        ImageReadError
            None, several times in a row: then it is not the images.
        """
        self._fruitless += 1
        for row, reason in watch.suspects(str(error)).items():
            self._ends[row] += 1
            log.warning("row %d: %s (%s)", row, reason, error)
            if self._ends[row] >= _ATTEMPTS:
                self.refused[row] = reason
                self._fruitless = 0
        if self._fruitless >= _FRUITLESS_ENDS:
            raise ImageReadError(
                f"a process that decodes images ended {self._fruitless} times in a row: {error} Out of memory? "
                "Use fewer --workers; parts that are finished stay, run the same build again to go on"
            ) from error

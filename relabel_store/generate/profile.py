"""Where the time of a build goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import torch

# A resource that works for less than this share of the time could not have held up the rest.
_BUSY = 0.9


class Stage(StrEnum):
    """A stage of a build, in the order that an image goes through them."""

    READ = "read"
    DECODE = "decode"
    WAIT = "wait for images"
    TRANSFER = "to device"
    FORWARD = "forward"
    TOP_K = "top k"
    COLLECT = "from device"
    ENCODE = "encode"
    WRITE = "write"
    WAIT_WRITE = "wait for writing"


PLACES = {
    Stage.READ: "workers",
    Stage.DECODE: "workers",
    Stage.WAIT: "main",
    Stage.TRANSFER: "device",
    Stage.FORWARD: "device",
    Stage.TOP_K: "device",
    Stage.COLLECT: "main",
    Stage.ENCODE: "writer",
    Stage.WRITE: "writer",
    Stage.WAIT_WRITE: "main",
}
"""Who is at work: decoding processes, the device, the thread that writes, or the main thread."""


@dataclass
class Profile:
    """Seconds that each stage of a build took.

    Stages overlap, so that they sum to more than the whole.

    Parameters
    ----------
    device
        Where the teacher runs.
    workers
        Processes that decode; 0 where the main thread does it.
    images
        That were labelled.
    wall_s
        From the first batch asked for to the last part written.
    seconds
        By stage. Those of the workers are summed over them.
    """

    device: torch.device
    workers: int = 0
    images: int = 0
    wall_s: float = 0.0
    seconds: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(Stage, 0.0))

    @classmethod
    def of_several(cls, profiles: Sequence[Profile]) -> Profile:
        """Return the profile of devices that worked side by side: images and decoders of all, seconds of the average.

        Raises
        ------
        ValueError
            There are none.
        """
        if not profiles:
            raise ValueError("no profiles, expected at least one")
        workers = sum(profile.workers for profile in profiles)
        summed = [stage for stage in Stage if workers and PLACES[stage] == "workers"]
        return cls(
            profiles[0].device,
            workers=workers,
            images=sum(profile.images for profile in profiles),
            wall_s=max(profile.wall_s for profile in profiles),
            seconds={
                stage: sum(profile.seconds[stage] for profile in profiles)
                / (1 if stage in summed else len(profiles))
                for stage in Stage
            },
        )

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Add the time that the block takes; each stage belongs to one thread."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def busy(self, stage: Stage) -> float:
        """Return the share of the time that whoever does a stage was at it, 0 to 1."""
        at_once = max(self.workers, 1) if PLACES[stage] == "workers" else 1
        return self.seconds[stage] / (self.wall_s * at_once) if self.wall_s else 0.0

    def bottleneck(self) -> Stage | None:
        """Return the stage that a build would be faster without, None where nothing was built.

        Of those that kept the device waiting if it waited for most of the time that it was idle, and they were at work
        meanwhile, else of those of the device itself.
        """
        if not self.wall_s or not self.images:
            return None
        device = [stage for stage in Stage if PLACES[stage] == "device"]
        idle = 1 - sum(self.busy(stage) for stage in device)
        waits = {
            Stage.WAIT: (Stage.READ, Stage.DECODE),
            Stage.WAIT_WRITE: (Stage.ENCODE, Stage.WRITE),
        }
        longest = max(waits, key=self.busy)
        work = sum(self.busy(stage) for stage in waits[longest])
        # Much more waiting than work is the start of the decoding processes, which a longer build hardly notices.
        if idle > 1 - _BUSY and self.busy(longest) > idle / 2 and work > self.busy(longest) / 2:
            return max(waits[longest], key=self.busy)
        return max(device, key=self.busy)


class DeviceClock:
    """Times stages of a device without waiting for it.

    On a CPU by the clock; on a GPU by events between its kernels, which are read when the batch is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[Stage | None, float | torch.cuda.Event]] = [(None, self._now())]

    def mark(self, stage: Stage) -> None:
        """Note that a stage ends here, and the next one begins."""
        self._marks.append((stage, self._now()))

    def add_to(self, profile: Profile) -> None:
        """Add what was timed; the device is done with it."""
        before = self._marks[0][1]
        for stage, now in self._marks[1:]:
            assert stage is not None
            profile.seconds[stage] += _seconds_between(before, now)
            before = now

    def _now(self) -> float | torch.cuda.Event:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def _seconds_between(before: float | torch.cuda.Event, after: float | torch.cuda.Event) -> float:
    if isinstance(before, torch.cuda.Event):
        assert isinstance(after, torch.cuda.Event)
        return float(before.elapsed_time(after)) / 1e3
    assert isinstance(after, float)
    return after - before

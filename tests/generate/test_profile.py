from __future__ import annotations

import pytest
import torch

from relabel_store.generate.profile import PLACES, DeviceClock, Profile, Stage

CPU = torch.device("cpu")


def make_profile(workers: int = 2, wall_s: float = 10.0, **seconds: float) -> Profile:
    profile = Profile(CPU, workers=workers, images=100, wall_s=wall_s)
    profile.seconds.update({Stage[name.upper()]: value for name, value in seconds.items()})
    return profile


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"forward": 9.5, "decode": 15.0, "wait": 0.2}, Stage.FORWARD),
        ({"forward": 2.0, "transfer": 7.5, "wait": 0.2}, Stage.TRANSFER),
        ({"forward": 4.0, "decode": 19.0, "read": 0.5, "wait": 5.8}, Stage.DECODE),
        ({"forward": 4.0, "decode": 3.0, "read": 16.0, "wait": 5.8}, Stage.READ),
        ({"forward": 4.0, "decode": 3.0, "encode": 1.0, "write": 8.9, "wait_write": 5.0}, Stage.WRITE),
        # The device does nothing for half of the time, but nobody makes it wait: its own work it is.
        ({"forward": 4.0, "top_k": 0.5, "wait": 0.1}, Stage.FORWARD),
        # It waits for decoders that start, not for what they do: 200 photos on two devices of a busy machine.
        ({"forward": 7.8, "decode": 1.4, "wait": 1.9}, Stage.FORWARD),
    ],
    ids=["forward", "transfer", "decode", "read", "write", "main-thread", "start"],
)
def test_the_bottleneck_is_what_the_device_waits_for(seconds: dict[str, float], expected: Stage):
    assert make_profile(**seconds).bottleneck() is expected


def test_nothing_built_has_no_bottleneck():
    assert Profile(CPU).bottleneck() is None
    assert Profile(CPU).busy(Stage.FORWARD) == 0


def test_workers_share_their_seconds():
    profile = make_profile(workers=4, decode=20.0, forward=5.0)
    assert profile.busy(Stage.DECODE) == 0.5
    assert profile.busy(Stage.FORWARD) == 0.5
    assert make_profile(workers=0, decode=5.0).busy(Stage.DECODE) == 0.5  # the main thread decodes


def test_a_clock_adds_each_stage_once():
    profile = Profile(CPU)
    clock = DeviceClock(CPU)
    for stage in (Stage.TRANSFER, Stage.FORWARD, Stage.TOP_K):
        clock.mark(stage)
    clock.add_to(profile)
    timed = {stage for stage, seconds in profile.seconds.items() if seconds > 0}
    assert timed == {stage for stage in Stage if PLACES[stage] == "device"}

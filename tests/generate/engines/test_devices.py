from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch

from relabel_store.errors import AbsentRuleError, EngineError, OptionError, StoreBusyError
from relabel_store.generate import device as device_module
from relabel_store.generate.device import choose_devices, default_workers
from relabel_store.generate.engines import devices as devices_module
from relabel_store.generate.observer import BatchReport, BuildObserver
from relabel_store.generate.share import Share, hold_share
from relabel_store.generate.toy import ColourTeacher, build_colours
from relabel_store.manifest import TeacherInfo
from relabel_store.testing import file_digests

TWO = "cpu,cpu"  # two processes, which is what two devices are


make = functools.partial(
    build_colours, shard_rows=2, teacher="relabel_store.generate.toy:make_colour_teacher"
)  # six parts


@pytest.fixture(autouse=True)
def start_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork processes from one that has loaded everything, which takes milliseconds rather than seconds."""
    monkeypatch.setattr(devices_module, "_START_METHOD", "forkserver")


class Listener(BuildObserver):
    def __init__(self) -> None:
        self.teachers: list[str] = []
        self.starts: list[tuple[int, int, int]] = []
        self.samples = 0

    def on_teacher(self, teacher: TeacherInfo) -> None:
        self.teachers.append(teacher.name)

    def on_start(self, *, samples: int, finished_samples: int, parts: int) -> None:
        self.starts.append((samples, finished_samples, parts))

    def on_batch(self, report: BatchReport) -> None:
        assert self.starts
        self.samples += report.samples


def test_two_devices_write_the_bytes_of_one_and_tell_of_it_as_one(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(devices_module, "_START_METHOD", "spawn")  # as users have it
    listener = Listener()
    with caplog.at_level(logging.INFO, "relabel_store"):
        report = make(photos, tmp_path / "two", device=TWO, observer=listener)
    assert (report.is_complete, report.labelled, report.parts_left) == (True, 12, 0)
    assert (listener.teachers, listener.starts, listener.samples) == (["colours"], [(12, 0, 6)], 12)
    assert sorted(message for message in caplog.messages if message.startswith("part ")) == [
        f"part {part} of 6 finished: 2 rows" for part in range(6)
    ]
    assert report.profile is not None
    assert report.profile.images == 12
    make(photos, tmp_path / "one")
    assert file_digests(tmp_path / "two") == file_digests(tmp_path / "one")


def test_several_devices_go_on_with_a_store_and_build_a_share(photos: Path, tmp_path: Path):
    make(photos, tmp_path / "s", share="0/3")
    listener = Listener()
    report = make(photos, tmp_path / "s", device=TWO, share="1/3", observer=listener)
    assert (report.is_complete, report.labelled, report.parts_left) == (False, 4, 2)
    assert listener.starts == [(4, 0, 2)]
    assert make(photos, tmp_path / "s", device=TWO).is_complete
    make(photos, tmp_path / "one")
    assert file_digests(tmp_path / "s") == file_digests(tmp_path / "one")


def test_a_limit_is_kept_and_images_that_cannot_be_decoded_are_reported_by_row(photos: Path, tmp_path: Path):
    for name in ("green/1.png", "blue/2.png", "red/0.png"):
        (photos / name).write_bytes(b"no picture")
    report = make(photos, tmp_path / "two", device=TWO, limit=9)
    one = make(photos, tmp_path / "one", limit=9)
    assert len(report.bad_images) > 1
    assert report.bad_images == one.bad_images


def test_what_one_process_raises_is_raised_here(photos: Path, tmp_path: Path):
    with pytest.raises(AbsentRuleError, match="--absent rest"):
        make(photos, tmp_path / "s", teacher=ColourTeacher(offset=-3), device=TWO)


def test_what_the_system_refuses_one_process_is_its_error_here(photos: Path, tmp_path: Path):
    make(photos, tmp_path / "s", share="0/3")
    (tmp_path / "s" / "indices" / "c" / "5").write_bytes(b"where a folder should be")
    with pytest.raises(OSError, match="indices/c/5"):
        make(photos, tmp_path / "s", device=TWO)


def test_another_build_of_the_store_is_left_alone(photos: Path, tmp_path: Path):
    with hold_share(tmp_path / "s", Share()), pytest.raises(StoreBusyError, match="another build"):
        make(photos, tmp_path / "s", device=TWO)


class Kill(BuildObserver):
    """Ends the processes as the kernel does when memory runs out, before they label."""

    def on_teacher(self, teacher: TeacherInfo) -> None:
        for process in multiprocessing.active_children():
            os.kill(process.pid or 0, signal.SIGKILL)


def test_a_process_that_dies_ends_the_build_which_can_be_gone_on_with(photos: Path, tmp_path: Path):
    with pytest.raises(EngineError, match=r"device cpu: its process was ended by SIGKILL.*the same command"):
        make(photos, tmp_path / "s", device=TWO, observer=Kill())
    assert multiprocessing.active_children() == []
    assert make(photos, tmp_path / "s").is_complete
    make(photos, tmp_path / "one")
    assert file_digests(tmp_path / "s") == file_digests(tmp_path / "one")


class Gpus:
    @pytest.fixture(autouse=True)
    def four(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


class TestNames(Gpus):
    def test_all_gpus_of_the_machine(self):
        assert choose_devices("cuda:all") == [torch.device("cuda", index) for index in range(4)]

    def test_a_list_of_them(self):
        assert choose_devices("cuda:0,cuda:3") == [torch.device("cuda", 0), torch.device("cuda", 3)]

    @pytest.mark.parametrize("name", ["", "cuda:0,", "cuda:0,gpu", "all", "cpu:1"])
    def test_what_names_no_device_is_refused(self, name: str):
        with pytest.raises(OptionError, match="cuda:all or several with commas"):
            choose_devices(name)

    def test_torchrun_has_divided_them_already(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
        with pytest.raises(OptionError, match="torchrun started 4 processes here"):
            choose_devices("cuda:all")


class TestDecoders(Gpus):
    @pytest.fixture(autouse=True)
    def cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(device_module.os, "sched_getaffinity", lambda _: set(range(32)), raising=False)

    @pytest.mark.parametrize(
        ("sharing", "processes", "expected"), [(1, "", 16), (4, "", 8), (1, "8", 4), (64, "", 1)]
    )
    def test_devices_share_the_cores(
        self, monkeypatch: pytest.MonkeyPatch, sharing: int, processes: str, expected: int
    ):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert default_workers(torch.device("cuda"), sharing=sharing) == expected
        assert default_workers(torch.device("cpu"), sharing=sharing) == 1

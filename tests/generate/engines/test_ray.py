from __future__ import annotations

import functools
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relabel_store.errors import AbsentRuleError, EngineError
from relabel_store.generate.observer import BatchReport, BuildObserver
from relabel_store.generate.toy import ColourTeacher, build_colours
from relabel_store.images.source import ImageSource
from relabel_store.inspect.status import status_of
from relabel_store.store.reader import open_store
from relabel_store.store.running import FailedPart
from relabel_store.testing import file_digests

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # before the import: loopback alone
ray = pytest.importorskip("ray")

from relabel_store.generate.engines import ray as engine_module  # noqa: E402
from relabel_store.generate.engines.ray import RayEngine, RaySettings, ray_cluster  # noqa: E402


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    """Two workers on a cluster of this machine, which every test here shares."""
    # Workers find the functions of this file by value: they cannot import it.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with ray_cluster(RaySettings(workers=2)) as engine:
        yield engine


make = functools.partial(build_colours, shard_rows=2)  # six parts


class Count(BuildObserver):
    def __init__(self) -> None:
        self.samples = 0

    def on_batch(self, report: BatchReport) -> None:
        self.samples += report.samples


def test_a_cluster_writes_the_bytes_of_one_process(engine: RayEngine, photos: Path, tmp_path: Path):
    observer = Count()
    report = make(photos, tmp_path / "ray", engine="ray", ray_workers=2, observer=observer)
    assert report.is_complete
    assert (report.labelled, observer.samples, report.failed_parts) == (12, 12, ())
    make(photos, tmp_path / "here")
    assert file_digests(tmp_path / "ray") == file_digests(tmp_path / "here")


class AddAnImage(BuildObserver):
    """Adds an image that would be the first, once the images are listed."""

    def __init__(self, photos: Path) -> None:
        self.photos = photos

    def on_images(self, source: ImageSource) -> None:
        (self.photos / "aaa").mkdir()
        shutil.copy(self.photos / "red" / "0.png", self.photos / "aaa" / "0.png")


@pytest.mark.parametrize("limit", [None, 7])
def test_images_are_listed_by_the_driver_alone(
    engine: RayEngine, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
):
    make(photos, tmp_path / "here", limit=limit)
    monkeypatch.chdir(tmp_path)  # workers are elsewhere
    report = make("photos", "ray", engine="ray", limit=limit, observer=AddAnImage(photos))
    assert report.is_complete
    assert file_digests(tmp_path / "ray") == file_digests(tmp_path / "here")


def test_it_goes_on_where_another_engine_stopped(engine: RayEngine, photos: Path, tmp_path: Path):
    make(photos, tmp_path / "s", share="0/2")
    report = make(photos, tmp_path / "s", engine="ray")
    assert (report.is_complete, report.labelled) == (True, 6)
    make(photos, tmp_path / "here")
    assert file_digests(tmp_path / "s") == file_digests(tmp_path / "here")


class DyingTeacher(ColourTeacher):
    """Takes its process down the first few times that it is asked, as a machine that is taken away does."""

    def __init__(self, marks: Path, times: int) -> None:
        super().__init__()
        self.marks = marks
        self.times = times

    def dense_logits(self, images, precision):  # type: ignore[no-untyped-def]
        for number in range(self.times):
            mark = self.marks / str(number)
            if len(images) > 1 and not mark.exists():  # not while the build is planned
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().dense_logits(images, precision)

    def identity_error(self, images):  # type: ignore[no-untyped-def]
        return ColourTeacher().identity_error(images)


@pytest.mark.parametrize("times", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_workers_killed_in_the_middle_of_a_part(engine: RayEngine, photos: Path, tmp_path: Path, times: int):
    (tmp_path / "marks").mkdir()
    report = make(photos, tmp_path / "s", teacher=DyingTeacher(tmp_path / "marks", times), engine="ray")
    assert len(list((tmp_path / "marks").iterdir())) == times
    assert report.is_complete
    make(photos, tmp_path / "here")
    assert file_digests(tmp_path / "s") == file_digests(tmp_path / "here")


class RefusingTeacher(ColourTeacher):
    """Cannot stand blue, whoever asks."""

    def dense_logits(self, images, precision):  # type: ignore[no-untyped-def]
        if len(images) > 1 and bool((images[:, 2].mean(dim=(1, 2)) > 0.5).any()):
            raise ZeroDivisionError("blue")
        return super().dense_logits(images, precision)

    def identity_error(self, images):  # type: ignore[no-untyped-def]
        return ColourTeacher().identity_error(images)


def test_a_part_that_always_fails_is_set_aside_and_the_others_finish(
    engine: RayEngine, photos: Path, tmp_path: Path
):
    report = make(photos, tmp_path / "s", teacher=RefusingTeacher(), engine="ray")
    assert not report.is_complete
    parts = [failed.part for failed in report.failed_parts]
    assert parts == sorted(parts)
    assert 0 < len(parts) < 6
    assert report.parts_left == len(parts)
    for failed in report.failed_parts:
        assert failed.attempts == 5
        assert "ZeroDivisionError: blue" in failed.reason
        assert "in dense_logits" in failed.reason
    status = status_of(open_store(tmp_path / "s"))
    assert [failed.part for failed in status.failed] == parts
    assert make(photos, tmp_path / "s").is_complete  # with a teacher that can
    make(photos, tmp_path / "here")
    assert file_digests(tmp_path / "s") == file_digests(tmp_path / "here")


def test_what_is_wrong_with_all_parts_stops_the_build_at_once(
    engine: RayEngine, photos: Path, tmp_path: Path
):
    with pytest.raises(AbsentRuleError, match="--absent rest"):
        make(photos, tmp_path / "s", teacher=ColourTeacher(offset=-3), engine="ray")


# The scheduling, without labels


def square(part: int, marks: Path) -> int:
    (marks / f"{part}-{time.monotonic_ns()}").touch()
    if part == 3:
        raise ValueError("three")
    if part == 4:
        os._exit(1)
    return part * part


def test_every_part_is_done_once_or_given_up_for_its_reason(
    engine: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_module, "_MAX_DEATHS", 3)  # of 20, which take a while
    found = RayEngine(ray, RaySettings(workers=2))
    assert sorted(found.run(square, range(8), tmp_path)) == [0, 1, 4, 25, 36, 49]
    attempts = [int(mark.name.split("-")[0]) for mark in tmp_path.iterdir()]
    assert {part: attempts.count(part) for part in set(attempts)} == {
        **dict.fromkeys((0, 1, 2, 5, 6, 7), 1),
        3: 5,
        4: 3,
    }
    assert found.failed[3].attempts == 5
    assert "ValueError: three" in found.failed[3].reason
    assert isinstance(found.failed[4], FailedPart)
    assert found.failed[4].attempts == 3


def who(part: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def test_a_process_stays_for_the_next_part(engine: RayEngine):
    found = RayEngine(ray, RaySettings(workers=2))
    assert len(set(found.run(who, range(12)))) <= 2


def test_leaving_in_the_middle_takes_the_tasks_along(engine: RayEngine, tmp_path: Path):
    found = RayEngine(ray, RaySettings(workers=2))
    results = found.run(square, [0, 1, 2, 5, 6, 7] * 50, tmp_path)
    next(results)
    results.close()
    time.sleep(1)
    done = len(list(tmp_path.iterdir()))
    time.sleep(1)
    assert len(list(tmp_path.iterdir())) == done < 300


def test_the_cluster_of_one_machine_listens_on_its_loopback_alone(engine: RayEngine):
    import psutil

    ours = psutil.Process()
    ports = {
        connection.laddr.ip
        for process in [ours, *ours.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert ports
    assert ports <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:door"])
def test_a_cluster_that_is_not_there_is_an_error(photos: Path, tmp_path: Path, address: str):
    ray.shutdown()
    with pytest.raises(EngineError, match=rf"no cluster at '{address}'.*leave --ray-address out"):
        make(photos, tmp_path / "s", engine="ray", ray_address=address)
    assert not (tmp_path / "s").exists()

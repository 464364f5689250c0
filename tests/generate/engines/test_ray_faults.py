"""What a cluster may do to a build: each ends with the bytes of one that nobody disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from relabel_store.generate.build import build
from relabel_store.generate.observer import BatchReport, BuildObserver
from relabel_store.generate.toy import ColourTeacher
from relabel_store.testing import file_digests

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # before the import: loopback alone
ray = pytest.importorskip("ray")

pytestmark = pytest.mark.slow

SETTINGS = {"batch_size": 3, "shard_rows": 1, "top_k": 3, "workers": 0, "device": "cpu"}


class Slow(ColourTeacher):
    """Takes a while for a batch, so that something can happen meanwhile."""

    def dense_logits(self, images, precision):  # type: ignore[no-untyped-def]
        time.sleep(0.3)
        return super().dense_logits(images, precision)


class After(BuildObserver):
    """Does something once so many samples are labelled."""

    def __init__(self, samples: int, then: Callable[[], object]) -> None:
        self.left = samples
        self.then = then

    def on_batch(self, report: BatchReport) -> None:
        before, self.left = self.left, self.left - report.samples
        if before > 0 >= self.left:
            self.then()


def test_a_node_is_removed_and_another_added(photos: Path, tmp_path: Path):
    from ray.cluster_utils import Cluster

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        first = cluster.add_node(num_cpus=2)

        def change() -> None:
            cluster.remove_node(first, allow_graceful=False)
            cluster.add_node(num_cpus=2)

        report = build(
            Slow(),
            photos,
            tmp_path / "s",
            engine="ray",
            ray_address=cluster.address,
            observer=After(3, change),
            **SETTINGS,
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert report.is_complete
    build(ColourTeacher(), photos, tmp_path / "here", **SETTINGS)
    assert file_digests(tmp_path / "s") == file_digests(tmp_path / "here")


BUILD = """
import sys, time
from relabel_store.generate.build import build
from relabel_store.generate.observer import BuildObserver
from relabel_store.generate.toy import ColourTeacher
class Say(BuildObserver):
    def on_batch(self, report):
        print("labelled", flush=True)
        time.sleep(len(sys.argv) > 3)
build(ColourTeacher(), sys.argv[1], sys.argv[2], batch_size=3, shard_rows=1, top_k=3, workers=0, device="cpu",
      engine="ray", ray_workers=1, observer=Say())
"""


def test_the_driver_is_killed_and_started_again(photos: Path, tmp_path: Path):
    command = [sys.executable, "-P", "-c", BUILD, str(photos), str(tmp_path / "s")]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "labelled\n"
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    assert not (tmp_path / "s" / "complete.json").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    build(ColourTeacher(), photos, tmp_path / "here", **SETTINGS)
    assert file_digests(tmp_path / "s") == file_digests(tmp_path / "here")


def test_two_drivers_on_one_store(photos: Path, tmp_path: Path):
    """On one host the second is refused, by name; on two, both may finish it."""
    command = [sys.executable, "-P", "-c", BUILD, str(photos), str(tmp_path / "s")]
    first = subprocess.Popen([*command, "slowly"], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "labelled\n"
    second = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "another build of it is running on this host" in second.stderr
    first.communicate()
    assert first.returncode == 0
    build(ColourTeacher(), photos, tmp_path / "here", **SETTINGS)
    assert file_digests(tmp_path / "s") == file_digests(tmp_path / "here")


class Hungry(ColourTeacher):
    """Takes more memory than its node has left, the first few times that it labels."""

    def __init__(self, marks: Path, times: int, size_bytes: int) -> None:
        super().__init__()
        self.marks = marks
        self.times = times
        self.size_bytes = size_bytes

    def dense_logits(self, images, precision):  # type: ignore[no-untyped-def]
        if len(images) > 1:  # not while the build is planned
            for number in range(self.times):
                mark = self.marks / str(number)
                if not mark.exists():
                    mark.touch()
                    taken = np.ones(self.size_bytes, np.uint8)
                    time.sleep(60)  # in which Ray looks at the memory of the node, and ends this
                    raise AssertionError(f"nobody minds {len(taken)} bytes")
        return super().dense_logits(images, precision)

    def identity_error(self, images):  # type: ignore[no-untyped-def]
        return ColourTeacher().identity_error(images)


def test_workers_that_take_too_much_memory(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    spare, taken = 1_500_000_000, 2_500_000_000
    memory = psutil.virtual_memory()
    if memory.available < 2 * taken:
        pytest.skip(f"{memory.available} bytes of memory are free, {2 * taken} are needed")
    threshold = (memory.total - memory.available + spare) / memory.total
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{threshold:.4f}")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    (tmp_path / "marks").mkdir()
    teacher = Hungry(tmp_path / "marks", 3, taken)
    report = build(
        teacher, photos, tmp_path / "s", engine="ray", ray_workers=1, **{**SETTINGS, "shard_rows": 4}
    )
    assert report.is_complete
    assert len(list((tmp_path / "marks").iterdir())) == 3
    assert caplog.text.count("OutOfMemoryError") == 3
    build(ColourTeacher(), photos, tmp_path / "here", **{**SETTINGS, "shard_rows": 4})
    assert file_digests(tmp_path / "s") == file_digests(tmp_path / "here")

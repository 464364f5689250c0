from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relabel_store.errors import OptionError, StoreBusyError
from relabel_store.generate.share import Share, hold_share
from relabel_store.generate.toy import build_colours
from relabel_store.testing import file_digests


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_divide_the_parts(count: int):
    parts = range(11)
    divided = [part for index in range(count) for part in Share(index, count).of(parts)]
    assert sorted(divided) == list(parts)


@pytest.mark.parametrize("text", ["", "1", "1/1", "3/2", "-1/2", "a/b", "0/0", "1/2/3", " 0/2"])
def test_what_is_no_share_is_refused(text: str):
    with pytest.raises(OptionError, match="share"):
        Share.parse(text)


def test_a_share_reads_back_what_it_prints():
    assert Share.parse(str(Share(2, 8))) == Share(2, 8)


@pytest.mark.parametrize(
    ("held", "wanted"),
    [(Share(), Share()), (Share(), Share(0, 2)), (Share(0, 2), Share()), (Share(1, 2), Share(1, 2))],
    ids=["whole twice", "share beside whole", "whole beside share", "same share twice"],
)
def test_builds_that_would_do_the_same_work_are_refused(tmp_path: Path, held: Share, wanted: Share):
    with (
        hold_share(tmp_path / "s", held),
        pytest.raises(StoreBusyError, match="--share I/N"),
        hold_share(tmp_path / "s", wanted),
    ):
        pass


def test_different_shares_run_side_by_side(tmp_path: Path):
    with hold_share(tmp_path / "s", Share(0, 2)), hold_share(tmp_path / "s", Share(1, 2)):
        pass
    with hold_share(tmp_path / "s", Share()):
        pass


def test_a_build_that_began_nothing_leaves_nothing(tmp_path: Path):
    def fail() -> None:
        with hold_share(tmp_path / "s", Share()):
            raise RuntimeError("the teacher cannot be loaded")

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8"}
ARRAY = {
    "SLURM_ARRAY_TASK_ID": "12",
    "SLURM_ARRAY_TASK_MIN": "10",
    "SLURM_ARRAY_TASK_MAX": "13",
    "SLURM_ARRAY_TASK_STEP": "1",
    "SLURM_ARRAY_TASK_COUNT": "4",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "3"}, None),
        (TORCHRUN, Share(3, 8)),
        (ARRAY, Share(2, 4)),
        ({**ARRAY, "SLURM_ARRAY_TASK_MAX": "16", "SLURM_ARRAY_TASK_STEP": "2"}, Share(1, 4)),
        ({**ARRAY, **TORCHRUN}, Share(2 + 4 * 3, 32)),
    ],
    ids=["nothing", "half-of-torchrun", "torchrun", "array", "array-with-steps", "torchrun-in-an-array"],
)
def test_the_environment_gives_a_share(environment: dict[str, str], expected: Share | None):
    assert Share.from_environment(environment) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "three", "WORLD_SIZE": "8"}, "RANK is 'three', expected a whole number"),
        ({"RANK": "8", "WORLD_SIZE": "8"}, "expected 0/N to N-1/N"),
        ({**ARRAY, "SLURM_ARRAY_TASK_COUNT": "3"}, "expected one without gaps such as --array=0-63"),
        ({**ARRAY, "SLURM_ARRAY_TASK_MAX": ""}, "SLURM_ARRAY_TASK_MAX is ''"),
    ],
    ids=["no-number", "rank-too-large", "gaps", "missing"],
)
def test_an_environment_that_contradicts_itself_is_refused(environment: dict[str, str], message: str):
    with pytest.raises(OptionError, match=re.escape(message)):
        Share.from_environment(environment)


def test_all_tasks_of_an_array_of_torchruns_do_every_part_once():
    shares = [
        Share.from_environment(
            {**ARRAY, "SLURM_ARRAY_TASK_ID": str(10 + task), "RANK": str(rank), "WORLD_SIZE": "3"}
        )
        for task in range(4)
        for rank in range(3)
    ]
    done = [part for share in shares if share is not None for part in share.of(range(100))]
    assert sorted(done) == list(range(100))


def test_auto_asks_the_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OptionError, match="neither RANK and WORLD_SIZE"):
        Share.parse("auto")
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert Share.parse("auto") == Share(3, 8)


WITH_ANOTHER_CLOCK = """
import datetime, sys, time
import relabel_store.generate.build
from relabel_store.generate.toy import build_colours
offset_s, own_time = float(sys.argv[3]), time.time
time.time = lambda: own_time() + offset_s
class Elsewhere(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)
for name, module in list(sys.modules.items()):
    if name.startswith("relabel_store.") and getattr(module, "datetime", None) is datetime.datetime:
        module.datetime = Elsewhere
assert Elsewhere in vars(sys.modules["relabel_store.store.running"]).values()
build_colours(sys.argv[1], sys.argv[2], share=sys.argv[4])
"""


def test_hosts_whose_clocks_are_an_hour_apart_build_one_store(
    photos: Path, tmp_path: Path, program: Callable[..., Any]
):
    hosts = [
        program("-c", WITH_ANOTHER_CLOCK, photos, tmp_path / "s", offset, f"{index}/3")
        for index, offset in enumerate((-3600, 0, 3600))
    ]
    assert [(host.end(), host.returncode) for host in hosts] == [(("", ""), 0)] * 3
    build_colours(photos, tmp_path / "one")
    assert file_digests(tmp_path / "s") == file_digests(tmp_path / "one")

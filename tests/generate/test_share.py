from __future__ import annotations

from pathlib import Path

import pytest

from relabel_store.errors import StoreBusyError
from relabel_store.generate.share import Share, hold_share


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_divide_the_parts(count: int):
    parts = range(11)
    divided = [part for index in range(count) for part in Share(index, count).of(parts)]
    assert sorted(divided) == list(parts)


@pytest.mark.parametrize("text", ["", "1", "1/1", "3/2", "-1/2", "a/b", "0/0", "1/2/3", " 0/2"])
def test_what_is_no_share_is_refused(text: str):
    with pytest.raises(ValueError, match="share"):
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

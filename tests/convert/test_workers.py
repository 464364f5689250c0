from __future__ import annotations

import math
import os

import pytest

from relabel_store.convert.workers import each_part
from relabel_store.errors import EngineError

# Worker processes import what they are to do, which they could not from this file.


@pytest.mark.parametrize("workers", [1, 2])
def test_every_part_is_done_once(workers: int) -> None:
    parts = [0, 1, 4, 9, 16, 25, 36]
    assert sorted(each_part(math.isqrt, parts, workers)) == [0, 1, 2, 3, 4, 5, 6]


def test_a_worker_that_is_killed_ends_the_conversion_with_a_hint() -> None:
    with pytest.raises(EngineError, match="fewer --workers"):
        list(each_part(os._exit, range(1, 5), 2))


def test_no_parts_need_no_worker() -> None:
    assert list(each_part(math.isqrt, [], 4)) == []

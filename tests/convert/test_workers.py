from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from relabel_store.convert.workers import each_part
from relabel_store.errors import EngineError

# Worker processes import what they are to do, which they could not from this file.


@pytest.mark.parametrize("workers", [1, 2])
def test_every_part_is_done_once(workers: int) -> None:
    parts = [0, 1, 4, 9, 16, 25, 36]
    assert sorted(each_part(math.isqrt, parts, workers)) == [0, 1, 2, 3, 4, 5, 6]


def test_a_worker_that_is_killed_ends_the_conversion_with_a_hint() -> None:
    with pytest.raises(EngineError, match="with fewer workers if memory ran out"):
        list(each_part(os._exit, range(1, 5), 2))


@pytest.mark.parametrize("size", [1, 1 << 20], ids=["short", "long"])
def test_a_script_that_its_workers_cannot_import_ends_with_a_hint(tmp_path: Path, size: int) -> None:
    """What the workers do is longer than a pipe holds: whoever sends it to one that has ended would wait forever."""
    script = tmp_path / "script.py"
    script.write_text(
        "from functools import partial\n"
        "from relabel_store.convert.workers import each_part\n"
        f"print(list(each_part(partial(str.count, {size} * 'a'), ['a', 'b', 'c'], 2)))\n"
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert ran.returncode != 0
    assert "EngineError: a worker process ended" in ran.stderr
    assert "if __name__ == '__main__':" in ran.stderr


def test_no_parts_need_no_worker() -> None:
    assert list(each_part(math.isqrt, [], 4)) == []

"""Footers of Parquet files that Arrow ends the process for, if it is asked for a column: nobody asks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from relabel_store.errors import RelabelStoreError
from relabel_store.store.reader import open_store
from relabel_store.testing import make_manifest, make_store
from relabel_store.testing.damage import forge_file
from relabel_store.validate.run import validate_store

NAME = "made-up-00000-of-00002.parquet"
STRIDE = 29


def survives(work: Callable[[], object]) -> bool:
    """Do some work in a process of its own; tell whether it came to an end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads, which do nothing here
        child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            work()
        except RelabelStoreError:
            os._exit(0)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def level_histograms(footer: bytes) -> list[int]:
    """Return where the length of a histogram of levels stands: of an empty list (0x19) of integers (0x06)."""
    return [at + 1 for at in range(len(footer) - 1) if footer[at : at + 2] == b"\x19\x06"]


@pytest.mark.parametrize(
    "amount", [STRIDE * 8, pytest.param(STRIDE, marks=pytest.mark.slow)], ids=["sample", "more"]
)
def test_no_footer_ends_the_process(tmp_path: Path, amount: int) -> None:
    path = tmp_path / "store"
    make_store(path, np.random.default_rng(0), make_manifest(encoding="parquet"))
    sound = (path / NAME).read_bytes()
    start = len(sound) - 3200
    bits = [(start + at, bit) for at in level_histograms(sound[start:]) for bit in (5, 6)]
    bits += [(sound.rindex(name), 7) for name in (b"sample_id", b"values")]  # the names are no UTF-8 then
    bits += [(at // 8, at % 8) for at in range(8 * start, 8 * len(sound), amount)]
    ended = []
    for offset, bit in bits:
        forge_file(NAME, sound[:offset] + bytes([sound[offset] ^ 1 << bit]) + sound[offset + 1 :], path)
        if not survives(lambda: validate_store(path)) or not survives(
            lambda: open_store(path).read_rows([0])
        ):
            ended.append((offset, bit))
    assert ended == []

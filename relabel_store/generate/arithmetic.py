"""Arithmetic that gives the same bits each time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def fixed_arithmetic(threads: int) -> Iterator[None]:
    """Make the teacher's arithmetic repeatable to the bit while the block runs.

    Parameters
    ----------
    threads
        CPU threads of one forward pass: they decide in which order numbers are added.
    """
    threads_before = torch.get_num_threads()
    cudnn = torch.backends.cudnn
    torch.set_num_threads(threads)
    try:
        with cudnn.flags(
            enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=cudnn.allow_tf32
        ):
            yield
    finally:
        torch.set_num_threads(threads_before)

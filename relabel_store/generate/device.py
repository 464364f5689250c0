"""Devices, and what suits each of them."""

from __future__ import annotations

import os

import torch

from relabel_store.errors import OptionError, TeacherError
from relabel_store.generate.precision import Precision

CPU_BATCH = 8  # larger ones gain nothing on a CPU
_MAX_CUDA_WORKERS = 16


def choose_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is the first GPU, under torchrun that of ``LOCAL_RANK``, or the CPU.

    Raises
    ------
    OptionError
        It names no device.
    TeacherError
        There is no such device here.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        local_rank = os.environ.get("LOCAL_RANK", "")
        return torch.device(
            "cuda", int(local_rank) % torch.cuda.device_count() if local_rank.isdecimal() else 0
        )
    try:
        device = torch.device(name)
    except RuntimeError:
        raise OptionError(f"device: {name!r}, expected auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise OptionError(f"device: {name!r}, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TeacherError(f"device: {name!r}, but {torch.cuda.device_count()} CUDA devices are visible here")
    return device


def best_precision(device: torch.device) -> Precision:
    """Return the arithmetic that a device is best at."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return Precision.BF16
    return Precision.FP32


def default_workers(device: torch.device) -> int:
    """Return how many processes decode images for a device."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # On the CPU the teacher needs the cores itself, and one decoder outruns it many times.
    return min(cores, _MAX_CUDA_WORKERS) if device.type == "cuda" else 1

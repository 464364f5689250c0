"""Devices, and what suits each of them."""

from __future__ import annotations

import os

import torch

from relabel_store.errors import OptionError, TeacherError
from relabel_store.generate.precision import Precision

CPU_BATCH = 8  # larger ones gain nothing on a CPU
_MAX_CUDA_WORKERS = 16
_NAMES = "auto, cpu, cuda, cuda:N, cuda:all or several with commas"


def choose_devices(name: str) -> list[torch.device]:
    """Return the devices of ``cuda:all``, of a list such as ``cuda:0,cuda:2``, or the one that `choose_device` finds.

    Raises
    ------
    OptionError
        It names no device, or all GPUs where torchrun has given this process one of them.
    TeacherError
        There is no such device here.
    """
    if name == "cuda:all":
        if _processes_here() > 1:
            raise OptionError(
                f"device: 'cuda:all', but torchrun started {_processes_here()} processes here, a GPU for each; "
                "use auto, or leave torchrun out"
            )
        choose_device("cuda")  # raises where there is none
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [choose_device(one) for one in name.split(",")]


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
        raise OptionError(f"device: {name!r}, expected {_NAMES}") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise OptionError(f"device: {name!r}, expected {_NAMES}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TeacherError(f"device: {name!r}, but {torch.cuda.device_count()} CUDA devices are visible here")
    return device


def best_precision(device: torch.device) -> Precision:
    """Return the arithmetic that a device is best at."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return Precision.BF16
    return Precision.FP32


def default_workers(device: torch.device, *, sharing: int = 1) -> int:
    """Return how many processes decode images for a device.

    Parameters
    ----------
    sharing
        Devices that share the cores of this machine, as far as this process feeds them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # On the CPU the teacher needs the cores itself, and one decoder outruns it many times.
    if device.type != "cuda":
        return 1
    return min(max(cores // (sharing * _processes_here()), 1), _MAX_CUDA_WORKERS)


def _processes_here() -> int:
    """Return how many processes torchrun started on this machine; 1 without it."""
    count = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(int(count), 1) if count.isdecimal() else 1

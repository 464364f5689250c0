"""Float32 that is float32, and the lower precisions that are asked for by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


def autocast_to(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Return autocast to a dtype; None switches off what the caller has switched on."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextlib.contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Switch off the shortened float32 (TF32, bfloat16) that matrix products and convolutions may use.

    Convolutions on CUDA use TF32 unless told otherwise, and some heads are convolutions: the identity would
    then hold to 1e-3 only.
    """
    backends: Any = torch.backends
    if not hasattr(backends.cudnn, "conv"):  # torch before 2.9
        with _legacy_full_float32():
            yield
        return
    settings = (
        (backends.cuda.matmul, backends.cudnn.conv)
        if device.type == "cuda"
        else (backends.mkldnn.matmul, backends.mkldnn.conv)
    )
    found = [(setting, setting.fp32_precision) for setting in settings]
    shortened = [(setting, precision) for setting, precision in found if precision not in ("none", "ieee")]
    try:
        for setting, _ in shortened:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, precision in shortened:
            setting.fp32_precision = precision


@contextlib.contextmanager
def _legacy_full_float32() -> Iterator[None]:
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution

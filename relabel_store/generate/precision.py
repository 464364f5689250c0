"""Arithmetic of the teacher's features."""

from __future__ import annotations

from enum import StrEnum

import torch


class Precision(StrEnum):
    """Arithmetic of the teacher's features; its head always works in float32."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"

    @property
    def autocast(self) -> torch.dtype | None:
        """The dtype for autocast; None for float32."""
        return {Precision.FP32: None, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}[self]

"""The layout of the published ReLabel maps: float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from relabel_store.convert.targets.tensor_files import TensorFiles

SUFFIXES: tuple[str, ...] = ()


def open_target(path: Path) -> TensorFiles:
    """Return what writes a folder of PyTorch files."""
    # The published reader scatters the values into float32, which PyTorch refuses of another dtype.
    return TensorFiles(path, "relabel", np.dtype(np.float32), max_classes=2**24)

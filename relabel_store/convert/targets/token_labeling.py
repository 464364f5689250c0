"""The layout of the published TokenLabeling maps: float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from relabel_store.convert.targets.tensor_files import TensorFiles

SUFFIXES: tuple[str, ...] = ()


def open_target(path: Path) -> TensorFiles:
    """Return what writes a folder of PyTorch files."""
    return TensorFiles(path, "token-labeling", np.dtype(np.float16), max_classes=2048)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relabel_store.generate.toy import COLOURS, ColourTeacher

PALETTE = {"red": (250, 10, 10), "green": (10, 240, 20), "blue": (5, 5, 250), "thing": (120, 130, 110)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A tree of 12 small images in four class folders; three of them are colours of the teacher."""
    return paint_photos(tmp_path / "photos")


@pytest.fixture
def paint() -> Callable[[Path], Path]:
    return paint_photos


@pytest.fixture
def teacher() -> ColourTeacher:
    return ColourTeacher()


@pytest.fixture
def save() -> Callable[..., Path]:
    return save_weights


def paint_photos(root: Path, per_class: int = 3) -> Path:
    rng = np.random.default_rng(1)
    for name, colour in PALETTE.items():
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            noise = rng.integers(-40, 40, (30 + number, 45, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    assert set(PALETTE) - set(COLOURS) == {"thing"}
    return root


def save_weights(
    path: Path, *, num_classes: int = 1000, architecture: str = "test_efficientnet", **wrapped_in: object
) -> Path:
    """Write random weights of an architecture, the same each time; with more around them if there is any."""
    import safetensors.torch  # not for tests that need none of this
    import timm
    import torch

    torch.manual_seed(0)
    state = timm.create_model(architecture, pretrained=False, num_classes=num_classes).state_dict()
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({**wrapped_in, "state_dict": state} if wrapped_in else state, path)
    return path

"""Stores of a teacher of six colours in three parts, to be damaged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relabel_store.generate.toy import build_colours

_COLOURS = {"red": (250, 10, 10), "green": (10, 240, 20), "thing": (120, 130, 110)}


@pytest.fixture(autouse=True)
def fsync_that_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up stores need not survive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine small images in three class folders, one of which is none; nobody may touch them."""
    root = tmp_path_factory.mktemp("images") / "photos"
    rng = np.random.default_rng(1)
    for name, colour in _COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(3):
            noise = rng.integers(-40, 40, (30 + number, 45, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    (root / "green" / "1.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Callable[[str], Path]:
    """Return the undamaged store of an encoding: nobody may touch it."""
    made: dict[str, Path] = {}

    def build(encoding: str) -> Path:
        if encoding not in made:
            path = tmp_path_factory.mktemp("whole") / "s"
            build_colours(photos, path, encoding=encoding)
            made[encoding] = path
        return made[encoding]

    return build


@pytest.fixture
def store(tmp_path: Path, whole: Callable[[str], Path]) -> Callable[[str], Path]:
    """Return a copy of the store of an encoding, to be damaged."""

    def copy(encoding: str) -> Path:
        return Path(shutil.copytree(whole(encoding), tmp_path / "s"))

    return copy

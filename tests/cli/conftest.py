from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from relabel_store.cli.main import main

from relabel_store.testing import make_store

FACTORY = "relabel_store.generate.toy:make_colour_teacher"


@pytest.fixture
def run() -> Callable[..., Result]:
    """Run a command; an exception that is not ours fails the test with its traceback."""

    def invoke(*arguments: object) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in ("red", "green"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (40, 30 + number), name).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator) -> Path:
    make_store(tmp_path / "s.zarr", rng, bad_images={3: "truncated"})
    return tmp_path / "s.zarr"


@pytest.fixture
def python() -> str:
    return sys.executable

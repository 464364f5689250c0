"""Fixtures for every test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from relabel_store.demo import run_demo


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20210112)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the demo: real photographs, labelled by a real teacher."""
    directory = tmp_path_factory.mktemp("session") / "demo"
    run_demo(directory)
    return directory

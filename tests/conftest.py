"""Fixtures for every test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

LAST = ("test_jax.py",)  # JAX starts threads, and warns of every fork of the process from then on


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests last that would disturb others in their process."""
    items.sort(key=lambda item: item.path.name in LAST)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that environments of one framework are tested with."""
    parser.addoption("--no-skips", action="store_true", help="Fail where a test was skipped.")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that may not skip and did."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and not exitstatus and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20210112)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the demo: real photographs, labelled by a real teacher."""
    from relabel_store.demo import run_demo  # which needs torch: not every environment has it

    directory = tmp_path_factory.mktemp("session") / "demo"
    run_demo(directory)
    return directory

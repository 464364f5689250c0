"""Small stores to judge."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def fsync_that_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up stores need not survive a power cut, and on a busy disk fsync is most of a test's time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)

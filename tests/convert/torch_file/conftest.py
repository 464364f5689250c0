"""Files as torch itself writes them."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch


def saved(value: Any, *, is_zip: bool = True) -> bytes:
    """Return what ``torch.save`` writes, in its present form or in that from before 1.6."""
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=is_zip)
    return file.getvalue()


@pytest.fixture(scope="session")
def save():
    return saved


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def is_zip(request) -> bool:
    return request.param

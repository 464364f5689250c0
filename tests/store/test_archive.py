"""Stores that earlier releases wrote stay readable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from relabel_store.errors import NoLabelError
from relabel_store.store.reader import open_store

STORES = Path(__file__).parents[1] / "data" / "stores" / "valid"


@pytest.fixture(params=["format-1.0", "format-1.0-packed"])
def archived(request: pytest.FixtureRequest) -> Path:
    return STORES / str(request.param)


def test_a_store_of_format_1_0_holds_what_was_written(archived: Path):
    store = open_store(archived)
    assert store.manifest.format_version == "1.0"
    assert store.is_complete
    with np.load(STORES / "format-1.0.npz") as expected:
        found = store.read_rows(expected["rows"])
        for name in ("indices", "values", "rest"):
            np.testing.assert_array_equal(getattr(found, name), expected[name], strict=True)
    with pytest.raises(NoLabelError, match="truncated"):
        store[3]
    assert store.row_of("cat/photo 0001") == 0
    assert store.samples["status"].to_pylist().count("labelled") == 9


def test_its_digest_is_still_that_of_its_bytes(archived: Path):
    recorded = json.loads((archived / "complete.json").read_bytes())["digest"]
    assert open_store(archived).digest == recorded

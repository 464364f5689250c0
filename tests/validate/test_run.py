from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from relabel_store.errors import StoreNotFoundError
from relabel_store.store.encodings import ENCODINGS
from relabel_store.testing import make_manifest, make_store
from relabel_store.validate.run import validate_store

ARCHIVE = Path(__file__).parents[1] / "data" / "stores" / "valid" / "format-1.0"


def test_the_store_of_the_first_release_is_valid():
    assert not validate_store(ARCHIVE).has_errors()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_store_that_was_just_written_is_valid(tmp_path: Path, rng: np.random.Generator, encoding: str):
    make_store(tmp_path / "s", rng, make_manifest(encoding=encoding), bad_images={3: "truncated"})
    report = validate_store(tmp_path / "s")
    assert report.groups == ()
    assert report.skipped == ()


def test_a_place_without_a_store_is_an_error(tmp_path: Path):
    with pytest.raises(StoreNotFoundError):
        validate_store(tmp_path)

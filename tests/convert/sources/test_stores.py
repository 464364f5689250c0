from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel_store import spec
from relabel_store.convert.run import convert
from relabel_store.convert.source import SourceOptions
from relabel_store.convert.sources.stores import StoreSource, open_source, recognise
from relabel_store.errors import NoLabelError, OptionError, UnfinishedStoreError
from relabel_store.labels.topk import is_sorted
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import AbsentRule
from relabel_store.store.encoded import EncodedStore
from relabel_store.store.reader import LabelStore, open_store
from relabel_store.testing import make_manifest, make_store


def assert_same_labels(found: LabelStore, expected: LabelStore) -> None:
    rows = [row for row in range(len(expected)) if expected.has_label(row)]
    ours, theirs = found.read_rows(rows), expected.read_rows(rows)
    assert ours.sample_ids == theirs.sample_ids
    np.testing.assert_array_equal(ours.indices, theirs.indices)
    np.testing.assert_array_equal(ours.values.view(np.uint16), theirs.values.view(np.uint16))
    if theirs.rest is None:
        assert ours.rest is None
    else:
        np.testing.assert_array_equal(ours.rest, theirs.rest)
    assert found.samples.equals(expected.samples)
    assert found.bad_images == expected.bad_images
    assert found.manifest.statistics == expected.manifest.statistics


@settings(max_examples=12)
@given(
    n=st.integers(1, 9),
    k=st.integers(1, 5),
    value_step=st.sampled_from([0.125, 1.0, "exact"]),
    absent=st.sampled_from(AbsentRule),
    bad=st.sets(st.integers(0, 8)),
    seed=st.integers(0, 2**16),
    between=st.sampled_from([name for name in spec.ENCODING_VERSIONS if name != spec.ENCODING_ZARR]),
)
def test_labels_there_and_back_are_the_same(
    n: int, k: int, value_step: float | str, absent: AbsentRule, bad: set[int], seed: int, between: str
) -> None:
    manifest = make_manifest(n, k=k, value_step=value_step, absent=absent)
    with tempfile.TemporaryDirectory() as folder:
        first, second, third = (Path(folder, name) for name in ("a.zarr", f"b.{between}", "c.zarr"))
        make_store(
            first, np.random.default_rng(seed), manifest, bad_images={row: "x" for row in bad if row < n}
        )
        convert(first, second, workers=1)
        convert(second, third, workers=1)
        assert_same_labels(open_store(second), open_store(first))
        assert_same_labels(open_store(third), open_store(first))


def test_values_are_rounded_further_on_request(tmp_path: Path, store: EncodedStore) -> None:
    convert(tmp_path / "a.zarr", tmp_path / "b.parquet", value_step=0.5, workers=1)
    coarse = open_store(tmp_path / "b.parquet")
    rows = [row for row in range(10) if row != 5]
    ours, theirs = coarse.read_rows(rows), store.read_rows(rows)
    assert is_sorted(ours.indices, ours.values).all()
    for rank in range(store.k):  # of each cell, by class: its ranks may have swapped
        cls = theirs.indices[:, rank : rank + 1]
        again = np.where(ours.indices == cls, ours.values, 0).sum(axis=1)
        np.testing.assert_array_equal(again, ValueStep(0.5).encode(theirs.values[:, rank].astype(np.float32)))
    assert coarse.manifest.label_map.value_step == 0.5
    with pytest.raises(NoLabelError, match="truncated"):
        coarse[5]


@pytest.mark.parametrize("wanted", [ValueStep(None), ValueStep(2**-4)], ids=["exact", "finer"])
def test_rounded_values_cannot_be_had_finer(store: EncodedStore, wanted: ValueStep) -> None:
    with pytest.raises(OptionError, match=r"expected 0\.125 or more"):
        StoreSource(store, wanted)


def test_an_unfinished_store_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    make_store(tmp_path / "u.zarr", rng, parts=[0])
    with pytest.raises(UnfinishedStoreError, match="still being built"):
        StoreSource(open_store(tmp_path / "u.zarr"))


def test_what_a_store_says_itself_cannot_be_said_otherwise(tmp_path: Path, store: EncodedStore) -> None:
    with pytest.raises(OptionError, match=r"--num-classes: means nothing .* 'store'"):
        open_source(tmp_path / "a.zarr", SourceOptions(num_classes=5))


def test_only_stores_are_recognised(tmp_path: Path, store: EncodedStore) -> None:
    assert recognise(tmp_path / "a.zarr")
    assert not recognise(tmp_path)
    assert not recognise(tmp_path / "nothing")

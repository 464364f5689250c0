"""From a store into the layouts of others that can be read again, and back."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel_store.convert.run import convert
from relabel_store.errors import NoLabelError
from relabel_store.manifest import AbsentRule
from relabel_store.store.reader import open_store
from relabel_store.testing import make_manifest, make_store

RULES = {"relabel": [AbsentRule.ZERO], "token-labeling": [AbsentRule.ZERO], "npz": list(AbsentRule)}


@pytest.mark.parametrize("form", RULES)
@settings(max_examples=8)
@given(data=st.data())
def test_labels_there_and_back_are_the_same(form: str, data: st.DataObject) -> None:
    manifest = make_manifest(
        data.draw(st.integers(2, 9)),
        grid=data.draw(st.sampled_from([(3, 3), (1, 2), (2, 5)])),
        k=data.draw(st.integers(1, 4)),
        value_step=data.draw(st.sampled_from([0.125, 1.0, "exact"])),
        absent=data.draw(st.sampled_from(RULES[form])),
    )
    bad = data.draw(st.sets(st.integers(1, 8), max_size=3))
    label_map = manifest.label_map
    with tempfile.TemporaryDirectory() as folder:
        first, between, last = Path(folder, "a.zarr"), Path(folder, "between"), Path(folder, "b.zarr")
        maps = make_store(
            first,
            np.random.default_rng(data.draw(st.integers(0, 2**16))),
            manifest,
            bad_images={row: "truncated" for row in bad if row < manifest.num_samples},
        )
        convert(first, between, target_form=form, workers=1)
        convert(
            between,
            last,
            source_form=form,
            value_step=label_map.value_step,
            num_classes=label_map.num_classes,
            absent=label_map.absent,
            workers=1,
        )
        again = open_store(last)
        for row, sample_id in enumerate(maps.sample_ids):
            if row in bad:
                continue
            found = again[again.row_of(sample_id)]
            np.testing.assert_array_equal(found.indices, maps.indices[row])
            np.testing.assert_array_equal(found.values, maps.values[row])
            if maps.rest is not None:
                np.testing.assert_array_equal(found.rest, maps.rest[row])


def test_rows_of_an_npz_without_a_label_have_none_again(tmp_path, rng) -> None:
    maps = make_store(tmp_path / "a.zarr", rng, bad_images={3: "truncated"})
    convert(tmp_path / "a.zarr", tmp_path / "a.npz", workers=1)
    report = convert(tmp_path / "a.npz", tmp_path / "b.zarr", absent="zero", workers=1)
    assert report.without_label == ((maps.sample_ids[3], "every value is NaN: no label in the arrays"),)
    with pytest.raises(NoLabelError, match="its label could not be converted: every value is NaN"):
        open_store(tmp_path / "b.zarr")[3]

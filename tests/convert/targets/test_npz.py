from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings

from relabel_store.errors import OptionError
from relabel_store.testing import MadeUpLabels, made_up_labels, make_manifest


@settings(max_examples=15)
@given(labels=made_up_labels())
def test_every_number_is_read_back(labels: MadeUpLabels, written) -> None:
    maps, rows = labels.maps, labels.labelled
    with written(labels, "npz") as path, np.load(path) as found:
        expected = {"indices": maps.indices, "values": maps.values, "rest": maps.rest}
        arrays = {name: rows for name, rows in expected.items() if rows is not None}
        names = labels.manifest.classes.names
        known = set() if names is None else {"class_names"}
        columns = {*arrays, "sample_ids", "class_index", "status"}
        assert set(found) == columns | known | {"num_classes", "manifest"}
        assert found["num_classes"] == labels.manifest.label_map.num_classes
        assert names is None or found["class_names"].tolist() == list(names)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name][rows], array[rows])
        assert found["sample_ids"].tolist() == maps.sample_ids
        classes = [-1 if index is None else index for index in labels.samples["class_index"].to_pylist()]
        assert found["class_index"].tolist() == classes
        assert (found["status"] == "labelled").nonzero()[0].tolist() == rows
        assert labels.is_described_by(json.loads(found["manifest"][()]))


def test_rows_without_a_label_hold_the_fill_values_of_a_store(tmp_path, write) -> None:
    labels = MadeUpLabels.of(make_manifest(6), bad_images={1: "truncated"})
    write(labels, tmp_path / "out.npz", "npz")
    with np.load(tmp_path / "out.npz") as found:
        assert (found["indices"][1] == 65535).all()
        assert np.isnan(found["values"][1]).all()
        assert found["status"][1] == "bad-image"


def test_text_of_any_alphabet_keeps_its_characters(tmp_path, write, named) -> None:
    ids = ["ä/öü", "猫/写真 1", "plain/a"]
    write(named(*ids), tmp_path / "out.npz", "npz")
    with np.load(tmp_path / "out.npz") as found:
        assert found["sample_ids"].tolist() == ids
        assert found["sample_ids"].dtype == "<U7"


def test_an_id_with_nul_is_refused(tmp_path, write, named) -> None:
    with pytest.raises(OptionError, match="holds NUL"):
        write(named("a/b", "a/\0"), tmp_path / "out.npz", "npz")


def test_memory_does_not_grow_with_the_rows(tmp_path, write) -> None:
    def peak(n: int) -> int:
        labels = MadeUpLabels.of(make_manifest(n, grid=(15, 15), k=5, shard_rows=16, chunk_rows=16))
        tracemalloc.start()
        write(labels, tmp_path / f"{n}.npz", "npz")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(64), peak(512)
    assert many - few < 0.2 * 448 * 15 * 15 * 5 * 4

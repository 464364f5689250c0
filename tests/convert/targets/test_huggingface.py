from __future__ import annotations

import tempfile

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, load_dataset
from hypothesis import assume, given, settings

from relabel_store.testing import MadeUpLabels, file_digests, made_up_labels, make_manifest


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def load(path, cache) -> datasets.Dataset:
    return load_dataset(str(path), split="train", cache_dir=str(cache))


@settings(max_examples=8)
@given(labels=made_up_labels())
def test_every_number_is_read_back_by_datasets(labels: MadeUpLabels, written) -> None:
    maps, rows = labels.maps, labels.labelled
    assume(rows)  # `datasets` takes a dataset without rows for one without data
    with written(labels, "huggingface") as path, tempfile.TemporaryDirectory() as cache:
        found = load(path, cache)
        assert found["sample_id"][:] == [maps.sample_ids[row] for row in rows]
        assert found["row"][:] == rows
        classes = labels.samples["class_index"].to_pylist()
        assert found["class_index"][:] == [classes[row] for row in rows]
        batch = found.with_format("numpy")[:]
        for name, array in (("indices", maps.indices), ("values", maps.values), ("rest", maps.rest)):
            assert (name in found.features) == (array is not None)
            if array is not None:
                np.testing.assert_array_equal(batch[name].reshape(array[rows].shape), array[rows])
        del found, batch


@pytest.fixture
def folder(tmp_path, write):
    write(MadeUpLabels.of(make_manifest(9), bad_images={4: "truncated"}), tmp_path / "out", "huggingface")
    return tmp_path / "out"


def test_the_card_says_what_the_files_hold(tmp_path, folder) -> None:
    found = load(folder, tmp_path / "cache")
    assert found.features["label"] == ClassLabel(names=["cat", "dog", "thing 2", "thing 3", "thing 4"])
    assert {found.features["label"].int2str(label) for label in found["label"]} == {"cat", "dog"}
    assert found["label"][:] == found["class_index"][:]
    assert (found.features["indices"].length, found.features["indices"].feature.dtype) == (18, "uint16")
    assert found.info.splits["train"].num_examples == len(found) == 8


def test_samples_come_one_after_the_other_too(folder) -> None:
    stream = load_dataset(str(folder), split="train", streaming=True)
    assert [sample["row"] for sample in stream] == [0, 1, 2, 3, 5, 6, 7, 8]


def test_names_are_those_that_the_hub_expects(folder) -> None:
    assert list(file_digests(folder)) == [
        "README.md",
        *(f"data/train-0000{part}-of-00003.parquet" for part in range(3)),
        "relabel-store.json",
    ]
    with pq.ParquetFile(folder / "data" / "train-00000-of-00003.parquet") as file:
        assert b"relabel_store" in file.metadata.metadata


def test_a_part_without_labels_does_no_harm(tmp_path, write) -> None:
    write(MadeUpLabels.of(make_manifest(5), bad_images={4: "truncated"}), tmp_path / "out", "huggingface")
    assert load(tmp_path / "out", tmp_path / "cache")["row"][:] == [0, 1, 2, 3]

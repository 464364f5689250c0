from __future__ import annotations

import builtins
import json

import h5py
import numpy as np
import pytest
from hypothesis import given, settings

from relabel_store.convert.targets.hdf5 import open_target
from relabel_store.errors import MissingDependencyError
from relabel_store.testing import MadeUpLabels, file_digests, made_up_labels, make_manifest


@settings(max_examples=15)
@given(labels=made_up_labels())
def test_every_number_is_read_back(labels: MadeUpLabels, written) -> None:
    maps, rows = labels.maps, labels.labelled
    with written(labels, "hdf5") as path, h5py.File(path, "r") as found:
        for name, array in (("indices", maps.indices), ("values", maps.values), ("rest", maps.rest)):
            assert (name in found) == (array is not None)
            if array is not None:
                assert found[name].dtype == array.dtype
                np.testing.assert_array_equal(found[name][:][rows], array[rows])
        assert found["sample_id"].asstr()[:].tolist() == maps.sample_ids
        assert (found["status"].asstr()[:] == "labelled").nonzero()[0].tolist() == rows
        samples = labels.samples
        assert found["path"].asstr()[:].tolist() == samples["path"].to_pylist()
        classes = [-1 if index is None else index for index in samples["class_index"].to_pylist()]
        assert found["class_index"][:].tolist() == classes
        assert found["width"][:].tolist() == [500 if row in rows else -1 for row in range(len(samples))]
        assert labels.is_described_by(json.loads(found.attrs["relabel_store"]))


@pytest.fixture
def labels() -> MadeUpLabels:
    """Three parts of two chunks each, the last of them with one row."""
    return MadeUpLabels.of(make_manifest(9), bad_images={1: "truncated"})


def test_every_dataset_can_be_read_by_chunks_in_filters_that_all_have(tmp_path, write, labels) -> None:
    write(labels, tmp_path / "out.h5", "hdf5")
    with h5py.File(tmp_path / "out.h5", "r") as found:
        for dataset in found.values():
            assert dataset.chunks[0] == 2
            assert (dataset.compression, dataset.shuffle, dataset.fletcher32) == ("gzip", True, True)
        assert [axis.label for axis in found["indices"].dims] == ["sample", "rank", "row", "col"]
        assert (found["indices"][1] == 65535).all()
        assert np.isnan(found["values"][1]).all()


def test_a_flipped_bit_is_noticed_when_it_is_read(tmp_path, write, labels) -> None:
    write(labels, tmp_path / "out.h5", "hdf5")
    with h5py.File(tmp_path / "out.h5", "r") as found:
        chunk = found["indices"].id.get_chunk_info(0)
    data = bytearray((tmp_path / "out.h5").read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 4
    (tmp_path / "out.h5").write_bytes(data)
    with h5py.File(tmp_path / "out.h5", "r") as found, pytest.raises(OSError, match="Can't"):
        found["indices"][0]


def test_the_same_labels_give_the_same_bytes(tmp_path, write, labels) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(labels, tmp_path / name / "out.h5", "hdf5")
    assert file_digests(tmp_path / "a") == file_digests(tmp_path / "b")


def test_a_missing_library_is_named_with_its_extra(tmp_path, monkeypatch) -> None:
    true_import = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "h5py":
            raise ImportError(name)
        return true_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match=r"pip install 'relabel-store\[hdf5\]'"):
        open_target(tmp_path / "out.h5")

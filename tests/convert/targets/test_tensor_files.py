from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from relabel_store.convert.targets.tensor_files import looked_for
from relabel_store.errors import OptionError
from relabel_store.manifest import AbsentRule, Manifest
from relabel_store.testing import MadeUpLabels, made_up_labels, make_manifest

FORMS = {"relabel": torch.float32, "token-labeling": torch.float16}


def require_same(path, labels: MadeUpLabels, dtype: torch.dtype) -> None:
    ids = labels.maps.sample_ids
    files = {file.relative_to(path).as_posix()[:-3]: file for file in path.rglob("*.pt")}
    assert set(files) == {ids[row] for row in labels.labelled}
    for row in labels.labelled:
        tensor = torch.load(files[ids[row]], weights_only=True)
        assert tensor.dtype == dtype
        values, indices = tensor.numpy().astype(np.float64)
        np.testing.assert_array_equal(values, labels.maps.values[row])
        np.testing.assert_array_equal(indices, labels.maps.indices[row])


@settings(max_examples=12)
@given(labels=made_up_labels(absent=[AbsentRule.ZERO]))
def test_relabel_files_hold_every_number(labels, written) -> None:
    with written(labels, "relabel") as path:
        require_same(path, labels, torch.float32)


@settings(max_examples=12)
@given(labels=made_up_labels(absent=[AbsentRule.ZERO], max_classes=2048))
def test_token_labeling_files_hold_every_number(labels, written) -> None:
    with written(labels, "token-labeling") as path:
        require_same(path, labels, torch.float16)


def test_the_manifest_is_beside_the_classes(tmp_path, write) -> None:
    labels = MadeUpLabels.of(make_manifest(5), bad_images={1: "truncated"})
    assert [bad.row for bad in write(labels, tmp_path / "out", "relabel").without_label] == [1]
    manifest = Manifest.from_dict(json.loads((tmp_path / "out" / "relabel-store.json").read_bytes()))
    assert manifest.statistics is not None
    assert (manifest.statistics.labelled, manifest.statistics.bad_images) == (4, 1)
    assert manifest.reopened() == labels.manifest


@pytest.mark.parametrize("form", FORMS)
def test_a_rest_is_refused_with_the_forms_that_have_room_for_it(tmp_path, write, form) -> None:
    with pytest.raises(OptionError, match=r"have a rest .* webdataset, tfrecord, hdf5, npz, huggingface"):
        write(MadeUpLabels.of(make_manifest(absent=AbsentRule.REST)), tmp_path / "out", form)
    assert list(tmp_path.iterdir()) == []


def test_more_classes_than_float16_holds_are_refused(tmp_path, write) -> None:
    labels = MadeUpLabels.of(make_manifest(2, grid=(1, 1), num_classes=2049))
    with pytest.raises(OptionError, match=r"2049 classes, .* exact for 2048 only"):
        write(labels, tmp_path / "out", "token-labeling")


@pytest.mark.parametrize(
    ("sample_id", "name"),
    [("n01/a", "n01/a"), ("n01/a.b", "n01/a"), ("train/n01/a", "n01/a"), ("v1.2/a", "v1"), ("a", "a")],
)
def test_what_published_readers_look_for(sample_id: str, name: str) -> None:
    assert looked_for(sample_id) == name


def test_files_that_published_readers_do_not_look_for_are_noted(tmp_path, write, named) -> None:
    notes = write(named("n01/a", "n01/b.c"), tmp_path / "out", "relabel").notes
    assert notes == (
        "published readers take the last two parts of a path up to the first dot: 1 files they look for under another "
        "name, such as 'n01/b.pt' instead of 'n01/b.c.pt'",
    )


def test_a_sample_for_which_they_would_read_another_is_refused(tmp_path, write, named) -> None:
    with pytest.raises(OptionError, match=r"would read the labels of 'n01/a' for it"):
        write(named("n01/a", "n01/a.b"), tmp_path / "out", "relabel")


@pytest.mark.parametrize("values", ["logits", "probabilities"])
def test_numbers_that_are_no_logits_are_noted(tmp_path, write, values) -> None:
    from dataclasses import replace

    manifest = make_manifest()
    labels = MadeUpLabels.of(replace(manifest, label_map=replace(manifest.label_map, values=values)))
    notes = write(labels, tmp_path / "out", "relabel").notes
    assert len(notes) == (values != "logits")

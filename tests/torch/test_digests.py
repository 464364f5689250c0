from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from relabel_store.errors import JoinError
from relabel_store.generate.build import build
from relabel_store.generate.toy import ColourTeacher
from relabel_store.store.reader import LabelStore, open_store
from relabel_store.torch import LabelDataset, sample_ids_by_digest
from relabel_store.torch.digests import _rank_among_equals


@pytest.fixture
def labelled(image_root: Path, tmp_path: Path) -> LabelStore:
    """Labels of the images under other names, with a copy of one of them and a bad one."""
    paths = sorted(image_root.rglob("*.png"))
    other = tmp_path / "other"
    other.mkdir()
    for number, path in enumerate(reversed(paths)):
        (other / f"{number}.png").write_bytes(path.read_bytes())
    (other / "8.png").write_bytes(paths[-1].read_bytes())  # as 0.png
    (other / "bad.png").write_bytes(b"no image")
    build(ColourTeacher(), other, tmp_path / "other.zarr", absent="zero", workers=0)
    return open_store(tmp_path / "other.zarr")


def test_images_are_found_by_content_as_paths_and_as_bytes(labelled: LabelStore, image_root: Path):
    paths = sorted(image_root.rglob("*.png"))
    ids = sample_ids_by_digest(paths, labelled)
    assert ids == [str(number) for number in range(len(paths) - 1, -1, -1)]
    assert sample_ids_by_digest((path.read_bytes() for path in paths), labelled) == ids
    dataset = LabelDataset(ImageFolder(image_root), labelled, sample_ids=ids, join="inner")
    assert dataset.join.rows.tolist() == [labelled.row_of(sample_id) for sample_id in ids]


def test_copies_get_the_rows_of_copies_and_then_ids_without_a_label(labelled: LabelStore, image_root: Path):
    path = sorted(image_root.rglob("*.png"))[-1]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    ids = sample_ids_by_digest([path] * 4, labelled)
    assert ids == ["0", "8", f"sha256:{digest}#3", f"sha256:{digest}#4"]


def test_an_image_that_was_never_labelled_is_named(labelled: LabelStore, image_root: Path):
    paths = sorted(image_root.rglob("*.png"))
    ids = sample_ids_by_digest([*paths[:-1], b"something else"], labelled)
    assert ids[-1] == f"sha256:{hashlib.sha256(b'something else').hexdigest()}"
    with pytest.raises(JoinError, match=r"without \('sha256:"):
        LabelDataset(ImageFolder(image_root), labelled, sample_ids=ids, join="exact")


def test_no_images_have_no_ids(labelled: LabelStore):
    assert sample_ids_by_digest([], labelled) == []


def test_a_path_that_leads_nowhere_is_an_error(labelled: LabelStore, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        sample_ids_by_digest([tmp_path / "nothing"], labelled)


@given(st.lists(st.sampled_from("abc")))
def test_ranks_are_those_of_counting(letters: list[str]):
    expected = [letters[:at].count(letter) for at, letter in enumerate(letters)]
    assert _rank_among_equals(np.array([one.encode() for one in letters], "S64")).tolist() == expected

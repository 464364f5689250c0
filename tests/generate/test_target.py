from __future__ import annotations

from pathlib import Path

import pytest
import zarr

from relabel_store.errors import TargetExistsError
from relabel_store.generate.toy import build_colours
from relabel_store.testing import file_digests


@pytest.mark.parametrize("out", ["photos/s.zarr", "photos/red/s.zarr", "elsewhere/../photos/s", "link/s"])
def test_no_store_is_begun_in_the_folder_of_its_images(photos: Path, tmp_path: Path, out: str):
    (tmp_path / "link").symlink_to(photos)
    with pytest.raises(
        TargetExistsError, match=r"ImageFolder would take it for a class; choose a path outside"
    ):
        build_colours(photos, tmp_path / out)
    assert sorted(path.name for path in photos.iterdir()) == ["blue", "green", "red", "thing"]


def test_one_that_was_begun_there_is_gone_on_with(photos: Path, tmp_path: Path):
    build_colours(photos, tmp_path / "s", share="0/3")
    (tmp_path / "s").rename(photos / "s")
    assert build_colours(photos, photos / "s").is_complete


@pytest.mark.parametrize("name", ["s.zarr", "s.parquet"])
@pytest.mark.parametrize("inside", [".", "indices", "a/b/c"])
def test_no_store_is_begun_in_another_store(photos: Path, tmp_path: Path, name: str, inside: str):
    build_colours(photos, tmp_path / name)
    before = file_digests(tmp_path / name)
    with pytest.raises(TargetExistsError, match=r"lies in the store .*which holds nothing but itself"):
        build_colours(photos, tmp_path / name / inside / "t.zarr")
    assert file_digests(tmp_path / name) == before


def test_a_group_of_somebody_elses_may_hold_a_store(photos: Path, tmp_path: Path):
    zarr.create_group(tmp_path / "theirs.zarr")
    assert build_colours(photos, tmp_path / "theirs.zarr" / "labels").is_complete


def test_beside_images_and_stores_is_no_place_of_theirs(photos: Path, tmp_path: Path):
    assert build_colours(photos, tmp_path / "photos-labels").is_complete
    assert build_colours(photos, tmp_path / "photos-labels2").is_complete

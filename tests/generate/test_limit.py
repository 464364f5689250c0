from __future__ import annotations

import pickle
import shutil
import tarfile
from pathlib import Path

import pytest

from relabel_store.generate.limit import ChosenImages, LimitedImages
from relabel_store.images.recognise import open_images
from relabel_store.images.source import detached


@pytest.mark.parametrize("limit", [1, 4, 5, 11, 12])
def test_a_limit_spreads_over_all_images_in_their_order(photos: Path, limit: int):
    source = open_images(photos)
    limited = LimitedImages(source, limit)
    assert len(limited) == len(set(limited.sample_ids)) == limit
    rows = [list(source.sample_ids).index(sample_id) for sample_id in limited.sample_ids]
    assert rows == sorted(rows)
    gaps = [after - before for before, after in zip(rows, [*rows[1:], 12], strict=True)]
    assert max(gaps) - min(gaps) <= 1


def test_what_belongs_to_an_image_stays_together(photos: Path):
    source = open_images(photos)
    limited = LimitedImages(source, 5)
    assert (limited.name, limited.kind, limited.order) == (source.name, source.kind, source.order)
    for row, sample_id in enumerate(limited.sample_ids):
        there = list(source.sample_ids).index(sample_id)
        assert limited.paths[row] == source.paths[there]
        assert limited.class_names[row] == source.class_names[there]
        assert limited.read(row) == source.read(there)
        assert limited.fingerprint(row) == source.fingerprint(there)


def test_chosen_images_are_those_of_the_rows_asked_for_in_that_order(photos: Path):
    source = open_images(photos)
    chosen = ChosenImages(source, [5, 0, 5])
    assert len(chosen) == 3
    assert list(chosen.sample_ids) == [source.sample_ids[row] for row in (5, 0, 5)]
    assert chosen.read(1) == source.read(0)
    assert chosen.fingerprint(2) == source.fingerprint(5)


def test_a_limit_of_tars_needs_no_index_on_another_machine(photos: Path, tmp_path: Path):
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(photos, "photos")
    limited = LimitedImages(open_images(tmp_path / "photos.tar", beside=tmp_path / "s"), 5)
    sent = pickle.dumps(detached(limited))
    shutil.rmtree(tmp_path / "s.tar-index")
    found = pickle.loads(sent)
    assert list(found.sample_ids) == list(limited.sample_ids)
    assert [found.read(row) for row in range(5)] == [limited.read(row) for row in range(5)]

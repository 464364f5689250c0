from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relabel_store.convert.run import convert
from relabel_store.convert.source import SourceOptions
from relabel_store.convert.sources import join as joining
from relabel_store.convert.sources import relabel, token_labeling
from relabel_store.convert.sources.join import join_images
from relabel_store.errors import JoinError
from relabel_store.labels.orientation import Symmetry
from relabel_store.store.reader import open_store

SIDE, CELLS = 96, 6


@pytest.fixture(autouse=True)
def own_cache(cache) -> None:
    pass


def write_photo(path: Path, blocks: np.ndarray, size=(SIDE, SIDE), **options) -> None:
    """Write a photo of some blocks of colour, ``(rows, cols, 3)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blocks.astype(np.uint8)).resize(size, Image.Resampling.NEAREST).save(path, **options)


@pytest.fixture
def scenes(tmp_path, rng, write_tree):
    """Twenty-four maps, and photos that show what they say; ids, classes of the cells and the folder of photos."""
    classes = np.zeros((24, CELLS, CELLS), int)
    for scene in classes:  # two objects on a ground
        scene[:] = rng.integers(50)
        for _ in range(2):
            (top, left), (height, width) = rng.integers(0, CELLS - 2, 2), rng.integers(2, 4, 2)
            scene[top : top + height, left : left + width] = rng.integers(50)
    indices = np.stack([classes, classes + 50], axis=1)
    scores = np.stack([np.full(classes.shape, 9.0), np.full(classes.shape, 2.0)], axis=1).astype(np.float32)
    palette = rng.integers(0, 256, (50, 3))
    ids = write_tree(tmp_path / "tree", indices, scores)
    for sample_id, cells in zip(ids, classes, strict=True):
        write_photo(tmp_path / "photos" / f"{sample_id}.JPEG", palette[cells], quality=95)
    return ids, indices, scores, palette


def test_sizes_and_paths_are_joined_and_the_orientation_is_said(tmp_path, scenes) -> None:
    ids, *_ = scenes
    report = convert(tmp_path / "tree", tmp_path / "a.zarr", images=tmp_path / "photos", workers=1)
    assert "images 'photos' (class-folders): 24 of 24 labels have one" in report.notes
    assert report.notes[-1].startswith("orientation of the maps: rows first, as they should be: they fit ")
    store = open_store(tmp_path / "a.zarr")
    assert store.manifest.images.name == "photos"
    row = store.samples.to_pylist()[0]
    assert (row["width"], row["height"], row["sha256"]) == (SIDE, SIDE, None)
    assert row["path"] == f"{sorted(ids)[0]}.JPEG"


def test_transposed_maps_are_found_and_stored_as_they_are(tmp_path, scenes, write_tree) -> None:
    ids, indices, scores, _ = scenes
    turned = np.ascontiguousarray(Symmetry.TRANSPOSED.apply(indices))
    write_tree(tmp_path / "turned", turned, scores)
    source = relabel.open_source(tmp_path / "turned", SourceOptions(images=str(tmp_path / "photos")))
    assert source.notes[-2].startswith("orientation of the maps: wrong, transposed they fit")
    assert source.notes[-1].startswith("nothing was turned")
    first = source.samples["sample_id"].to_pylist().index(ids[0])
    np.testing.assert_array_equal(source.read_part(0).indices[first], turned[0])


def test_what_fits_and_what_does_not_is_counted_and_named(tmp_path, scenes) -> None:
    ids, _, _, palette = scenes
    for sample_id in sorted(ids)[:5]:
        (tmp_path / "photos" / f"{sample_id}.JPEG").unlink()
    write_photo(tmp_path / "photos" / "n99" / "new.png", palette[:4].reshape(2, 2, 3))
    source = relabel.open_source(tmp_path / "tree", SourceOptions(images=str(tmp_path / "photos")))
    named = ", ".join(repr(sample_id) for sample_id in sorted(ids)[:3])
    assert (
        f"images 'photos' (class-folders): 19 of 24 labels have one; 5 labels have none ({named}, …); "
        "1 images have no label ('n99/new')"
    ) in source.notes
    samples = source.samples.to_pylist()
    assert len(samples) == 24
    assert samples[0]["path"] == f"{sorted(ids)[0]}.pt"
    facts = source.read_part(0).facts
    assert facts["width"].null_count == 5
    assert facts["status"].to_pylist() == ["labelled"] * 24


def test_images_of_other_labels_are_refused_with_an_id_of_each(tmp_path, scenes) -> None:
    write_photo(tmp_path / "others" / "cats" / "tom.png", np.zeros((2, 2, 3)))
    with pytest.raises(JoinError, match=r"an image is called 'cats/tom', a label 'n00/n00_000'"):
        relabel.open_source(tmp_path / "tree", SourceOptions(images=str(tmp_path / "others")))


def test_images_in_a_tar_are_joined_as_those_in_folders(tmp_path, scenes) -> None:
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(tmp_path / "photos", "photos")
    facts = [
        relabel.open_source(tmp_path / "tree", SourceOptions(images=str(tmp_path / name))).read_part(0).facts
        for name in ("photos", "photos.tar")
    ]
    assert facts[0].equals(facts[1])


def test_sizes_are_those_in_the_file_and_turned_photos_are_counted(tmp_path, scenes) -> None:
    ids, _, _, palette = scenes
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photos" / f"{ids[0]}.JPEG"
    write_photo(path, palette[:4].reshape(2, 2, 3), (50, 30), exif=exif)
    rows = range(1)
    facts, turned = join_images(str(tmp_path / "photos"), [ids[0]]).facts_of(rows)
    assert (facts["width"][0].as_py(), facts["height"][0].as_py(), turned) == (50, 30, 1)


def test_only_the_first_bytes_are_read_for_a_size_unless_it_stands_later(
    tmp_path, scenes, monkeypatch
) -> None:
    ids, *_ = scenes
    found = join_images(str(tmp_path / "photos"), ids)
    reads: list[int] = []
    read = type(found.source).read
    monkeypatch.setattr(type(found.source), "read", lambda self, row: reads.append(row) or read(self, row))
    found.facts_of(range(24))
    assert reads == []
    monkeypatch.setattr(joining, "_HEAD", 10)
    facts, _ = found.facts_of(range(2))
    assert len(reads) == 2
    assert facts["width"].to_pylist() == [SIDE, SIDE]


def test_an_image_that_cannot_be_read_has_no_size_and_shows_nothing(tmp_path, scenes) -> None:
    ids, indices, scores, _ = scenes
    path = tmp_path / "photos" / f"{ids[0]}.JPEG"
    path.write_bytes(b"no image")
    found = join_images(str(tmp_path / "photos"), ids)
    facts, _ = found.facts_of(range(2))
    assert facts["width"].to_pylist() == [None, SIDE]
    path.unlink()
    assert found.facts_of(range(1))[0]["width"].to_pylist() == [None]
    resize = token_labeling.FORM.geometry.resize
    (notes,) = found.orientation_notes([0], indices[:1], scores[:1], resize)
    assert notes == "orientation of the maps: undecided, no photo can be decoded"
    (notes,) = found.orientation_notes(range(24), indices, scores, resize)
    assert "rows first" in notes
    assert "of 23 photos" in notes


def test_maps_of_a_square_are_held_against_that_square(tmp_path, scenes, write_tree, rng) -> None:
    ids, indices, scores, palette = scenes
    for sample_id, cells in zip(ids, indices[:, 0], strict=True):
        beside = rng.integers(0, 256, (CELLS, 4, 3))
        wide = np.concatenate([beside, palette[cells], beside], axis=1)
        write_photo(tmp_path / "wide" / f"{sample_id}.png", wide, (SIDE * (CELLS + 8) // CELLS, SIDE))
    write_tree(tmp_path / "half", indices, scores, dtype=np.float16)
    source = token_labeling.open_source(tmp_path / "half", SourceOptions(images=str(tmp_path / "wide")))
    assert "as they should be: they fit 24 of 24 photos" in source.notes[-1]


def test_photos_that_the_maps_are_held_against_are_spread_evenly(tmp_path, scenes, monkeypatch) -> None:
    ids, *_ = scenes
    monkeypatch.setattr(joining, "MAX_PHOTOS", 3)
    found = join_images(str(tmp_path / "photos"), [*ids, "x/y"])
    assert found.sampled_rows() == [0, 11, 23]
    assert found.rows[-1] == -1

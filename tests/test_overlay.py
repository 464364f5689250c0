from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from relabel_store import overlay
from relabel_store.images.folders import ClassFolders
from relabel_store.manifest import Resize
from relabel_store.overlay import draw_sample
from relabel_store.store.reader import open_store
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import make_label_maps, make_manifest, make_part, make_samples


@pytest.fixture
def photos(tmp_path: Path) -> ClassFolders:
    """Photos twice as wide as high: red, but for a blue square in the middle."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[..., 0] = 255
    pixels[:, 10:30] = 0, 0, 255
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    for row in range(8):
        folder = "cat" if row % 2 else "dog"
        Image.fromarray(pixels).save(tmp_path / "photos" / folder / f"photo {row:04d}.png")
    return ClassFolders(tmp_path / "photos")


@pytest.fixture
def drawn(tmp_path, rng, photos, monkeypatch):
    """Draw a sample of a store whose maps cover some part of a photo; return the photo and what is said of it."""

    def draw(resize: Resize, *, has_digests: bool = True) -> tuple[Image.Image, str]:
        manifest = make_manifest()
        manifest = replace(manifest, geometry=replace(manifest.geometry, resize=resize))
        path = tmp_path / "a.zarr"
        maps = make_label_maps(rng, manifest)
        writer = StoreWriter.begin(path, manifest, make_samples(manifest))
        for part in range(manifest.num_parts):
            labels = make_part(manifest, maps, part)
            if not has_digests:
                at = labels.facts.schema.get_field_index("sha256")
                field = labels.facts.schema.field(at)
                facts = labels.facts.set_column(at, field, pa.nulls(len(labels.facts), field.type))
                labels = replace(labels, facts=facts)
            writer.write_part(part, labels)
        writer.complete()
        seen: list[tuple[Image.Image, str]] = []

        def remember(photo: Image.Image, *arguments: object, subtitle: str, **options: object) -> None:
            seen.append((photo, subtitle))

        monkeypatch.setattr(overlay, "draw_label_map", remember)
        draw_sample(open_store(path), "dog/photo 0000", photos)
        return seen[0]

    return draw


def test_a_map_of_the_whole_photo_is_drawn_on_it_without_a_word(drawn) -> None:
    photo, said = drawn(Resize.SQUASH)
    assert photo.size == (40, 20)
    assert said == "made-up on made-up"


def test_a_map_of_the_middle_is_drawn_on_the_middle_square(drawn) -> None:
    photo, said = drawn(Resize.CENTER_CROP)
    assert photo.size == (20, 20)
    assert np.unique(np.asarray(photo).reshape(-1, 3), axis=0).tolist() == [[0, 0, 255]]
    assert said.startswith("On the middle square of the photo")


def test_a_map_of_an_unknown_part_is_drawn_on_the_whole_photo_and_that_is_said(drawn) -> None:
    photo, said = drawn(Resize.UNKNOWN)
    assert photo.size == (40, 20)
    assert "which part the teacher saw is unknown" in said


@pytest.mark.parametrize("has_digests", [True, False])
def test_another_photo_is_pointed_out_where_it_is_known_which_was_labelled(
    drawn, caplog, has_digests
) -> None:
    with caplog.at_level(logging.WARNING, "relabel_store.inspect"):
        drawn(Resize.SQUASH, has_digests=has_digests)
    assert ("not the file that was labelled" in caplog.text) == has_digests

"""The levels of ``validate`` that need images or a teacher, and labels of another form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from relabel_store.generate.toy import build_colours
from relabel_store.schema import schema_errors

FACTORY = "relabel_store.generate.toy:make_colour_teacher"
Run = Callable[..., Result]


@pytest.fixture
def built(photos: Path) -> Path:
    build_colours(photos, photos.parent / "labels.zarr")
    return photos.parent / "labels.zarr"


def test_images_and_labels_that_are_as_recorded_are_valid_at_every_level(
    run: Run, photos: Path, built: Path
) -> None:
    result = run("validate", built, "--images", photos, "--recompute", 4, "--teacher", FACTORY, "--json")
    document = json.loads(result.stdout)
    assert list(schema_errors(document, "validate-v1")) == []
    assert document["levels"] == ["structure", "content", "images", "sense", "teacher"]
    assert document["findings"] == []
    assert result.exit_code == 0
    # Six photos of one colour each say nothing of which way up their maps lie, nor do nine cells of whose they are.
    assert {skipped["what"] for skipped in document["skipped"]} == {
        "maps against other photos",
        "orientation of the maps",
        "part of the photos that the maps cover",
    }


def test_an_image_that_changed_is_an_error_of_its_own_and_of_its_label(
    run: Run, photos: Path, built: Path
) -> None:
    Image.new("RGB", (40, 30), "white").save(photos / "red" / "0.png")
    (photos / "green" / "new.png").write_bytes((photos / "green" / "0.png").read_bytes())
    result = run("validate", built, "--images", photos, "--recompute", 6, "--teacher", FACTORY)
    assert result.exit_code == 1
    assert "not valid: 2 errors, 1 warning (structure, content, images, sense, teacher)" in result.stdout
    assert "error RS702: Every labelled image is, byte for byte, the one that was labelled." in result.stdout
    assert "image 'green/new.png' has no label" in result.stdout
    assert "9 of 9 cells of image 'red/0.png' differ" in result.stdout


def test_a_teacher_that_is_not_named_is_asked_for(run: Run, photos: Path, built: Path) -> None:
    result = run("validate", built, "--images", photos, "--recompute", 1)
    assert result.exit_code == 1
    assert "give its --teacher module:factory" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recompute", 3], "give --images too"),
        (["--recompute", 0, "--images", "x"], "0 is not in the range"),
        (["--teacher", FACTORY], "are for --recompute"),
        (["--weights", "w.pth"], "are for --recompute"),
        (["--num-classes", 6], "a store says it itself"),
    ],
)
def test_options_without_what_they_are_for_are_wrong_usage(
    run: Run, store: Path, arguments: list[object], said: str
) -> None:
    result = run("validate", store, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_images_that_are_not_there_cannot_be_compared(run: Run, store: Path, tmp_path: Path) -> None:
    result = run("validate", store, "--images", tmp_path / "nowhere")
    assert result.exit_code == 3
    assert "nothing there" in result.stderr


def test_labels_of_another_form_are_validated_before_they_are_converted(run: Run, tmp_path: Path) -> None:
    values = np.full((4, 2, 2, 2), 5.0, np.float32)
    values[:, 1] = 1
    values[2, 0, 0, 0] = np.nan
    indices = np.zeros((4, 2, 2, 2), np.int64) + np.arange(2)[:, None, None]
    np.savez(tmp_path / "mine.npz", indices=indices, values=values, sample_ids=np.array(["a", "b", "c", "d"]))
    result = run("validate", tmp_path / "mine.npz", "--num-classes", 3, "--json")
    document = json.loads(result.stdout)
    assert list(schema_errors(document, "validate-v1")) == []
    assert "RS011" in [group["id"] for group in document["findings"]]
    assert (document["state"], document["levels"]) == (None, ["content", "sense"])
    assert result.exit_code == 1
    assert run("validate", tmp_path / "mine.npz", "--level", "content").exit_code == 2
    assert run("validate", tmp_path).exit_code == 3

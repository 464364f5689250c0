from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

from relabel_store.errors import TeacherError, UnknownTeacherError, WeightsError
from relabel_store.generate.build import build
from relabel_store.generate.look import looked_at_samples, recorded_input
from relabel_store.generate.recorded import load_recorded_teacher
from relabel_store.generate.toy import ColourTeacher, build_colours
from relabel_store.images.recognise import open_images
from relabel_store.manifest import Manifest
from relabel_store.repair.run import repair_store
from relabel_store.store.reader import open_store
from relabel_store.testing import file_digests

SMALL = "test_efficientnet"
SETTINGS = {
    "input_size": (96, 64),
    "mean": (0.4, 0.5, 0.6),
    "std": (0.25, 0.25, 0.5),
    "interpolation": "bilinear",
}


def save_weights(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    torch.save(timm.create_model(SMALL, pretrained=False, num_classes=3).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images") / "photos"
    root.mkdir()
    for n in range(3):
        Image.new("RGB", (20 + n, 30), (80 * n, 90, 200 - 80 * n)).save(root / f"{n}.png")
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """A store of a classifier of timm whose weights came from a file; nobody may touch it."""
    folder = tmp_path_factory.mktemp("store")
    weights = save_weights(folder / "w.pth", 0)
    build(
        SMALL,
        images,
        folder / "s",
        weights=weights,
        top_k=2,
        absent="rest",
        device="cpu",
        workers=0,
        shard_rows=2,
        batch_size=2,
        flip=True,
        **SETTINGS,
    )
    return folder / "s"


@pytest.fixture
def manifest(store: Path) -> Manifest:
    return open_store(store).manifest


def test_a_shard_is_labelled_again_with_the_recorded_settings(store: Path, images: Path, tmp_path: Path):
    damaged = Path(shutil.copytree(store, tmp_path / "s"))
    (damaged / "values" / "c" / "0" / "0" / "0" / "0").unlink()
    report = repair_store(damaged, images=images, weights=store.parent / "w.pth", workers=0)
    assert report.is_whole
    assert file_digests(damaged) == file_digests(store)


def test_weights_from_a_file_have_to_be_given(manifest: Manifest):
    with pytest.raises(WeightsError, match=r"came from the file 'w.pth'; give it with --weights"):
        load_recorded_teacher(manifest)


def test_other_weights_of_the_same_architecture_are_refused(manifest: Manifest, tmp_path: Path):
    other = save_weights(tmp_path / "w.pth", 1)
    with pytest.raises(TeacherError, match=r"not the one that the store records: weights sha256:"):
        load_recorded_teacher(manifest, weights=other)


def test_the_teacher_sees_images_as_recorded(store: Path, manifest: Manifest):
    teacher = load_recorded_teacher(manifest, weights=store.parent / "w.pth")
    assert teacher.facts.input == recorded_input(manifest)
    assert teacher.facts.input.size == SETTINGS["input_size"]
    assert teacher.facts.input.mean == SETTINGS["mean"]


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (ColourTeacher((2, 3)), r"input size \(64, 96\), recorded \(96, 96\)"),
        (timm.create_model, "has no facts"),
    ],
    ids=["other input", "no teacher"],
)
def test_an_object_that_is_another_teacher_is_refused(
    images: Path, tmp_path: Path, teacher: object, message: str
):
    build_colours(images, tmp_path / "s")
    with pytest.raises(TeacherError, match=message):
        load_recorded_teacher(open_store(tmp_path / "s").manifest, teacher=teacher)


def test_a_name_that_leads_nowhere_is_asked_for(images: Path, tmp_path: Path):
    build_colours(images, tmp_path / "s")
    manifest = open_store(tmp_path / "s").manifest
    with pytest.raises(UnknownTeacherError, match="--teacher module:factory"):
        load_recorded_teacher(manifest)
    assert load_recorded_teacher(manifest, teacher=ColourTeacher()).facts.name == "colours"


def test_converted_labels_have_no_teacher(manifest: Manifest, images: Path):
    converted = replace(
        manifest, build=None, geometry=replace(manifest.geometry, input_size=None, mean=None, std=None)
    )
    with pytest.raises(TeacherError, match="converted"):
        load_recorded_teacher(converted)
    with pytest.raises(TeacherError, match="converted"):
        looked_at_samples(converted, open_images(images), workers=0)


def test_looking_at_images_finds_what_labelling_them_had_found(store: Path, images: Path):
    found = looked_at_samples(open_store(store).manifest, open_images(images), workers=0)
    assert found.equals(open_store(store).samples)

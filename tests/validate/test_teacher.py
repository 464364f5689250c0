"""The level ``teacher``: stores of a teacher of six colours, and what can be other than recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relabel_store.errors import OptionError, TeacherError
from relabel_store.generate.relabel import LabelledAgain, RecordedTeacher
from relabel_store.generate.toy import ColourTeacher, build_colours
from relabel_store.images.recognise import open_images
from relabel_store.images.source import ImageSource
from relabel_store.manifest import Manifest
from relabel_store.validate.catalog import all_checks
from relabel_store.validate.report import Report
from relabel_store.validate.rule import Level
from relabel_store.validate.run import validate_store
from relabel_store.validate.teacher import TeacherStage

N = 10


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for row in range(N):
        path = tmp_path / "photos" / ("red", "blue")[row % 2] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(cells.repeat(12, axis=0).repeat(16, axis=1)).save(path)
    return tmp_path / "photos"


def validate(photos: Path, teacher: object, samples: int = N) -> Report:
    stage = TeacherStage(open_images(photos), teacher, samples)  # type: ignore[arg-type]
    return validate_store(photos.parent / "s", level="structure", stages=[stage])


def change(photos: Path) -> None:
    Image.new("RGB", (48, 36), (255, 255, 0)).save(photos / "red" / "2.png")


def spoil(photos: Path) -> None:
    (photos / "red" / "2.png").write_bytes(b"no image")


def nothing(photos: Path) -> None:
    del photos


# Each check, what to do to images that fit, and the teacher.
EXAMPLES: dict[str, tuple[Callable[[Path], None], ColourTeacher]] = {
    "RS901": (nothing, ColourTeacher(grid=(4, 3))),
    "RS902": (change, ColourTeacher()),
    "RS903": (spoil, ColourTeacher()),
}


def test_every_check_of_the_teacher_has_an_example() -> None:
    assert set(EXAMPLES) == {
        name for name, check in all_checks().items() if check.rule.level is Level.TEACHER
    }


@pytest.mark.parametrize("rule", EXAMPLES)
def test_labels_that_cannot_be_made_again_are_found_out(photos: Path, rule: str) -> None:
    build_colours(photos, photos.parent / "s")
    spoil, teacher = EXAMPLES[rule]
    spoil(photos)
    report = validate(photos, RecordedTeacher(teacher))
    assert report.ids == (rule,)
    assert report.groups[0].count == 1
    assert report.has_errors()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flip": True, "value_step": "exact"},
        {"absent": "rest", "encoding": "parquet"},
        {"precision": "bf16", "top_k": 6, "batch_size": 4},
    ],
    ids=["plain", "flip", "rest", "bf16"],
)
def test_nothing_is_found_in_labels_that_the_teacher_gives_again(
    photos: Path, options: dict[str, object]
) -> None:
    build_colours(photos, photos.parent / "s", **options)
    report = validate(photos, RecordedTeacher(ColourTeacher()))
    assert (report.ids, report.skipped) == ((), ())
    assert report.levels == (Level.STRUCTURE, Level.TEACHER)


def test_labels_of_another_teacher_of_the_same_name_are_found_out_in_every_sample(photos: Path) -> None:
    build_colours(photos, photos.parent / "s", flip=True)
    report = validate(photos, RecordedTeacher(ColourTeacher(offset=12.0)))
    assert report.ids == ("RS902",)
    assert report.groups[0].count == N
    assert "9 of 9 cells of image 'blue/1.png' differ, by up to 2.0" in report.findings[0].message
    assert "(fp32 on cpu)" in report.findings[0].message


def test_the_same_samples_are_chosen_in_every_run(photos: Path) -> None:
    build_colours(photos, photos.parent / "s")
    asked: list[list[int]] = []

    class Watched:
        def label(
            self, manifest: Manifest, images: ImageSource, rows: Sequence[int], on_image: Callable[[], None]
        ) -> LabelledAgain:
            asked.append(list(rows))
            return RecordedTeacher(ColourTeacher()).label(manifest, images, rows, on_image)

    for _ in range(2):
        assert validate(photos, Watched(), 4).ids == ()
    assert asked[0] == asked[1] == sorted(set(asked[0]))
    assert len(asked[0]) == 4


def test_a_teacher_that_cannot_be_had_is_told_with_what_to_give(photos: Path) -> None:
    build_colours(photos, photos.parent / "s")
    report = validate(photos, RecordedTeacher())
    assert report.ids == ("RS901",)
    assert "neither an alias nor an architecture of timm" in report.findings[0].message
    assert "give its --teacher module:factory" in report.findings[0].message
    by_name = RecordedTeacher("relabel_store.generate.toy:make_colour_teacher")
    assert validate(photos, by_name).ids == ()


def test_other_weights_are_told_from_the_recorded_ones(photos: Path) -> None:
    def teacher(digest: str | None) -> ColourTeacher:
        made = ColourTeacher()
        made.facts = replace(made.facts, weights=replace(made.facts.weights, digest=digest))
        return made

    build_colours(photos, photos.parent / "s", teacher=teacher("sha256:" + "a" * 64))
    report = validate(photos, RecordedTeacher(teacher("sha256:" + "b" * 64)))
    assert report.ids == ("RS901",)
    assert "weights sha256:bbbb" in report.findings[0].message
    assert validate(photos, RecordedTeacher(teacher("sha256:" + "a" * 64))).ids == ()
    renamed = teacher(None)
    renamed.facts = replace(renamed.facts, name="other")
    report = validate(photos, RecordedTeacher(renamed))
    assert "its name is 'other', expected 'colours' as recorded" in report.findings[0].message


def test_weights_that_came_from_a_file_are_asked_for(photos: Path) -> None:
    manifest = build_colours(photos, photos.parent / "s").manifest
    weights = replace(manifest.teacher.weights, origin="file mine.pth")
    of_file = replace(manifest, teacher=replace(manifest.teacher, weights=weights))
    with pytest.raises(TeacherError, match=r"from a file 'mine.pth'; give that file with --weights"):
        RecordedTeacher().label(of_file, open_images(photos), [0])
    with pytest.raises(TeacherError, match="they were converted"):
        RecordedTeacher().label(replace(manifest, build=None), open_images(photos), [0])


def test_images_that_are_not_there_leave_nothing_to_label(photos: Path, tmp_path: Path) -> None:
    build_colours(photos, tmp_path / "s")
    other = tmp_path / "other" / "green" / "x.png"
    other.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(other)
    stage = TeacherStage(open_images(tmp_path / "other"), RecordedTeacher(ColourTeacher()), 3)
    report = validate_store(tmp_path / "s", level="structure", stages=[stage])
    assert [skipped.why for skipped in report.skipped] == ["no labelled sample has an image"]
    with pytest.raises(OptionError, match="samples: 0"):
        TeacherStage(open_images(photos), RecordedTeacher(ColourTeacher()), 0)

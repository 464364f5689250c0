from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from relabel_store.errors import IdentityError, TeacherError
from relabel_store.generate.precision import Precision
from relabel_store.generate.teacher import (
    Teacher,
    TeacherFacts,
    TeacherInput,
    TimmTeacher,
    check_identity,
    probe_grid,
)
from relabel_store.generate.toy import ColourTeacher
from relabel_store.manifest import Classes, Weights

CPU = torch.device("cpu")


def facts(**changes: object) -> TeacherFacts:
    described = {
        "name": "small",
        "input": TeacherInput((64, 96)),
        "num_classes": 7,
        "classes": Classes.of(None, None, None),
        "weights": Weights("random", None),
    }
    return TeacherFacts(**{**described, **changes})


class SmallClassifier(nn.Module):
    """Four filters with stride 32, a mean and a linear layer, as timm spells them."""

    num_features = 4

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 32, stride=32)
        self.classifier = nn.Linear(4, 7)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.stem(images)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(features.mean(dim=(2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def test_normalizing_equals_the_formula_on_single_pixels():
    images = TeacherInput((2, 3), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    pixels = torch.arange(2 * 2 * 3 * 3, dtype=torch.uint8).reshape(2, 2, 3, 3) * 7
    found = images.normalize(pixels)
    assert found.shape == (2, 3, 2, 3)
    assert found.dtype == torch.float32
    for n, row, col, channel in np.ndindex(2, 2, 3, 3):
        expected = (pixels[n, row, col, channel].item() / 255 - images.mean[channel]) / images.std[channel]
        assert found[n, channel, row, col].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (0, 10)}, "input size"),
        ({"size": (9, 9), "std": (0.5, 0.0, 0.5)}, "std above 0"),
        ({"size": (9, 9), "mean": (0.5,)}, "three numbers"),
    ],
    ids=["empty", "zero deviation", "one mean"],
)
def test_an_impossible_input_is_refused(arguments: dict[str, object], message: str):
    with pytest.raises(TeacherError, match=message):
        TeacherInput(**arguments)


def test_a_class_list_of_another_length_is_refused():
    with pytest.raises(TeacherError, match="2 class names, expected 7"):
        facts(classes=Classes.of(None, ["cat", "dog"], "given"))


def test_a_timm_classifier_becomes_a_teacher_with_a_map():
    teacher = TimmTeacher(SmallClassifier(), facts())
    assert isinstance(teacher, Teacher)
    assert teacher.facts.dense_kind == "exact"
    assert teacher.grid == probe_grid(teacher, CPU) == (2, 3)
    images = torch.randn((2, 3, 64, 96), generator=torch.Generator().manual_seed(1))
    logits = teacher.dense_logits(images, Precision.FP32)
    assert logits.shape == (2, 7, 2, 3)
    assert not logits.requires_grad
    assert check_identity(teacher, CPU) < 1e-5


def test_a_teacher_with_another_class_count_than_it_says_is_refused():
    with pytest.raises(TeacherError, match="7 classes, expected 9"):
        TimmTeacher(SmallClassifier(), facts(num_classes=9))


class ShiftedColours(ColourTeacher):
    """Says that its map is exact, and is not."""

    def dense_logits(self, images: Tensor, precision: Precision) -> Tensor:
        return super().dense_logits(images, precision) * 1.01


def test_a_map_that_does_not_average_to_the_logits_stops_the_build():
    assert check_identity(ColourTeacher(), CPU) < 1e-4
    with pytest.raises(IdentityError, match="cannot be trusted"):
        check_identity(ShiftedColours(), CPU)


def test_an_identity_that_is_unknown_is_not_called_exact():
    teacher = ColourTeacher()
    teacher.identity_error = lambda images: None  # type: ignore[method-assign]
    with pytest.raises(IdentityError):
        check_identity(teacher, CPU)
    teacher.facts = TeacherFacts(**{**teacher.facts.__dict__, "dense_kind": "unknown"})
    assert check_identity(teacher, CPU) is None


def test_the_identity_check_sees_the_same_images_every_time():
    seen = []
    teacher = ColourTeacher()
    teacher.identity_error = lambda images: seen.append(images) or 0.0  # type: ignore[method-assign]
    torch.manual_seed(1)
    check_identity(teacher, CPU)
    torch.manual_seed(2)
    check_identity(teacher, CPU)
    assert torch.equal(*seen)


@pytest.mark.parametrize(
    "answer",
    [torch.zeros(1, 6), torch.zeros(1, 5, 3, 3), torch.zeros(2, 6, 3, 3), [1.0]],
    ids=["pooled", "another class count", "another batch", "no tensor"],
)
def test_an_answer_of_another_shape_is_refused(answer: object):
    teacher = ColourTeacher()
    teacher.dense_logits = lambda images, precision: answer  # type: ignore[method-assign]
    with pytest.raises(TeacherError, match=r"expected float32 \(1, 6, n_rows, n_cols\)"):
        probe_grid(teacher, CPU)

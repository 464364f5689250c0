from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import Tensor

from relabel_store.errors import TeacherError
from relabel_store.generate.precision import Precision
from relabel_store.generate.profile import Profile
from relabel_store.generate.reduce import Kept
from relabel_store.generate.scoring import Scorer, is_out_of_memory
from relabel_store.generate.toy import ColourTeacher

CPU = torch.device("cpu")


class SmallMemory(ColourTeacher):
    """A teacher that fails as a device does with more than so many images, and counts them."""

    def __init__(self, most: int, error: Exception | None = None) -> None:
        super().__init__()
        self.most = most
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        self.batches: list[int] = []

    def dense_logits(self, images: Tensor, precision: Precision) -> Tensor:
        self.batches.append(len(images))
        if len(images) > self.most:
            raise self.error
        return super().dense_logits(images, precision)


def make_scorer(teacher: ColourTeacher, *, with_rest: bool = False, pad_to: int | None = None) -> Scorer:
    return Scorer(teacher, CPU, precision=Precision.FP32, k=2, with_rest=with_rest, pad_to=pad_to)


def score(scorer: Scorer, pixels: Tensor) -> Kept:
    return scorer.launch(pixels).result(Profile(CPU))


def make_pixels(n: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(n).integers(0, 256, (n, 96, 96, 3), dtype=np.uint8))


def assert_same(one: Kept, other: Kept) -> None:
    assert torch.equal(one.indices, other.indices)
    torch.testing.assert_close(one.values, other.values)
    if other.rest is None:
        assert one.rest is None
    else:
        torch.testing.assert_close(one.rest, other.rest)


@pytest.mark.parametrize("with_rest", [False, True])
@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_a_batch_that_does_not_fit_is_scored_in_halves(
    most: int, with_rest: bool, caplog: pytest.LogCaptureFixture
):
    pixels = make_pixels(7)
    teacher = SmallMemory(most)
    scorer = make_scorer(teacher, with_rest=with_rest)
    with caplog.at_level(logging.WARNING, "relabel_store"):
        found = score(scorer, pixels)
    assert_same(found, score(make_scorer(ColourTeacher(), with_rest=with_rest), pixels))
    assert "out of memory on cpu with 7 images at once: going on with 4" in caplog.text
    assert not scorer.fits(7)
    assert scorer.fits(most if most < 4 else 4) or most == 3  # 7, 4, 2, 1


def test_later_batches_are_not_tried_whole_again():
    teacher = SmallMemory(2)
    scorer = make_scorer(teacher)
    score(scorer, make_pixels(8))
    teacher.batches.clear()
    score(scorer, make_pixels(8))
    assert teacher.batches == [2, 2, 2, 2]


def test_one_image_that_does_not_fit_is_an_error_that_says_what_to_do():
    with pytest.raises(TeacherError, match=r"'colours': out of memory on cpu with one image; use a smaller"):
        make_scorer(SmallMemory(0)).launch(make_pixels(4))


def test_memory_of_the_host_counts_too():
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory")
    teacher = SmallMemory(2, error)
    assert_same(
        score(make_scorer(teacher), make_pixels(4)), score(make_scorer(ColourTeacher()), make_pixels(4))
    )


def test_other_errors_are_not_taken_for_it():
    scorer = make_scorer(SmallMemory(1, RuntimeError("shapes cannot be multiplied")))
    with pytest.raises(RuntimeError, match="multiplied"):
        scorer.launch(make_pixels(2))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator"))


def test_a_compiled_teacher_sees_batches_of_one_size():
    teacher = SmallMemory(9)
    scorer = make_scorer(teacher, pad_to=4)
    for n in (4, 3, 1):
        assert_same(score(scorer, make_pixels(n)), score(make_scorer(ColourTeacher()), make_pixels(n)))
    assert teacher.batches == [4, 4, 4]


def test_halves_for_a_compiled_teacher_have_one_size_too():
    teacher = SmallMemory(2)
    scorer = make_scorer(teacher, pad_to=4)
    assert_same(score(scorer, make_pixels(3)), score(make_scorer(ColourTeacher()), make_pixels(3)))
    assert teacher.batches == [4, 2, 2]


class RollingTeacher(ColourTeacher):
    """Puts each column one further to the right, where a mirror image does not end up."""

    def dense_logits(self, images: Tensor, precision: Precision) -> Tensor:
        return super().dense_logits(images, precision).roll(1, dims=3)


@pytest.mark.parametrize("with_rest", [False, True])
def test_a_flip_averages_the_map_of_the_mirror_image_mirrored_back(with_rest: bool):
    teacher, pixels = RollingTeacher(), make_pixels(3)
    scorer = Scorer(teacher, CPU, precision=Precision.FP32, k=6, with_rest=with_rest, with_flip=True)
    kept = score(scorer, pixels)
    for image, indices, values in zip(pixels.numpy(), kept.indices.numpy(), kept.values.numpy(), strict=True):
        own, mirrored = (
            teacher.dense_logits(
                teacher.facts.input.normalize(torch.from_numpy(picture.copy())[None]), Precision.FP32
            )[0].numpy()
            for picture in (image, image[:, ::-1])
        )
        expected = (own + mirrored[:, :, ::-1]) / 2
        np.testing.assert_allclose(values, np.take_along_axis(expected, indices, axis=0), rtol=1e-5)
        np.testing.assert_allclose(values, -np.sort(-expected, axis=0), rtol=1e-5)

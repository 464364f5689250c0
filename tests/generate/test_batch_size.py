from __future__ import annotations

import pytest
import torch

from relabel_store.errors import TeacherError
from relabel_store.generate.batch_size import best_batch_size, search
from relabel_store.generate.precision import Precision
from relabel_store.generate.scoring import Scorer
from relabel_store.generate.toy import ColourTeacher


def device(*, launch_s: float, image_s: float, memory: int):
    """A device that takes so long for a batch and an image of it, and holds so many images."""
    asked: list[int] = []

    def seconds(n: int) -> float | None:
        asked.append(n)
        return launch_s + n * image_s if n <= memory else None

    return seconds, asked


@pytest.mark.parametrize(
    ("launch_s", "image_s", "memory", "expected"),
    [
        (0.0, 0.1, 512, 1),  # a CPU: nothing to gain
        (0.010, 0.001, 4096, 256),  # twice 256 gains 1.9 %
        (0.010, 0.001, 100, 64),  # memory ends it
        (1.0, 0.00001, 1_000_000, 1024),  # nobody wants more
        (0.010, 0.001, 1, 1),
    ],
    ids=["no-gain", "gain-ends", "memory-ends", "enough", "one"],
)
def test_the_largest_batch_that_fits_and_still_gains(
    launch_s: float, image_s: float, memory: int, expected: int
):
    seconds, asked = device(launch_s=launch_s, image_s=image_s, memory=memory)
    assert search(seconds) == expected
    assert asked == [2**exponent for exponent in range(len(asked))]


def test_a_slow_device_is_not_kept_busy_with_trials():
    seconds, asked = device(launch_s=1.0, image_s=3.0, memory=100)
    assert search(seconds) == 2
    assert asked == [1, 2]


def test_a_device_that_holds_no_image_is_an_error():
    with pytest.raises(TeacherError, match="out of memory with one image"):
        search(lambda _: None)


def test_it_is_found_with_a_teacher(monkeypatch: pytest.MonkeyPatch):
    teacher = ColourTeacher()
    scorer = Scorer(teacher, torch.device("cpu"), precision=Precision.FP32, k=2, with_rest=False)
    dense_logits = teacher.dense_logits

    def limited(images: torch.Tensor, precision: Precision) -> torch.Tensor:
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return dense_logits(images, precision)

    monkeypatch.setattr(teacher, "dense_logits", limited)
    assert best_batch_size(scorer, teacher.facts.input.size) in (1, 2, 4)

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relabel_store.errors import ImageReadError
from relabel_store.generate import batches as batches_module
from relabel_store.generate.batches import Batch, decoded_batches, split_rows, with_retries
from relabel_store.generate.teacher import TeacherInput
from relabel_store.images.folders import ClassFolders
from relabel_store.images.recognise import open_images

INPUT = TeacherInput((20, 30))


def decode(source: ClassFolders, *, workers: int = 0) -> list[Batch]:
    rows = [*split_rows(range(5), 2), *split_rows(range(5, len(source)), 3)]
    return list(decoded_batches(source, INPUT, rows, workers=workers, pin_memory=False))


def test_a_part_is_split_into_batches_and_a_shorter_one():
    assert split_rows(range(5, 12), 3) == [range(5, 8), range(8, 11), range(11, 12)]
    assert split_rows(range(5, 5), 3) == []


def test_batches_hold_the_pixels_and_facts_of_their_rows(photos: Path):
    source = open_images(photos)
    for batch in decode(source):
        assert batch.pixels.shape == (len(batch.rows), 20, 30, 3)
        for position, row in enumerate(batch.rows):
            path = photos / source.paths[row]
            with Image.open(path) as image:
                expected = np.asarray(image.convert("RGB").resize((30, 20), Image.Resampling.BICUBIC))
                facts = batch.facts[position]
                assert (facts.width, facts.height) == image.size
            np.testing.assert_array_equal(batch.pixels[position].numpy(), expected)
            assert facts.row == row
            assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            assert (facts.size_bytes, facts.mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)


def test_more_workers_than_cores_are_nothing_to_be_warned_of(photos: Path):
    source = open_images(photos)  # a slow network keeps many of them waiting
    workers = (os.cpu_count() or 1) + 1
    (batch,) = decoded_batches(source, INPUT, [range(2)], workers=workers, pin_memory=False)
    assert batch.is_good.all()


def test_worker_processes_give_the_same_batches_in_the_same_order(photos: Path):
    source = open_images(photos)
    alone, helped = decode(source), decode(source, workers=2)
    assert [batch.rows for batch in alone] == [batch.rows for batch in helped]
    for one, other in zip(alone, helped, strict=True):
        assert one.facts == other.facts
        np.testing.assert_array_equal(one.pixels.numpy(), other.pixels.numpy())


def test_a_bad_image_is_black_and_keeps_its_place(photos: Path):
    (photos / "blue" / "1.png").write_bytes(b"junk")
    first = decode(open_images(photos))[0]
    assert first.is_good.tolist() == [True, False]
    assert not first.pixels[1].any()
    assert first.pixels[0].any()
    assert first.facts[1].reason is not None
    assert first.facts[1].sha256 == hashlib.sha256(b"junk").hexdigest()
    assert first.facts[1].width is None


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_gone_stops_the_build_and_is_no_bad_image(photos: Path, workers: int):
    source = open_images(photos)
    (photos / "blue" / "2.png").unlink()
    with pytest.raises(ImageReadError, match=r"'blue/2\.png': No such file"):
        decode(source, workers=workers)


def test_an_error_that_passes_is_retried(monkeypatch: pytest.MonkeyPatch):
    pauses: list[float] = []
    monkeypatch.setattr(batches_module.time, "sleep", pauses.append)
    answers = [OSError("stale handle"), TimeoutError(), (b"data", (4, 0))]

    def read() -> tuple[bytes, tuple[int, int]]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert with_retries(read) == (b"data", (4, 0))
    assert pauses == [0.5, 1.0]


def test_an_error_that_stays_is_raised_after_some_pauses(monkeypatch: pytest.MonkeyPatch):
    pauses: list[float] = []
    monkeypatch.setattr(batches_module.time, "sleep", pauses.append)

    def read() -> tuple[bytes, tuple[int, int]]:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        with_retries(read)
    assert pauses == [0.5, 1.0, 2.0]


def test_waiting_does_not_mend_a_missing_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches_module.time, "sleep", lambda pause: pytest.fail("waited"))

    def read() -> tuple[bytes, tuple[int, int]]:
        raise FileNotFoundError(2, "No such file")

    with pytest.raises(FileNotFoundError):
        with_retries(read)

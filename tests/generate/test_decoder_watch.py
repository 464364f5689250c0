from __future__ import annotations

import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from relabel_store.errors import ImageReadError
from relabel_store.generate import batches as batches_module
from relabel_store.generate import decoder_watch
from relabel_store.generate.batches import Batch, decoded_batches
from relabel_store.generate.decode import Decoded, decode_image
from relabel_store.generate.decoder_watch import EndReports
from relabel_store.generate.teacher import TeacherInput
from relabel_store.images.recognise import open_images

INPUT = TeacherInput((20, 30))
EVIL = b"an image that a decoder cannot stand"

pytestmark = pytest.mark.skipif(
    multiprocessing.get_start_method() != "fork", reason="the made-up decoder reaches workers by fork"
)


def hang() -> None:
    """Hold the interpreter's lock for longer than anyone waits, in C."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def fall() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def run_out_of_memory() -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # as the system does


def decode_with(
    source_root: Path,
    on_evil: Callable[[], object],
    patch: pytest.MonkeyPatch,
    *,
    limit_s: float = 60.0,
    label: Callable[[], object] = lambda: None,
) -> list[Batch]:
    def decode(data: bytes, **how: object) -> Decoded:
        if data == EVIL:
            on_evil()
        return decode_image(data, **how)  # type: ignore[arg-type]

    patch.setattr(batches_module, "decode_image", decode)
    patch.setattr(decoder_watch, "DECODE_LIMIT_S", limit_s)
    source = open_images(source_root)
    rows = [range(start, min(start + 2, len(source))) for start in range(0, len(source), 2)]
    found = []
    for batch in decoded_batches(source, INPUT, rows, workers=2, pin_memory=False):
        label()
        found.append(batch)
    return found


@pytest.mark.parametrize(
    ("on_evil", "limit_s", "reason"),
    [
        # A busy machine needs a second for an image that is whole.
        (hang, 1.5, "not decoded within 1.5 s"),
        (lambda: time.sleep(60), 1.5, "not decoded within 1.5 s"),
        (fall, 60.0, "its decoder took its process down"),
        (run_out_of_memory, 60.0, "its decoder took its process down"),
    ],
    ids=["hangs-in-c", "sleeps", "segfaults", "is-killed"],
)
def test_an_image_that_its_decoder_cannot_stand_is_a_bad_image_and_the_only_one(
    photos: Path, monkeypatch: pytest.MonkeyPatch, on_evil: Callable[[], object], limit_s: float, reason: str
):
    expected = decode_with(photos, on_evil, monkeypatch)
    (photos / "blue" / "1.png").write_bytes(EVIL)
    found = decode_with(photos, on_evil, monkeypatch, limit_s=limit_s)
    assert [batch.rows for batch in found] == [batch.rows for batch in expected]
    reasons = [facts.reason for batch in found for facts in batch.facts]
    assert reasons == [None, reason, *[None] * (len(reasons) - 2)]
    assert not found[0].pixels[1].any()
    np.testing.assert_array_equal(found[0].pixels[0], expected[0].pixels[0])
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert one.facts == other.facts
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_a_process_that_ends_once_costs_no_image(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mark = tmp_path / "ended once"

    def fall_once() -> None:
        if not mark.exists():
            mark.touch()
            fall()

    (photos / "blue" / "1.png").write_bytes(EVIL)
    found = decode_with(photos, fall_once, monkeypatch)
    assert mark.exists()
    assert found[0].facts[1].reason is not None
    assert found[0].facts[1].reason.startswith("no image in a known format")  # what it is, in the end


def test_a_process_that_ends_while_a_batch_is_labelled_does_not_break_off_what_labels_it(
    photos: Path, monkeypatch: pytest.MonkeyPatch
):
    (photos / "red" / "2.png").write_bytes(EVIL)  # of the fifth batch, decoded while the first is labelled
    found = decode_with(photos, fall, monkeypatch, label=lambda: time.sleep(0.5))
    reasons = [facts.reason for batch in found for facts in batch.facts]
    assert reasons == [*[None] * 8, "its decoder took its process down", *[None] * 3]


class ReportedError(Exception):
    """What PyTorch's handler raises."""


@pytest.fixture
def handler() -> Iterator[Callable[..., object]]:
    def report(signum: int, frame: object) -> None:
        raise ReportedError

    before = signal.signal(signal.SIGCHLD, report)
    yield report
    signal.signal(signal.SIGCHLD, before)


def end_a_process() -> None:
    os.kill(os.getpid(), signal.SIGCHLD)


def wait_for(reports: EndReports) -> None:
    with reports.awaited():
        time.sleep(0.01)


def test_a_report_is_kept_for_whoever_waits_next(handler: Callable[..., object]):
    reports = EndReports()
    reports.take_over()
    end_a_process()  # raises nothing here
    with pytest.raises(ReportedError):
        wait_for(reports)
    wait_for(reports)
    with pytest.raises(ReportedError), reports.awaited():
        end_a_process()
    reports.give_back()
    assert signal.getsignal(signal.SIGCHLD) is handler


def test_reports_that_end_in_another_order_than_they_began_hold_nothing_up(handler: Callable[..., object]):
    first, second = EndReports(), EndReports()
    first.take_over()
    second.take_over()
    first.give_back()
    end_a_process()
    with pytest.raises(ReportedError):
        wait_for(second)
    second.give_back()
    with pytest.raises(ReportedError):
        end_a_process()


def test_processes_that_end_over_no_image_stop_the_build(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches_module, "with_retries", lambda _: os._exit(7))
    with pytest.raises(ImageReadError, match=r"ended 4 times in a row: .*fewer --workers"):
        list(decoded_batches(open_images(photos), INPUT, [range(2)], workers=1, pin_memory=False))

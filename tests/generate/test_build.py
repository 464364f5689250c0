from __future__ import annotations

import os
import shutil
import signal
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from PIL import Image
from torch import Tensor

import relabel_store
from relabel_store.errors import (
    AbsentRuleError,
    BadImageStop,
    DamagedFileError,
    FormatError,
    ImageReadError,
    ImagesChangedError,
    ImageSourceError,
    NoLabelError,
    NonFiniteLogitsError,
    NotEnoughSpaceError,
    OptionError,
    SettingsChangedError,
    StoreBusyError,
    TargetExistsError,
    TeacherError,
    ValueRangeError,
)
from relabel_store.generate.build import build
from relabel_store.generate.device import choose_device
from relabel_store.generate.observer import BatchReport, BuildObserver
from relabel_store.generate.precision import Precision
from relabel_store.generate.profile import Stage
from relabel_store.generate.share import Share, hold_share
from relabel_store.generate.toy import ColourTeacher, build_colours
from relabel_store.images.folders import ClassFolders
from relabel_store.manifest import Classes
from relabel_store.store.reader import open_store
from relabel_store.testing import file_digests

make = build_colours  # three parts


class StopAfter(BuildObserver):
    """Breaks the build off in the middle, as a crash would."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_batch(self, report: BatchReport) -> None:
        self.left -= 1
        if self.left < 0:
            raise InterruptedError("stopped by the test")


def test_a_store_holds_what_the_teacher_says_of_each_image(photos: Path, tmp_path: Path):
    report = make(photos, tmp_path / "s")
    assert report.is_complete
    assert (report.labelled, report.parts_left, report.bad_images) == (12, 0, ())
    store = relabel_store.open_store(tmp_path / "s")
    assert (len(store), store.grid, store.k, store.num_classes) == (12, (3, 3), 3, 6)
    teacher = ColourTeacher()
    for row in range(12):
        with Image.open(photos / store.samples["path"][row].as_py()) as image:
            pixels = np.asarray(image.convert("RGB").resize((96, 96), Image.Resampling.BICUBIC))
        images = teacher.facts.input.normalize(torch.from_numpy(pixels.copy())[None])
        logits = teacher.dense_logits(images, Precision.FP32)[0].numpy()
        for r, c in np.ndindex(3, 3):
            best = sorted(range(6), key=lambda index: (-logits[index, r, c], index))[:3]
            rounded = {index: round(float(logits[index, r, c]) * 8) / 8 for index in best}
            expected = sorted(rounded.items(), key=lambda pair: (-pair[1], pair[0]))
            found = list(
                zip(store[row].indices[:, r, c].tolist(), store[row].values[:, r, c].tolist(), strict=True)
            )
            assert found == expected


def test_the_manifest_says_how_the_labels_were_made(photos: Path, tmp_path: Path):
    make(photos, tmp_path / "s", name="colours of photos", licence="CC0-1.0", citation=["arXiv:2101.05022"])
    manifest = open_store(tmp_path / "s").manifest
    assert (manifest.name, manifest.licence, manifest.citation) == (
        "colours of photos",
        "CC0-1.0",
        ("arXiv:2101.05022",),
    )
    assert manifest.images.name == "photos"
    assert manifest.images.kind == "class-folders"
    assert manifest.teacher.name == "colours"
    assert manifest.teacher.dense.kind == "exact"
    assert manifest.teacher.dense.identity_error < 1e-4
    assert manifest.teacher.versions["torch"] == torch.__version__.split("+")[0]
    assert manifest.build.batch_size == 3
    assert manifest.statistics.labelled == 12
    assert (manifest.statistics.agreement.samples, manifest.statistics.agreement.agreeing) == (9, 9)
    assert sum(manifest.statistics.winning_cells) == 12 * 9


def test_class_indices_are_the_teachers_and_never_guessed(photos: Path, tmp_path: Path):
    make(photos, tmp_path / "s")
    samples = open_store(tmp_path / "s").samples
    found = dict(zip(samples["class_name"].to_pylist(), samples["class_index"].to_pylist(), strict=True))
    assert found == {"blue": 2, "green": 1, "red": 0, "thing": None}


def test_images_without_class_folders_have_no_class(tmp_path: Path):
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (9, 9), "red").save(tmp_path / "flat" / "a.png")
    make(tmp_path / "flat", tmp_path / "s")
    store = open_store(tmp_path / "s")
    assert store.samples["class_name"].to_pylist() == [None]
    assert store.manifest.statistics.agreement is None


@pytest.mark.parametrize("batches", range(5))
def test_a_build_that_was_stopped_ends_with_the_same_bytes(photos: Path, tmp_path: Path, batches: int):
    make(photos, tmp_path / "whole")
    with pytest.raises(InterruptedError):
        make(photos, tmp_path / "s", observer=StopAfter(batches))
    make(photos, tmp_path / "s")
    assert file_digests(tmp_path / "s") == file_digests(tmp_path / "whole")


def test_shares_in_any_order_end_with_the_same_bytes(photos: Path, tmp_path: Path):
    make(photos, tmp_path / "whole")
    reports = [make(photos, tmp_path / "s", share=f"{index}/3", workers=1) for index in (2, 0, 1)]
    assert [report.is_complete for report in reports] == [False, False, True]
    assert [report.parts_left for report in reports] == [2, 1, 0]
    assert file_digests(tmp_path / "s") == file_digests(tmp_path / "whole")


def test_building_a_finished_store_again_changes_nothing(photos: Path, tmp_path: Path):
    make(photos, tmp_path / "s")
    before = file_digests(tmp_path / "s")
    report = make(photos, tmp_path / "s")
    assert (report.is_complete, report.labelled) == (True, 0)
    assert file_digests(tmp_path / "s") == before


@pytest.mark.parametrize("encoding", ["zarr", "parquet", "packed"])
def test_building_a_finished_store_again_makes_a_part_whose_file_was_lost(
    photos: Path, tmp_path: Path, encoding: str
):
    make(photos, tmp_path / "s", encoding=encoding)
    before = file_digests(tmp_path / "s")
    lost = sorted(name for name in before if "indices/c/1" in name or "00001-of" in name)
    assert lost
    (tmp_path / "s" / lost[0]).unlink()
    report = make(photos, tmp_path / "s", encoding=encoding)
    assert (report.is_complete, report.labelled) == (True, 4)
    assert file_digests(tmp_path / "s") == before


def test_a_store_that_is_being_built_serves_what_is_finished(photos: Path, tmp_path: Path):
    make(photos, tmp_path / "whole")
    make(photos, tmp_path / "s", share="1/3")
    whole, part = open_store(tmp_path / "whole"), open_store(tmp_path / "s")
    np.testing.assert_array_equal(part.read_rows(range(4, 8)).indices, whole.read_rows(range(4, 8)).indices)
    with pytest.raises(NoLabelError, match="not built"):
        part[0]
    assert part.samples["status"].to_pylist() == ["missing"] * 4 + ["labelled"] * 4 + ["missing"] * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 2}, "k 3, now 2"),
        ({"value_step": "exact"}, "value step 0.125, now exact"),
        ({"absent": "rest"}, "absent zero, now rest"),
        ({"shard_rows": 8}, "rows a shard 4, now 8"),
        ({"batch_size": 2}, "batch size 3, now 2"),
        ({"precision": "bf16"}, "precision fp32, now bf16"),
        ({"teacher": ColourTeacher((2, 3))}, r"input size \(96, 96\), now \(64, 96\)"),
        ({"name": "other"}, "name of the labels photos, colours, now other"),
    ],
    ids=["k", "step", "absent", "shard", "batch", "precision", "teacher", "name"],
)
@pytest.mark.parametrize("is_finished", [True, False], ids=["finished", "unfinished"])
def test_what_makes_the_labels_may_not_change(
    photos: Path, tmp_path: Path, changes: dict[str, object], message: str, is_finished: bool
):
    make(photos, tmp_path / "s", share=None if is_finished else "0/2")
    before = file_digests(tmp_path / "s")
    with pytest.raises(SettingsChangedError, match=message):
        make(photos, tmp_path / "s", **changes)
    after = file_digests(tmp_path / "s")
    assert {name: after[name] for name in before} == before


def test_workers_and_shares_may_change(photos: Path, tmp_path: Path):
    make(photos, tmp_path / "s", share="0/2")
    assert make(photos, tmp_path / "s", workers=1).is_complete


def recolour(path: Path) -> None:
    with Image.open(path) as image:
        size = image.size
    Image.new("RGB", size, "blue").save(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda photos: shutil.copy(photos / "red/0.png", photos / "red/9.png"), r"1 added \('red/9.png'\)"),
        (lambda photos: (photos / "red/0.png").unlink(), r"1 removed \('red/0.png'\)"),
        (lambda photos: recolour(photos / "blue/0.png"), r"1 changed after they were labelled: 'blue/0.png'"),
    ],
    ids=["added", "removed", "changed"],
)
def test_images_that_changed_since_the_build_began_are_named(
    photos: Path, tmp_path: Path, change: Callable[[Path], object], message: str
):
    make(photos, tmp_path / "s", share="0/2")
    change(photos)
    with pytest.raises(ImagesChangedError, match=message):
        make(photos, tmp_path / "s")


def test_a_file_that_was_only_touched_has_not_changed(photos: Path, tmp_path: Path):
    make(photos, tmp_path / "s", share="0/2")
    (photos / "blue" / "0.png").touch()
    assert make(photos, tmp_path / "s").is_complete


@pytest.fixture
def with_bad_image(photos: Path) -> Iterator[Path]:
    (photos / "green" / "1.png").write_bytes(b"junk")
    return photos


def test_a_bad_image_is_recorded_and_gets_no_label(with_bad_image: Path, tmp_path: Path):
    report = make(with_bad_image, tmp_path / "s")
    assert report.is_complete
    ((path, reason),) = report.bad_images
    assert path == "green/1.png"
    assert "no image in a known format" in reason
    store = open_store(tmp_path / "s")
    row = store.row_of("green/1")
    with pytest.raises(NoLabelError, match="could not be decoded: no image in a known format"):
        store[row]
    assert store.samples["status"][row].as_py() == "bad-image"
    assert store.manifest.statistics.bad_images == 1
    assert len(list(store)) == 11


def test_labels_do_not_depend_on_a_bad_neighbour(
    with_bad_image: Path, tmp_path: Path, paint: Callable[[Path], Path]
):
    make(paint(tmp_path / "sound"), tmp_path / "a", name="x")
    make(with_bad_image, tmp_path / "b", name="x")
    sound, with_bad = open_store(tmp_path / "a"), open_store(tmp_path / "b")
    rows = [row for row in range(12) if with_bad.has_label(row)]
    np.testing.assert_array_equal(sound.read_rows(rows).values, with_bad.read_rows(rows).values)
    np.testing.assert_array_equal(sound.read_rows(rows).indices, with_bad.read_rows(rows).indices)


def test_a_build_may_stop_at_a_bad_image_and_keeps_the_parts_before(with_bad_image: Path, tmp_path: Path):
    with pytest.raises(BadImageStop, match=r"'green/1\.png': no image in a known format"):
        make(with_bad_image, tmp_path / "s", on_bad_image="stop", batch_size=1)
    assert open_store(tmp_path / "s").has_label(0)


def test_a_mended_image_is_labelled_on_retry(
    with_bad_image: Path, tmp_path: Path, paint: Callable[[Path], Path]
):
    make(with_bad_image, tmp_path / "s")
    assert make(with_bad_image, tmp_path / "s", on_bad_image="retry").bad_images
    sound = paint(tmp_path / "again" / "photos")
    shutil.copy(sound / "green" / "1.png", with_bad_image / "green" / "1.png")
    assert make(with_bad_image, tmp_path / "s", on_bad_image="record").bad_images
    assert not make(with_bad_image, tmp_path / "s", on_bad_image="retry").bad_images
    make(sound, tmp_path / "whole")
    assert file_digests(tmp_path / "s") == file_digests(tmp_path / "whole")


def test_a_store_of_bad_images_only_is_a_store(tmp_path: Path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"")
    report = make(tmp_path / "bad", tmp_path / "s")
    assert report.bad_images == (("a.jpg", "empty file"),)
    assert open_store(tmp_path / "s").manifest.statistics.labelled == 0


def test_a_limit_labels_a_sample_of_the_images(photos: Path, tmp_path: Path):
    make(photos, tmp_path / "s", limit=4)
    assert open_store(tmp_path / "s").samples["class_name"].to_pylist() == ["blue", "green", "red", "thing"]
    with pytest.raises(ImagesChangedError, match="8 added"):
        make(photos, tmp_path / "s")


class Broken(ColourTeacher):
    """Gives what overflow gives, for one image."""

    def __init__(self, bad_value: float) -> None:
        super().__init__()
        self.facts = replace(self.facts, dense_kind="unknown")
        self._bad_value = bad_value

    def dense_logits(self, images: Tensor, precision: Precision) -> Tensor:
        logits = super().dense_logits(images, precision)
        if len(images) > 1:
            logits[1, 4, 0, 2] = self._bad_value
        return logits


@pytest.mark.parametrize("bad_value", [np.nan, np.inf], ids=["NaN", "infinity"])
@pytest.mark.parametrize("absent", ["zero", "rest"])
def test_logits_that_are_not_finite_stop_the_build(
    photos: Path, tmp_path: Path, bad_value: float, absent: str
):
    with pytest.raises(NonFiniteLogitsError, match=r"1 of 3 images, 'blue/1\.png' first.*bf16 or fp32"):
        make(photos, tmp_path / "s", teacher=Broken(bad_value), precision="fp16", absent=absent)
    assert not open_store(tmp_path / "s").parts


def test_minus_infinity_among_classes_not_kept_is_no_overflow(photos: Path, tmp_path: Path):
    assert make(photos, tmp_path / "s", teacher=Broken(-np.inf), absent="rest").is_complete


@pytest.mark.parametrize(
    ("left", "error"), [(-np.inf, NonFiniteLogitsError), (-1e9, ValueRangeError)], ids=["-inf", "-1e9"]
)
def test_classes_that_leave_nothing_to_share_stop_a_build_with_rest(
    photos: Path, tmp_path: Path, left: float, error: type[Exception]
):
    class Masked(ColourTeacher):
        def dense_logits(self, images: Tensor, precision: Precision) -> Tensor:
            logits = super().dense_logits(images, precision)
            logits[:, 3:] = left
            return logits

    teacher = Masked()
    teacher.facts = replace(teacher.facts, dense_kind="unknown")
    with pytest.raises(error):
        make(photos, tmp_path / "s", teacher=teacher, absent="rest", top_k=3)


@pytest.mark.parametrize("offset", [300.0, 70000.0])
def test_scores_too_large_for_the_step_stop_the_build(photos: Path, tmp_path: Path, offset: float):
    teacher = ColourTeacher(offset=offset)
    teacher.facts = replace(teacher.facts, dense_kind="unknown")
    with pytest.raises(ValueRangeError, match="--value-step"):
        make(photos, tmp_path / "s", teacher=teacher)


class CountedBatches(BuildObserver):
    def __init__(self) -> None:
        self.batches = 0

    def on_batch(self, report: BatchReport) -> None:
        self.batches += 1


def test_negative_logits_stop_the_build_before_the_second_batch(photos: Path, tmp_path: Path):
    class Counted(ColourTeacher):
        launched = 0

        def dense_logits(self, images: Tensor, precision: Precision) -> Tensor:
            Counted.launched += len(images) == 3
            return super().dense_logits(images, precision)

    with pytest.raises(AbsentRuleError, match="--absent rest"):
        make(photos, tmp_path / "s", teacher=Counted(offset=-5.0))
    assert Counted.launched == 1


def test_negative_logits_do_no_harm_where_no_class_is_left_out(photos: Path, tmp_path: Path):
    assert make(photos, tmp_path / "s", teacher=ColourTeacher(offset=-5.0), top_k=6).is_complete


@pytest.mark.parametrize("absent", ["zero", "rest"])
def test_negative_logits_are_stored_when_the_rule_is_named(photos: Path, tmp_path: Path, absent: str):
    make(photos, tmp_path / "s", teacher=ColourTeacher(offset=-5.0), absent=absent)
    store = open_store(tmp_path / "s")
    assert store.manifest.statistics.negative_fraction > 0.9
    assert (store[0].rest is None) == (absent == "zero")


def test_rest_is_what_the_classes_not_kept_share(photos: Path, tmp_path: Path):
    make(photos, tmp_path / "s", absent="rest", value_step="exact")
    make(photos, tmp_path / "all", top_k=6, value_step="exact")
    some, everything = open_store(tmp_path / "s")[3], open_store(tmp_path / "all")[3]
    left = np.log(np.exp(everything.values[3:].astype(np.float64)).sum(axis=0))
    np.testing.assert_allclose(some.rest, left, rtol=2e-3)


def test_a_second_build_of_the_same_store_is_refused(photos: Path, tmp_path: Path):
    with hold_share(tmp_path / "s", Share()), pytest.raises(StoreBusyError, match="another build"):
        make(photos, tmp_path / "s")


class NeverLoaded(ColourTeacher):
    def to(self, device: torch.device) -> None:
        pytest.fail("the teacher was set up before the mistake was found")


def test_mistakes_are_found_before_the_teacher_is_set_up(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    teacher = NeverLoaded()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageSourceError, match="no image"):
        make(tmp_path / "empty", tmp_path / "s", teacher=teacher)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TargetExistsError, match="is a file"):
        make(photos, tmp_path / "file", teacher=teacher)
    with pytest.raises(TargetExistsError, match="no part of a store"):
        make(photos, photos, teacher=teacher)
    full = shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(NotEnoughSpaceError, match="needed for 12 images at 3x3 cells"):
        make(photos, tmp_path / "s", teacher=teacher)
    assert not (tmp_path / "s").exists()
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"top_k": 7}, ValueError, "top_k: 7, expected at most 6"),
        ({"top_k": 0}, ValueError, "top_k: 0, expected at least 1"),
        ({"limit": 0}, ValueError, "limit"),
        ({"shard_rows": 300}, ValueError, "multiple of 256"),
        ({"value_step": 0.3}, ValueError, "power of two"),
        ({"absent": "none"}, ValueError, "none"),
        ({"share": "2/2"}, ValueError, "share"),
        ({"device": "cuda:9"}, TeacherError, "CUDA devices are visible"),
        ({"device": "gpu"}, OptionError, "expected auto, cpu, cuda"),
        ({"input_size": 64}, TeacherError, "object has its own"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_options_out_of_range_are_refused(
    photos: Path, tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        make(photos, tmp_path / "s", **changes)
    assert not (tmp_path / "s").exists()


def test_the_number_of_threads_is_put_back(photos: Path, tmp_path: Path):
    before = torch.get_num_threads()
    make(photos, tmp_path / "s", share="0/2")
    torch.set_num_threads(before + 1)
    try:
        make(photos, tmp_path / "s")
        assert torch.get_num_threads() == before + 1
        assert open_store(tmp_path / "s").manifest.build.threads == before
    finally:
        torch.set_num_threads(before)


def test_the_observer_hears_of_every_image(photos: Path, tmp_path: Path):
    class Heard(BuildObserver):
        samples = known = agreeing = 0

        def on_batch(self, report: BatchReport) -> None:
            Heard.samples += report.samples
            Heard.known += report.known_class
            Heard.agreeing += report.agreeing

    make(photos, tmp_path / "s", observer=Heard())
    assert (Heard.samples, Heard.known, Heard.agreeing) == (12, 9, 9)


def test_the_cpu_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")


def begin_half(photos: Path, path: Path) -> Path:
    """A store of which the first part is built."""
    make(photos, path, share="0/3")
    return path


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage", [flip, Path.unlink, lambda path: path.write_bytes(b"")], ids=["flip", "rm", "empty"]
)
@pytest.mark.parametrize(
    "name", ["indices/c/0/0/0/0", "values/c/0/0/0/0", "journal/part-00000.parquet", "indices/zarr.json"]
)
def test_a_damaged_part_is_built_again(
    photos: Path, tmp_path: Path, name: str, damage: Callable[[Path], object]
):
    make(photos, tmp_path / "whole")
    store = begin_half(photos, tmp_path / "s")
    damage(store / name)
    make(photos, store)
    assert file_digests(store) == file_digests(tmp_path / "whole")


def test_a_shard_that_a_finished_store_lost_is_built_again(photos: Path, tmp_path: Path):
    make(photos, tmp_path / "whole")
    make(photos, tmp_path / "s")
    (tmp_path / "s" / "values/c/0/0/0/0").unlink()
    assert make(photos, tmp_path / "s").labelled == 4
    assert file_digests(tmp_path / "s") == file_digests(tmp_path / "whole")


@pytest.mark.parametrize("name", ["zarr.json", "samples.parquet"])
def test_what_a_build_began_with_may_not_change(photos: Path, tmp_path: Path, name: str):
    store = begin_half(photos, tmp_path / "s")
    data = (store / name).read_bytes()
    (store / name).write_bytes(data.replace(b"photos", b"phones"))
    if name == "samples.parquet":
        table = pq.read_table(store / name)
        ids = table["sample_id"].to_pylist()
        ids[0], ids[1] = ids[1], ids[0]
        pq.write_table(table.set_column(1, table.schema.field(1), [ids]), store / name)
    with pytest.raises(DamagedFileError, match="not what the build began with"):
        make(photos, store)


def test_labels_are_never_joined_to_other_samples(photos: Path, tmp_path: Path):
    store = begin_half(photos, tmp_path / "s")
    table = pq.read_table(store / "samples.parquet")
    ids = table["sample_id"].to_pylist()
    ids[0], ids[1] = ids[1], ids[0]
    pq.write_table(table.set_column(1, table.schema.field(1), [ids]), store / "samples.parquet")
    (store / "journal/running/begun.json").unlink()
    with pytest.raises(DamagedFileError, match="'sample_id' of its sample table is not that of the images"):
        make(photos, store)


def test_a_bad_first_image_does_not_hide_negative_logits(photos: Path, tmp_path: Path):
    (photos / "aaa.jpg").write_bytes(b"no image")
    teacher = ColourTeacher(offset=-10.0)
    with pytest.raises(AbsentRuleError):
        make(photos, tmp_path / "s", teacher=teacher, absent=None, batch_size=1)


def test_somebody_elses_zarr_group_is_refused_before_the_teacher_is_loaded(photos: Path, tmp_path: Path):
    zarr.create_group(tmp_path / "theirs.zarr")
    before = file_digests(tmp_path / "theirs.zarr")
    with pytest.raises(FormatError, match="no label store"):
        make(photos, tmp_path / "theirs.zarr", teacher="nowhere:to_be_found")
    assert file_digests(tmp_path / "theirs.zarr") == before


class KilledDecoder(ClassFolders):
    """Its third image kills the process that reads it, as the system does when memory runs out."""

    def read(self, row: int) -> bytes:
        if row == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(row)


def test_a_decoder_that_is_killed_is_no_bug_of_ours(photos: Path, tmp_path: Path):
    with pytest.raises(ImageReadError, match=r"a process that decodes images ended.*--workers"):
        make(KilledDecoder(photos), tmp_path / "s", workers=1)


@pytest.mark.parametrize("field", ["name", "licence"])
def test_text_that_is_not_utf8_is_refused(photos: Path, tmp_path: Path, field: str):
    with pytest.raises(OptionError, match="UTF-8"):
        make(photos, tmp_path / "s", **{field: "x\udcff"})
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "numbers", [{"mean": (float("nan"), 0, 0)}, {"std": (1, 0, 1)}, {"std": (1, float("inf"), 1)}]
)
def test_means_and_deviations_have_to_be_numbers(photos: Path, tmp_path: Path, numbers: dict[str, Any]):
    with pytest.raises(OptionError, match="expected"):
        build("efficientnet_lite0", photos, tmp_path / "s", **numbers)


def test_another_limit_is_guessed_where_images_are_gone(photos: Path, tmp_path: Path):
    begin_half(photos, tmp_path / "s")
    with pytest.raises(ImagesChangedError, match="was another --limit given"):
        make(photos, tmp_path / "s", limit=4)


def test_a_class_folder_in_another_normal_form_is_found(tmp_path: Path):
    folder = tmp_path / "photos" / unicodedata.normalize("NFD", "café")
    folder.mkdir(parents=True)
    Image.new("RGB", (9, 9), "red").save(folder / "a.png")
    teacher = ColourTeacher()
    names = ["café", *teacher.facts.classes.names[1:]]
    teacher.facts = replace(teacher.facts, classes=Classes.of(None, names, "made up"))
    make(tmp_path / "photos", tmp_path / "s", teacher=teacher)
    assert open_store(tmp_path / "s").samples["class_index"].to_pylist() == [0]


def test_a_share_that_fails_leaves_the_locks_of_another(tmp_path: Path):
    store = tmp_path / "s"
    with hold_share(store, Share(1, 2)):
        with pytest.raises(RuntimeError, match="no teacher"), hold_share(store, Share(0, 2)):
            raise RuntimeError("no teacher")
        with pytest.raises(StoreBusyError), hold_share(store, Share(1, 2)):
            pass
        assert list((store / "journal/running").iterdir())
    assert not store.exists()


def test_a_folder_of_another_name_says_how_to_keep_the_name(photos: Path, tmp_path: Path):
    begin_half(photos, tmp_path / "s")
    photos.rename(tmp_path / "pictures")
    with pytest.raises(SettingsChangedError, match="--name 'photos, colours' keeps it"):
        make(tmp_path / "pictures", tmp_path / "s")
    assert make(tmp_path / "pictures", tmp_path / "s", name="photos, colours").is_complete


class CompilableTeacher(ColourTeacher):
    """Notes when it is compiled, and the sizes of the batches that come after."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] | None = None

    def compile(self) -> None:
        self.batches = []

    def dense_logits(self, images: Tensor, precision: Precision) -> Tensor:
        if self.batches is not None:
            self.batches.append(len(images))
        return super().dense_logits(images, precision)


def test_a_teacher_is_compiled_after_the_checks_and_for_one_size(photos: Path, tmp_path: Path):
    teacher = CompilableTeacher()
    report = make(photos, tmp_path / "s", teacher=teacher, compile=True)
    assert teacher.batches == [3, *[3] * 6]  # to compile it; three parts of a batch of three and one of one
    assert report.manifest.build is not None
    assert report.manifest.build.is_compiled
    make(photos, tmp_path / "plain")
    assert (
        file_digests(tmp_path / "s")["indices/c/0/0/0/0"]
        == file_digests(tmp_path / "plain")["indices/c/0/0/0/0"]
    )


def test_going_on_takes_the_same_arithmetic(photos: Path, tmp_path: Path):
    with pytest.raises(InterruptedError):
        make(photos, tmp_path / "s", teacher=CompilableTeacher(), compile=True, observer=StopAfter(3))
    with pytest.raises(SettingsChangedError, match="compiled True, now False"):
        make(photos, tmp_path / "s", teacher=CompilableTeacher())
    assert make(photos, tmp_path / "s", teacher=CompilableTeacher(), compile=True).is_complete


def test_a_teacher_that_cannot_be_compiled_says_so(photos: Path, tmp_path: Path):
    with pytest.raises(TeacherError, match=r"no method compile\(\).*leave the option out"):
        make(photos, tmp_path / "s", compile=True)


@pytest.mark.slow
def test_a_compiled_timm_model_gives_the_same_labels(photos: Path, tmp_path: Path):
    timm = pytest.importorskip("timm")
    from relabel_store.generate.teacher import TeacherFacts, TeacherInput, TimmTeacher
    from relabel_store.manifest import Weights

    def teacher() -> TimmTeacher:
        torch.manual_seed(0)
        facts = TeacherFacts(
            "tiny", TeacherInput((64, 64)), 10, Classes.of(None, None, "x"), Weights("x", None)
        )
        return TimmTeacher(timm.create_model("test_resnet.r160_in1k", num_classes=10), facts)

    plain = make(photos, tmp_path / "plain", teacher=teacher(), value_step="exact", absent="rest")
    compiled = make(
        photos, tmp_path / "compiled", teacher=teacher(), value_step="exact", absent="rest", compile=True
    )
    one, other = (open_store(report.location).load().read_rows(range(12)) for report in (plain, compiled))
    np.testing.assert_allclose(one.values.astype(np.float32), other.values.astype(np.float32), atol=2e-3)


def test_the_profile_says_where_the_time_went(photos: Path, tmp_path: Path):
    report = make(photos, tmp_path / "s", workers=1)
    profile = report.profile
    assert profile is not None
    assert (profile.images, profile.workers) == (12, 1)
    idle = {Stage.COLLECT, Stage.WAIT_WRITE}  # a CPU may have nothing to wait for
    assert {stage for stage, seconds in profile.seconds.items() if not seconds} <= idle
    assert all(seconds <= profile.wall_s for seconds in profile.seconds.values())
    assert profile.bottleneck() is not None
    assert make(photos, tmp_path / "s").profile is None


def test_a_build_goes_on_after_running_out_of_memory(photos: Path, tmp_path: Path):
    class Small(ColourTeacher):
        def dense_logits(self, images: Tensor, precision: Precision) -> Tensor:
            if len(images) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().dense_logits(images, precision)

    make(photos, tmp_path / "s", teacher=Small())
    make(photos, tmp_path / "plain")
    for row in range(12):
        one, other = open_store(tmp_path / "s")[row], open_store(tmp_path / "plain")[row]
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.values, other.values)


class RollingTeacher(ColourTeacher):
    """Puts each column one further to the right, where a mirror image does not end up."""

    def dense_logits(self, images, precision):  # type: ignore[no-untyped-def]
        return super().dense_logits(images, precision).roll(1, dims=3)


def test_flips_are_averaged_recorded_and_may_not_change(photos: Path, tmp_path: Path):
    options = {"teacher": RollingTeacher(), "value_step": "exact", "top_k": 6}
    plain = make(photos, tmp_path / "plain", **options)
    report = make(photos, tmp_path / "s", **options, share="0/3", flip=True)
    assert report.manifest.teacher.flip
    assert "flip" not in plain.manifest.to_dict()["teacher"]
    with pytest.raises(SettingsChangedError, match="flip True, now False"):
        make(photos, tmp_path / "s", **options)
    make(photos, tmp_path / "s", **options, flip=True)
    flipped, once = (open_store(tmp_path / name)[0].values for name in ("s", "plain"))
    assert not np.array_equal(flipped, once)


@pytest.mark.parametrize("encoding", ["parquet", "packed"])
def test_a_store_in_another_encoding_holds_what_a_zarr_store_does_however_it_was_built(
    photos: Path, tmp_path: Path, encoding: str
):
    make(photos, tmp_path / "s.zarr")
    make(photos, tmp_path / f"whole.{encoding}")
    for share in ("0/3", "2/3", "1/3"):
        make(photos, tmp_path / "shares", encoding=encoding, share=share)
    zarr, other = (open_store(tmp_path / name) for name in ("s.zarr", f"whole.{encoding}"))
    assert (zarr.manifest.encoding.name, other.manifest.encoding.name) == ("zarr", encoding)
    assert other.samples.equals(zarr.samples)
    np.testing.assert_array_equal(other.load().read_rows(range(12)).values, zarr.read_rows(range(12)).values)
    assert file_digests(tmp_path / "shares") == file_digests(tmp_path / f"whole.{encoding}")
    with pytest.raises(SettingsChangedError, match=f"encoding {encoding}, now zarr"):
        make(photos, tmp_path / "shares", encoding="zarr")

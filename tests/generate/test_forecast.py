from __future__ import annotations

import itertools
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from relabel_store.errors import (
    AbsentRuleError,
    BadImageStop,
    ImagesChangedError,
    OptionError,
    SettingsChangedError,
)
from relabel_store.generate.forecast import Forecast, paces, spread_batches
from relabel_store.generate.profile import Profile, Stage
from relabel_store.generate.toy import ColourTeacher, build_colours
from relabel_store.testing import file_digests


def look_ahead(photos: Path, out: Path, **changes: object) -> Forecast:
    forecast = build_colours(photos, out, dry_run=True, **changes).forecast
    assert forecast is not None
    return forecast


def damage(photos: Path) -> None:
    (photos / "blue" / "0.png").write_bytes(b"no image")


def test_a_dry_run_writes_nothing(photos: Path, tmp_path: Path):
    before = set(tmp_path.rglob("*"))
    report = build_colours(photos, tmp_path / "new" / "s", dry_run=True)
    assert set(tmp_path.rglob("*")) == before
    assert (report.is_complete, report.labelled, report.parts_left) == (False, 0, 3)


def test_a_dry_run_counts_what_a_build_does(photos: Path, tmp_path: Path):
    forecast = look_ahead(photos, tmp_path / "s")
    assert (forecast.rows, forecast.parts) == (12, 3)
    assert forecast.seconds > 0
    assert forecast.seconds == pytest.approx(12 * forecast.seconds_a_row)
    assert forecast.device_bytes is None
    assert forecast.is_space_enough


def test_a_share_is_forecast_alone(photos: Path, tmp_path: Path):
    forecast = look_ahead(photos, tmp_path / "s", share="1/2")
    assert (forecast.rows, forecast.parts) == (4, 1)
    assert forecast.missing_bytes == forecast.store_bytes


def test_several_devices_share_the_time_and_add_up_their_memory(photos: Path, tmp_path: Path):
    forecast = look_ahead(photos, tmp_path / "s", device="cpu,cpu")
    assert (forecast.rows, forecast.parts, forecast.devices) == (12, 3, 2)
    assert forecast.seconds == pytest.approx(8 * forecast.seconds_a_row)  # one of them has two parts
    assert forecast.memory_bytes > 2 * look_ahead(photos, tmp_path / "s").memory_bytes * 0.8


def test_the_size_is_that_of_the_store(photos: Path, tmp_path: Path):
    forecast = look_ahead(photos, tmp_path / "s")
    build_colours(photos, tmp_path / "s")
    found = sum(path.stat().st_size for path in (tmp_path / "s").rglob("*") if path.is_file())
    assert found == pytest.approx(forecast.store_bytes, rel=0.2)


def test_what_is_finished_is_not_forecast_and_stays(photos: Path, tmp_path: Path):
    build_colours(photos, tmp_path / "s", share="0/3")
    before = file_digests(tmp_path / "s")
    forecast = look_ahead(photos, tmp_path / "s")
    assert (forecast.rows, forecast.parts) == (8, 2)
    assert forecast.missing_bytes == forecast.store_bytes * 2 // 3
    assert file_digests(tmp_path / "s") == before


def test_a_finished_store_leaves_nothing_to_forecast(photos: Path, tmp_path: Path):
    build_colours(photos, tmp_path / "s")
    before = file_digests(tmp_path / "s")
    report = build_colours(photos, tmp_path / "s", dry_run=True)
    assert (report.is_complete, report.parts_left, report.forecast) == (True, 0, None)
    assert file_digests(tmp_path / "s") == before


def test_parts_with_bad_images_are_forecast_where_they_are_tried_again(photos: Path, tmp_path: Path):
    damage(photos)
    build_colours(photos, tmp_path / "s")
    before = file_digests(tmp_path / "s")
    forecast = look_ahead(photos, tmp_path / "s", on_bad_image="retry")
    assert (forecast.rows, forecast.parts) == (4, 1)
    assert file_digests(tmp_path / "s") == before


def test_nothing_is_forecast_that_would_be_refused(photos: Path, tmp_path: Path):
    build_colours(photos, tmp_path / "s", share="0/3")
    with pytest.raises(SettingsChangedError, match="k 3, now 2"):
        build_colours(photos, tmp_path / "s", top_k=2, dry_run=True)
    (photos / "red" / "9.png").write_bytes((photos / "red" / "0.png").read_bytes())
    with pytest.raises(ImagesChangedError, match=r"1 added \('red/9.png'\)"):
        build_colours(photos, tmp_path / "s", dry_run=True)


def test_a_batch_with_negative_logits_stops_a_dry_run(photos: Path, tmp_path: Path):
    with pytest.raises(AbsentRuleError, match="use --absent rest"):
        build_colours(photos, tmp_path / "s", teacher=ColourTeacher(offset=0), dry_run=True)


def test_a_bad_image_stops_a_dry_run_as_it_would_the_build(photos: Path, tmp_path: Path):
    damage(photos)
    with pytest.raises(BadImageStop, match=r"blue/0\.png"):
        build_colours(photos, tmp_path / "s", on_bad_image="stop", dry_run=True)


def test_a_bad_image_is_no_obstacle_otherwise(photos: Path, tmp_path: Path):
    damage(photos)
    assert look_ahead(photos, tmp_path / "s").rows == 12


def test_rest_is_part_of_the_size(photos: Path, tmp_path: Path):
    without = look_ahead(photos, tmp_path / "s")
    assert look_ahead(photos, tmp_path / "s", absent="rest").store_bytes > without.store_bytes


def test_a_single_image_can_be_forecast(photos: Path, tmp_path: Path):
    assert look_ahead(photos, tmp_path / "s", limit=1).rows == 1


def test_a_disk_that_is_too_small_is_an_answer(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10))
    forecast = look_ahead(photos, tmp_path / "s")
    assert forecast.free_bytes == 10
    assert not forecast.is_space_enough


def test_a_cluster_is_not_forecast(photos: Path, tmp_path: Path):
    with pytest.raises(OptionError, match="times the device that it runs on"):
        build_colours(photos, tmp_path / "s", engine="ray", dry_run=True)


@pytest.mark.parametrize(("n", "size"), [(1, 3), (3, 3), (7, 3), (1000, 8)])
def test_batches_are_whole_and_spread_over_all_rows(n: int, size: int):
    batches = spread_batches(n, size, 4)
    assert [len(rows) for rows in batches] == [min(n, size)] * 4
    assert batches[0].start == 0
    assert all(0 <= rows.start < rows.stop <= n for rows in batches)
    steps = {after.start - before.start for before, after in itertools.pairwise(batches)}
    assert max(steps) - min(steps) <= 1


def profile_of(device: str, workers: int) -> Profile:
    """Return that of ten images which took 2 s to decode and 4 s to score."""
    profile = Profile(torch.device(device), workers=workers, images=10, wall_s=4.0)
    profile.seconds.update({Stage.READ: 0.5, Stage.DECODE: 1.5})
    return profile


def test_decoders_of_a_gpu_share_their_work():
    assert paces(profile_of("cuda", 4), 0.3) == {Stage.DECODE: 0.05, Stage.FORWARD: 0.4, Stage.WRITE: 0.3}


def test_whoever_decodes_itself_has_all_of_the_work():
    assert paces(profile_of("cuda", 0), 0.3)[Stage.DECODE] == 0.2
    assert paces(profile_of("cpu", 0), 0.3)[Stage.DECODE] == 0.2


def test_a_cpu_is_shared_by_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)
    expected = {Stage.DECODE: 0.05, Stage.FORWARD: 0.4, Stage.WRITE: 0.075}
    assert paces(profile_of("cpu", 1), 0.3) == pytest.approx(expected)

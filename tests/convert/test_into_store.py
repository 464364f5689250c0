from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from relabel_store import spec
from relabel_store.convert.into_store import convert_into_store
from relabel_store.convert.run import convert
from relabel_store.convert.sources.stores import StoreSource
from relabel_store.errors import SettingsChangedError, StoreBusyError, TargetExistsError
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import Compression, Encoding
from relabel_store.store.complete import Completion
from relabel_store.store.encoded import EncodedStore
from relabel_store.store.location import open_files
from relabel_store.store.locks import hold_lock
from relabel_store.store.part_labels import PartLabels
from relabel_store.store.reader import open_store
from relabel_store.testing import file_digests

PARQUET = Encoding.of("parquet", Compression.FAST)


class Stopped(StoreSource):
    """A source at whose second part the conversion is stopped."""

    def read_part(self, part: int) -> PartLabels:
        if part == 1:
            raise KeyboardInterrupt
        return super().read_part(part)


def test_an_interrupted_conversion_goes_on_and_ends_with_the_same_bytes(tmp_path, store, heard) -> None:
    whole, stopped = open_files(tmp_path / "whole.parquet"), open_files(tmp_path / "stopped.parquet")
    source = StoreSource(store)
    convert_into_store(source, whole, PARQUET, workers=1, observer=heard)
    assert heard.started == (10, 0)
    assert heard.written == [4, 4, 2]
    with pytest.raises(KeyboardInterrupt):
        convert_into_store(Stopped(store), stopped, PARQUET, workers=1, observer=heard)
    convert_into_store(source, stopped, PARQUET, workers=1, observer=heard)
    assert heard.started == (10, 4)
    assert file_digests(tmp_path / "stopped.parquet") == file_digests(tmp_path / "whole.parquet")


def test_two_workers_write_the_bytes_of_one(tmp_path, store, heard) -> None:
    for workers in (1, 2):
        files = open_files(tmp_path / f"{workers}.parquet")
        convert_into_store(StoreSource(store), files, PARQUET, workers=workers, observer=heard)
    assert file_digests(tmp_path / "2.parquet") == file_digests(tmp_path / "1.parquet")


def test_a_finished_conversion_has_nothing_left_to_do(tmp_path, store, heard) -> None:
    files = open_files(tmp_path / "b.parquet")
    convert_into_store(StoreSource(store), files, PARQUET, workers=1, observer=heard)
    before = file_digests(tmp_path / "b.parquet")
    heard.written.clear()
    convert_into_store(StoreSource(store), files, PARQUET, workers=1, observer=heard)
    assert heard.started == (10, 10)
    assert heard.written == []
    assert file_digests(tmp_path / "b.parquet") == before


def test_a_finished_store_that_lost_a_file_gets_it_again(tmp_path, store, heard) -> None:
    files = open_files(tmp_path / "b.parquet")
    convert_into_store(StoreSource(store), files, PARQUET, workers=1, observer=heard)
    before = file_digests(tmp_path / "b.parquet")
    next((tmp_path / "b.parquet").glob("*-00001-*.parquet")).unlink()
    convert_into_store(StoreSource(store), files, PARQUET, workers=1, observer=heard)
    assert file_digests(tmp_path / "b.parquet") == before


def test_other_labels_are_not_mixed_in(tmp_path, store, heard) -> None:
    files = open_files(tmp_path / "b.parquet")
    convert_into_store(StoreSource(store), files, PARQUET, workers=1, observer=heard)
    before = file_digests(tmp_path / "b.parquet")
    with pytest.raises(
        SettingsChangedError, match=r"holds other labels: label_map.value_step 0.125, expected 0.5;"
    ):
        convert_into_store(StoreSource(store, ValueStep(0.5)), files, PARQUET, workers=1, observer=heard)
    assert file_digests(tmp_path / "b.parquet") == before


def test_a_folder_of_something_else_is_left_alone(tmp_path, store: EncodedStore, heard) -> None:
    (tmp_path / "b.parquet").mkdir()
    (tmp_path / "b.parquet" / "notes.txt").write_text("mine")
    files = open_files(tmp_path / "b.parquet")
    with pytest.raises(TargetExistsError, match="notes"):
        convert_into_store(StoreSource(store), files, PARQUET, workers=1, observer=heard)
    assert [path.name for path in (tmp_path / "b.parquet").iterdir()] == ["notes.txt"]


def test_a_second_conversion_into_the_same_store_is_refused(tmp_path: Path, store, heard) -> None:
    files = open_files(tmp_path / "b.parquet")
    with (
        hold_lock(tmp_path / "b.parquet" / spec.RUNNING_DIR / "convert.lock"),
        pytest.raises(StoreBusyError, match="another process is converting into it"),
    ):
        convert_into_store(StoreSource(store), files, PARQUET, workers=1, observer=heard)


def test_the_store_reads_as_the_source(tmp_path, store, heard) -> None:
    files = open_files(tmp_path / "b.parquet")
    convert_into_store(StoreSource(store), files, PARQUET, workers=1, observer=heard)
    assert open_store(tmp_path / "b.parquet").samples.equals(store.samples)


@pytest.mark.parametrize("name", ["b.zarr", "b.parquet"])
def test_a_conversion_stopped_right_before_its_commit_goes_on(tmp_path, rng, monkeypatch, name) -> None:
    """Rows without a label are not taken for rows whose facts are still to come."""
    indices = np.tile(np.arange(2, dtype=np.uint16)[:, None, None], (4, 1, 3, 3))
    values = np.sort(rng.normal(5, 1, (4, 2, 3, 3)), axis=1)[:, ::-1].astype(np.float32)
    values[1] = np.nan
    np.savez(tmp_path / "a.npz", indices=indices, values=values, sample_ids=["a/1", "a/2", "b/1", "b/2"])
    options = {"num_classes": 5, "workers": 1}
    convert(tmp_path / "a.npz", tmp_path / f"whole-{name}", **options)
    with monkeypatch.context() as patched:
        patched.setattr(Completion, "to_bytes", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            convert(tmp_path / "a.npz", tmp_path / name, **options)
    report = convert(tmp_path / "a.npz", tmp_path / name, **options)
    assert [sample_id for sample_id, _ in report.without_label] == ["a/2"]
    assert file_digests(tmp_path / name) == file_digests(tmp_path / f"whole-{name}")


@pytest.mark.parametrize("name", ["a.zarr", "a.zarr/b.zarr", "a.zarr/indices/b.npz", "link/b.parquet"])
def test_nothing_is_written_into_what_is_read(tmp_path, store, name: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "a.zarr")
    before = file_digests(tmp_path / "a.zarr")
    with pytest.raises(
        TargetExistsError, match=r"lies in the labels .*a\.zarr', of which it would become a part"
    ):
        convert(tmp_path / "a.zarr", tmp_path / name, workers=1)
    assert file_digests(tmp_path / "a.zarr") == before


def test_nothing_is_written_into_another_store_or_among_the_images(tmp_path, store) -> None:
    convert(tmp_path / "a.zarr", tmp_path / "other.parquet", workers=1)
    before = file_digests(tmp_path / "other.parquet")
    with pytest.raises(TargetExistsError, match=r"lies in the store .*other\.parquet"):
        convert(tmp_path / "a.zarr", tmp_path / "other.parquet" / "x.zarr", workers=1)
    assert file_digests(tmp_path / "other.parquet") == before
    (tmp_path / "photos").mkdir()
    with pytest.raises(TargetExistsError, match=r"lies in the images .*photos'"):
        convert(tmp_path / "tree", tmp_path / "photos" / "x.zarr", images=tmp_path / "photos", workers=1)

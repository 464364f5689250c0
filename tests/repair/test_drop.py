from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from relabel_store.errors import DamagedFileError, NoLabelError
from relabel_store.generate.toy import build_colours
from relabel_store.repair import run as run_module
from relabel_store.repair.report import Remedy
from relabel_store.repair.run import repair_store
from relabel_store.store.reader import open_store
from relabel_store.store.writer import StoreWriter
from relabel_store.testing import file_digests
from relabel_store.validate.run import validate_store

Stores = Callable[[str], Path]

ENCODINGS = ("zarr", "parquet", "packed")


def flip(path: Path, at: float = 0.5) -> None:
    """Flip a bit of a file, so far into it."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)


def file_of_part(path: Path, part: int) -> Path:
    """Return a file of a part of a store."""
    zarr = path / "indices" / "c" / str(part) / "0" / "0" / "0"
    return zarr if zarr.exists() else next(path.glob(f"*-{part:05d}-of-*"))


def require_dropped(path: Path, whole: Path) -> None:
    """Check a store whose part 1 was dropped beside the one that it was."""
    assert not validate_store(path).has_errors()
    store, before = open_store(path), open_store(whole)
    assert len(store) == len(before)
    kept = [row for row in (*range(4), 8) if row not in before.bad_images]
    found, expected = store.read_rows(kept), before.read_rows(kept)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.values, expected.values)
    for row in range(4, 8):
        with pytest.raises(NoLabelError, match="dropped by a repair"):
            store[row]
    columns = ["row", "sample_id", "path", "class_index", "class_name"]
    assert store.samples.select(columns).equals(before.samples.select(columns))
    assert store.samples["status"].to_pylist()[4:8] == ["missing"] * 4
    assert store.manifest.statistics is not None
    assert store.manifest.statistics.labelled == len(kept)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_dropping_leaves_a_valid_store_whose_other_rows_read_the_same(
    store: Stores, whole: Stores, photos: Path, encoding: str
):
    path = store(encoding)
    file_of_part(path, 1).unlink()
    report = repair_store(path, drop=True, images=None if encoding == "zarr" else photos)
    assert report.is_whole
    assert [(part.part, part.remedy) for part in report.parts] == [(1, Remedy.DROPPED)]
    assert report.rows_with(Remedy.DROPPED) == 4
    assert report.digest_before != report.digest_after
    require_dropped(path, whole(encoding))


@pytest.mark.parametrize("encoding", ["parquet", "packed"])
def test_samples_that_can_still_be_read_need_no_images(store: Stores, whole: Stores, encoding: str):
    path = store(encoding)
    target = file_of_part(path, 1)
    data = target.read_bytes()
    intact = open_store(path).samples
    # Some of these places hold what tells the samples: then it is asked for, as another test shows.
    dropped = 0
    for at in np.linspace(0.05, 0.95, 12):
        flip(target, float(at))
        with contextlib.suppress(DamagedFileError):
            repair_store(path, drop=True)
            dropped += 1
            require_dropped(path, whole(encoding))
            known = ["width", "height", "sha256"]
            assert open_store(path).samples.select(known).equals(intact.select(known))
            shutil.rmtree(path)
            shutil.copytree(whole(encoding), path)
        target.write_bytes(data)
    assert dropped > 2


@pytest.mark.parametrize("encoding", ["parquet", "packed"])
def test_samples_that_nothing_tells_are_asked_for(store: Stores, encoding: str):
    path = store(encoding)
    file_of_part(path, 1).unlink()
    before = file_digests(path)
    with pytest.raises(DamagedFileError, match="give --images"):
        repair_store(path, drop=True)
    assert file_digests(path) == before


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("step", ["write_part", "complete"])
def test_a_drop_that_was_killed_goes_on(
    store: Stores,
    whole: Stores,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    step: str,
):
    path = store(encoding)
    file_of_part(path, 1).unlink()

    def killed(*_: object) -> None:
        raise InterruptedError("stopped by the test")

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, step, killed)
        with pytest.raises(InterruptedError):
            run_module.repair_store(path, drop=True, images=photos)
    assert validate_store(path).has_errors()
    repair_store(path, drop=True)
    require_dropped(path, whole(encoding))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_was_dropped_can_be_labelled_later(store: Stores, whole: Stores, photos: Path, encoding: str):
    path = store(encoding)
    file_of_part(path, 1).unlink()
    repair_store(path, drop=True, images=photos)
    build_colours(photos, path, encoding=encoding, on_bad_image="retry")
    assert file_digests(path) == file_digests(whole(encoding))

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from relabel_store.convert.into_files import Outcome, convert_into_files
from relabel_store.convert.sources.stores import StoreSource
from relabel_store.errors import OptionError, SettingsChangedError, StoreBusyError, TargetExistsError
from relabel_store.labels.values import ValueStep
from relabel_store.store.journal import BadImage
from relabel_store.store.locks import hold_lock
from relabel_store.store.part_labels import PartLabels
from relabel_store.testing import file_digests


class Stopped(StoreSource):
    """A source at whose last part the conversion is stopped."""

    def read_part(self, part: int) -> PartLabels:
        if part == 2:
            raise KeyboardInterrupt
        return super().read_part(part)


@pytest.fixture
def write(tmp_path, heard, part_files):
    """Write labels as a file a part."""

    def write_labels(source, name="out", *, workers=1, **options):
        return convert_into_files(
            source,
            tmp_path / name,
            "part-files",
            partial(part_files, **options),
            workers=workers,
            observer=heard,
        )

    return write_labels


def test_every_part_is_written_and_rows_without_a_label_are_named(tmp_path, store, write) -> None:
    assert write(StoreSource(store)) == Outcome([BadImage(5, "truncated")], ("without values",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "0.json",
        "1.json",
        "2.json",
        "first",
        "last",
    ]
    found = json.loads((tmp_path / "out" / "1.json").read_text())
    assert list(found) == [store.samples["sample_id"][row].as_py() for row in (4, 6, 7)]
    assert (tmp_path / "out" / "last").read_text() == "9"


@pytest.mark.parametrize("is_sequential", [False, True], ids=["parts on their own", "one after the other"])
def test_an_interrupted_conversion_goes_on(tmp_path, store, heard, write, is_sequential) -> None:
    write(StoreSource(store), "whole", is_sequential=is_sequential)
    with pytest.raises(KeyboardInterrupt):
        write(Stopped(store), is_sequential=is_sequential)
    assert not (tmp_path / "out").exists()
    write(StoreSource(store), is_sequential=is_sequential)
    assert heard.started == (10, 0 if is_sequential else 8)
    assert file_digests(tmp_path / "out") == file_digests(tmp_path / "whole")
    assert not (tmp_path / ".out.converting").exists()


def test_what_is_there_already_is_left_alone(tmp_path: Path, store, write) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(TargetExistsError, match="is there already"):
        write(StoreSource(store))
    assert (tmp_path / "out").read_text() == "mine"
    assert not (tmp_path / ".out.converting").exists()


def test_a_folder_that_is_not_there_is_named(store, write) -> None:
    with pytest.raises(TargetExistsError, match="make it first"):
        write(StoreSource(store), "a/b")


def test_other_labels_do_not_go_on_where_these_stopped(store, write) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(Stopped(store))
    with pytest.raises(SettingsChangedError, match=r"begun in '\.out\.converting'"):
        write(StoreSource(store, ValueStep(0.5)))


def test_a_second_conversion_at_the_same_time_is_refused(tmp_path: Path, store, write) -> None:
    with (
        hold_lock(tmp_path / ".out.converting" / "lock"),
        pytest.raises(StoreBusyError, match="another process is converting into it"),
    ):
        write(StoreSource(store))


def test_labels_that_the_layout_cannot_hold_leave_nothing_behind(tmp_path, store, heard, part_files) -> None:
    class Refusing(part_files):  # type: ignore[misc, valid-type]  # a fixture that is a class
        def begin(self, source):
            raise OptionError("no")

    with pytest.raises(OptionError, match="no"):
        convert_into_files(
            StoreSource(store), tmp_path / "out", "part-files", Refusing, workers=1, observer=heard
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]

"""What holds of every layout that labels are written in, whichever it is."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relabel_store import spec
from relabel_store.convert import formats
from relabel_store.convert.into_files import convert_into_files
from relabel_store.convert.observer import ConversionObserver
from relabel_store.errors import NotEnoughSpaceError
from relabel_store.manifest import AbsentRule
from relabel_store.store.part_labels import PartLabels
from relabel_store.testing import MadeUpLabels, file_digests, make_manifest

FORMS = [name for name in formats.target_names() if name not in spec.ENCODING_VERSIONS]
WITHOUT_REST = ("relabel", "token-labeling")


class Stopped(MadeUpLabels):
    """Labels at whose last part the conversion is stopped."""

    def read_part(self, part: int) -> PartLabels:
        if part == 2:
            raise KeyboardInterrupt
        return super().read_part(part)


def labels_for(form: str, kind: type[MadeUpLabels] = MadeUpLabels) -> MadeUpLabels:
    absent = AbsentRule.ZERO if form in WITHOUT_REST else AbsentRule.REST
    return kind.of(make_manifest(9, absent=absent), bad_images={5: "truncated"})


def digests(path: Path) -> dict[str, str]:
    return file_digests(path) if path.is_dir() else file_digests(path.parent)


@pytest.fixture(params=FORMS)
def form(request) -> str:
    name: str = request.param
    return name


def test_an_interrupted_conversion_ends_with_the_same_bytes(tmp_path, write, form) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    write(labels_for(form), tmp_path / "whole" / "out", form)
    with pytest.raises(KeyboardInterrupt):
        write(labels_for(form, Stopped), tmp_path / "stopped" / "out", form)
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == [".out.converting"]
    write(labels_for(form), tmp_path / "stopped" / "out", form)
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == ["out"]
    assert digests(tmp_path / "stopped" / "out") == digests(tmp_path / "whole" / "out")


def test_several_processes_write_the_same_bytes(tmp_path, write) -> None:
    form = "npz"  # what it learns of the labels has to reach the other processes
    labels = labels_for(form)
    write(labels, tmp_path / "one", form)
    make_target, observer = formats.target_maker(form), ConversionObserver()
    convert_into_files(labels, tmp_path / "two", form, make_target, workers=2, observer=observer)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_no_file_tells_of_this_machine(tmp_path, write, form) -> None:
    write(labels_for(form), tmp_path / "out", form)
    (tmp_path / "out.alone").mkdir()
    (tmp_path / "out").rename(tmp_path / "out.alone" / "out")
    secrets = [str(tmp_path), str(Path.home()) + os.sep, socket.gethostname()]
    for file in (tmp_path / "out.alone").rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        assert [secret for secret in secrets if secret.encode() in data] == []


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Let writes fail as they do on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_what_is_written_goes_on_later(tmp_path, write, form) -> None:
    with (
        files_no_larger_than(800),
        pytest.raises(NotEnoughSpaceError, match=r"File too large; free some space and run the same command"),
    ):
        write(labels_for(form), tmp_path / "out", form)
    assert not (tmp_path / "out").exists()
    write(labels_for(form), tmp_path / "out", form)
    assert (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", [1, 1000, 20_000])
@pytest.mark.parametrize("form", ["hdf5", "npz"])
def test_a_disk_that_is_full_when_parts_are_put_together_is_said(tmp_path, write, form, missing) -> None:
    (tmp_path / "whole").mkdir()
    labels = MadeUpLabels.of(make_manifest(40, grid=(9, 9), k=5, shard_rows=4))
    write(labels, tmp_path / "whole" / "out", form)
    with (
        files_no_larger_than((tmp_path / "whole" / "out").stat().st_size - missing),
        pytest.raises(NotEnoughSpaceError, match=r"File too large"),
    ):
        write(labels, tmp_path / "out", form)
    write(labels, tmp_path / "out", form)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole" / "out").read_bytes()

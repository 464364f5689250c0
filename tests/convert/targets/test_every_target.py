"""What holds of every layout that labels are written in, whichever it is."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from relabel_store import spec
from relabel_store.convert import formats
from relabel_store.convert.into_files import convert_into_files
from relabel_store.convert.observer import ConversionObserver
from relabel_store.errors import NotEnoughSpaceError
from relabel_store.manifest import AbsentRule
from relabel_store.store.writer import PartLabels
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
    for form in ("relabel", "npz"):  # one of many files, one that is put together
        labels = labels_for(form)
        write(labels, tmp_path / f"one-{form}", form)
        convert_into_files(
            labels,
            tmp_path / f"two-{form}",
            form,
            formats.target_maker(form),
            workers=2,
            observer=ConversionObserver(),
        )
    found = file_digests(tmp_path)
    ours, theirs = (
        {name[4:]: at for name, at in found.items() if name[:4] == which} for which in ("one-", "two-")
    )
    assert ours == theirs != {}


def test_no_file_tells_of_this_machine(tmp_path, write, form) -> None:
    write(labels_for(form), tmp_path / "out", form)
    (tmp_path / "out.alone").mkdir()
    (tmp_path / "out").rename(tmp_path / "out.alone" / "out")
    secrets = [str(tmp_path), str(Path.home()) + os.sep, socket.gethostname()]
    for file in (tmp_path / "out.alone").rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        assert [secret for secret in secrets if secret.encode() in data] == []


def test_a_full_disk_is_said_and_what_is_written_goes_on_later(tmp_path, write, form, monkeypatch) -> None:
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        target = type(formats.target_maker(form)(tmp_path / "unused"))
        patch.setattr(target, "finish", fail)
        with pytest.raises(
            NotEnoughSpaceError, match=r"No space left on device; free some space and run the same"
        ):
            write(labels_for(form), tmp_path / "out", form)
    assert not (tmp_path / "out").exists()
    write(labels_for(form), tmp_path / "out", form)
    assert (tmp_path / "out").exists()

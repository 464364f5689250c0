from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from relabel_store.convert.sources import npz_members
from relabel_store.convert.sources.npz_members import member_names, open_members
from relabel_store.errors import LabelSourceError, NotEnoughSpaceError


@pytest.fixture
def arrays(rng):
    return {
        "indices": rng.integers(0, 99, (7, 2, 3)).astype(np.uint16),
        "values": rng.normal(size=(7, 2, 3)).astype(np.float32),
    }


@pytest.fixture(params=[np.savez, np.savez_compressed], ids=["stored", "deflated"])
def path(request, tmp_path: Path, arrays) -> Path:
    request.param(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz"


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    (tmp_path / "unpacked").mkdir()
    return tmp_path / "unpacked"


def test_arrays_are_those_that_were_saved(path, arrays, unpacked) -> None:
    assert member_names(path) == ["indices", "values"]
    opened = open_members(path, ["indices", "values"], unpacked)
    for name, array in arrays.items():
        np.testing.assert_array_equal(opened[name].read(range(2, 6)), array[2:6])
        assert opened[name].dtype == array.dtype


def test_only_what_is_compressed_is_unpacked_and_only_on_request(tmp_path, arrays, unpacked) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    assert open_members(tmp_path / "a.npz", ["values"], unpacked)["values"].path == tmp_path / "a.npz"
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    open_members(tmp_path / "b.npz", ["values"], unpacked)
    assert [file.name for file in unpacked.iterdir()] == ["values.npy"]


def test_no_flipped_bit_of_the_numbers_goes_unnoticed(path, arrays, unpacked) -> None:
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("values.npy")
    whole = path.read_bytes()
    for step in range(1, member.compress_size - 30, 5):
        damaged = bytearray(whole)
        damaged[member.header_offset + 80 + step] ^= 16  # past the names and extra field of its local header
        path.write_bytes(damaged)
        try:
            found = open_members(path, ["values"], unpacked)["values"].read_all()
        except LabelSourceError as error:
            assert "a.npz" in str(error)  # noqa: PT017 - either outcome is right
        else:
            np.testing.assert_array_equal(found, arrays["values"])


@pytest.mark.parametrize("length", [0, 10, 200, -1])
def test_a_file_cut_short_is_refused(path, unpacked, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(LabelSourceError, match=r"'a\.npz'"):
        open_members(path, member_names(path), unpacked)


def test_a_member_that_unpacks_to_more_than_its_array_is_refused_before(tmp_path, unpacked) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 2), np.float32))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("values.npy", buffer.getvalue() + bytes(10**7))
    with pytest.raises(
        LabelSourceError, match=r"10,000,144 bytes, expected 144 for float32 of shape \(2, 2\)"
    ):
        open_members(tmp_path / "a.npz", ["values"], unpacked)
    assert list(unpacked.iterdir()) == []


def test_what_does_not_fit_the_disk_is_not_unpacked(tmp_path, arrays, unpacked, monkeypatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(npz_members.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(NotEnoughSpaceError, match=r"needed to unpack 'a\.npz'; .*TMPDIR"):
        open_members(tmp_path / "a.npz", ["values"], unpacked)


def test_another_compression_is_refused(tmp_path, arrays, unpacked) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("values.npy", b"x")
    with pytest.raises(LabelSourceError, match="compressed in a way that numpy does not write"):
        open_members(tmp_path / "a.npz", ["values"], unpacked)


def test_an_encrypted_member_is_refused(tmp_path, arrays, unpacked) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    for signature, flags_at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            data[at + flags_at] |= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(LabelSourceError, match="encrypted"):
        open_members(tmp_path / "a.npz", ["values"], unpacked)

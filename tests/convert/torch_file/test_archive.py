from __future__ import annotations

import io
import zipfile

import pytest

from relabel_store.convert.torch_file import archive
from relabel_store.convert.torch_file.archive import Archive
from relabel_store.errors import FormatError


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytearray:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return bytearray(file.getvalue())


def read_first(data: bytes) -> bytes:
    found = Archive(data)
    return found.read(found.names()[0])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_members_are_read(method: int) -> None:
    found = Archive(bytes(zipped({"a/x": b"1" * 1000, "a/ü": b""}, method)))
    assert found.names() == ["a/x", "a/ü"]
    assert "a/x" in found
    assert found.read("a/x") == b"1" * 1000
    assert found.read("a/ü") == b""
    with pytest.raises(FormatError, match="no member 'b'"):
        found.read("b")


def test_a_member_that_grows_past_what_it_says_is_refused() -> None:
    data = zipped({"x": bytes(1_000_000)}, zipfile.ZIP_DEFLATED)
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = (100).to_bytes(4, "little")
    with pytest.raises(FormatError, match="does not have the 100 bytes it says"):
        Archive(bytes(data)).read("x")


def test_a_member_larger_than_any_map_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBER", 10)
    with pytest.raises(FormatError, match="11 bytes, expected 10 at most"):
        Archive(bytes(zipped({"x": b"1" * 11}))).read("x")


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (8, b"\x01", "encrypted"),
        (10, b"\x0c", "packed in a way"),
        (20, b"\xff" * 4, "larger than 4 GiB"),
        (42, b"\x00\x00\x00\x7f", "lies outside"),
        (16, b"\x00\x00\x00\x00", "checksum"),
        (46, b"y", "not where it should be"),
        (46, b"\xff", "not UTF-8"),
    ],
    ids=["encrypted", "method", "zip64", "outside", "checksum", "name", "not UTF-8"],
)
def test_a_list_that_lies_is_refused(offset: int, value: bytes, reason: str) -> None:
    data = zipped({"x": b"1234"})
    at = data.index(b"PK\x01\x02") + offset
    data[at : at + len(value)] = value
    with pytest.raises(FormatError, match=reason):
        read_first(bytes(data))


def test_a_name_that_is_there_twice_is_refused() -> None:
    data = zipped({"x": b"1", "y": b"2"})
    with pytest.raises(FormatError, match="twice"):
        Archive(bytes(data.replace(b"y", b"x")))


def test_a_zip_file_with_a_comment_is_none_of_torchs() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.comment = b"hello"
    with pytest.raises(FormatError, match="does not end as torch ends one"):
        Archive(file.getvalue())

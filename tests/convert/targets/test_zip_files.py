from __future__ import annotations

import io
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel_store.convert.targets import zip_files
from relabel_store.convert.targets.zip_files import DEFLATED, STORED, Member, combine_crc, directory


def write_archive(files: dict[str, bytes], method: int = STORED, padding: bytes = b"") -> bytes:
    archive, members = io.BytesIO(), []
    for name, data in files.items():
        packed = zlib.compress(data, wbits=-15) if method == DEFLATED else data
        members.append(
            Member(name, zlib.crc32(data), len(data), len(packed), archive.tell(), method, padding)
        )
        archive.write(members[-1].local_header() + packed)
    archive.write(directory(members, archive.tell()))
    return archive.getvalue()


FILES = {"a": b"", "b/ä.npy": b"some bytes" * 50, "c": bytes(range(256))}


@pytest.mark.parametrize("method", [STORED, DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("limit", [0xFFFFFFFF, 100], ids=["32 bits", "64 bits"])
def test_the_standard_library_reads_what_is_written(
    method: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_files, "_LIMIT", limit)
    archive = write_archive(FILES, method, b"FB\x02\x00ZZ")
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == FILES
        assert {info.date_time for info in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_the_checksum_of_two_pieces_is_that_of_the_whole(first: bytes, second: bytes) -> None:
    assert combine_crc(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)

from __future__ import annotations

import io
import tarfile
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel_store.errors import ImageSourceError
from relabel_store.images.tar_members import Member, scan_tar

Change = Callable[[bytearray], None]


def make_tar(
    files: dict[str, bytes], layout: int = tarfile.PAX_FORMAT, **facts: dict[str, object]
) -> bytearray:
    """Return a tar; facts of members go by position, as ``m0``."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=layout) as tar:
        for position, (name, content) in enumerate(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for fact, value in facts.get(f"m{position}", {}).items():
                setattr(member, fact, value)
            tar.addfile(member, io.BytesIO(content))
    return bytearray(data.getvalue())


def scan(data: bytes) -> list[Member]:
    return list(scan_tar(io.BytesIO(data), "x.tar"))


NAMES = st.text(
    st.characters(blacklist_characters="\0/", blacklist_categories=["Cs"]), min_size=1, max_size=130
)


@settings(max_examples=60)
@given(
    files=st.dictionaries(
        NAMES.map(lambda name: f"c/{name}.jpg"), st.binary(max_size=1100), min_size=1, max_size=6
    ),
    layout=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_members_lie_where_they_are_said_to(files: dict[str, bytes], layout: int):
    data = bytes(make_tar(files, layout))
    found = scan(data)
    assert [member.path for member in found] == list(files)
    for member, content in zip(found, files.values(), strict=True):
        assert data[member.offset : member.offset + member.size] == content


def test_a_tar_inside_a_file_is_scanned_from_where_it_begins():
    inner = bytes(make_tar({"a.jpg": b"1", "b.jpg": b"22"}))
    data = b"before" + inner + b"after"
    found = list(scan_tar(io.BytesIO(data), "x.tar", 6, len(inner)))
    assert [data[member.offset : member.offset + member.size] for member in found] == [b"1", b"22"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("./c/a.jpg", "c/a.jpg"),
        ("/data/c/a.jpg", "data/c/a.jpg"),
        ("c//a.jpg", "c/a.jpg"),
        ("c/./a.jpg", "c/a.jpg"),
    ],
)
def test_paths_are_plain(name: str, path: str):
    assert [member.path for member in scan(make_tar({name: b"1"}))] == [path]


@pytest.mark.parametrize("name", ["../a.jpg", "c/../../a.jpg", "/../a.jpg", ".."])
def test_a_path_that_leads_out_is_refused(name: str):
    with pytest.raises(ImageSourceError, match="expected one that stays below the root"):
        scan(make_tar({name: b"1"}))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "a link to 'c/b.jpg', expected a file; make the tar with --dereference"),
        (tarfile.LNKTYPE, "a link to 'c/b.jpg'"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a device"),
    ],
)
def test_an_image_that_is_no_file_is_refused(kind: bytes, message: str):
    data = make_tar({"c/a.jpg": b""}, m0={"type": kind, "linkname": "c/b.jpg"})
    with pytest.raises(ImageSourceError, match=f"'c/a.jpg' is {message}"):
        scan(data)


def test_folders_and_links_that_are_no_images_are_passed_over():
    data = make_tar(
        {"c.jpg": b"", "latest": b"", "c.jpg/a.jpg": b"1"},
        m0={"type": tarfile.DIRTYPE},
        m1={"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
    )
    assert [member.path for member in scan(data)] == ["c.jpg/a.jpg"]


def test_a_sparse_image_is_refused():
    data = make_tar({"c/a.jpg": b"1" * 600}, tarfile.GNU_FORMAT, m0={"type": tarfile.GNUTYPE_SPARSE})
    with pytest.raises(ImageSourceError, match="sparse"):
        scan(data)


def test_a_name_that_is_not_utf8_is_refused():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        tar.addfile(tarfile.TarInfo("c/\udcff.jpg"), io.BytesIO())
    with pytest.raises(ImageSourceError, match="not UTF-8"):
        scan(data.getvalue())


WHOLE = make_tar({"c/a.jpg": b"1" * 700, "c/b.jpg": b"2" * 700, "c/c.jpg": b"3"})


@pytest.mark.parametrize("end", [0, 100, 511, 512, 900, 1536, 2000, 2047, 2048, 2500, 4095, 4096])
def test_a_tar_that_was_cut_off_is_refused(end: int):
    with pytest.raises(ImageSourceError):
        scan(WHOLE[:end])


def test_a_cut_in_the_padding_at_the_end_does_no_harm():
    assert len(scan(WHOLE[: 4096 + 512])) == 3


@pytest.mark.parametrize("byte", range(0, 512, 7))
def test_a_damaged_header_is_an_error_and_never_the_end(byte: int):
    data = bytearray(WHOLE)
    data[1536 + byte] ^= 0x10
    with pytest.raises(ImageSourceError, match="damaged"):
        scan(data)


def test_tars_that_were_joined_are_refused():
    with pytest.raises(ImageSourceError, match=r"more follows after its end, .* tars that were joined"):
        scan(WHOLE + WHOLE)


def test_a_huge_header_is_not_read_into_memory():
    header = tarfile.TarInfo("c/a.jpg")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 200 << 20
    tracemalloc.start()
    try:
        with pytest.raises(ImageSourceError, match="a header of 209715200 bytes"):
            scan(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_headers_that_never_end_are_an_error():
    header = make_tar({"c/a.jpg": b""}, tarfile.GNU_FORMAT, m0={"type": tarfile.XHDTYPE})[:512]
    with pytest.raises(ImageSourceError):
        scan(header * 20_000)


@settings(max_examples=150)
@given(at=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_never_gives_another_name_or_place(at: int, bit: int):
    data = bytearray(WHOLE)
    data[at] ^= 1 << bit
    try:
        found = scan(data)
    except ImageSourceError:
        return
    assert [(m.path, m.offset, m.size) for m in found] == [(m.path, m.offset, m.size) for m in scan(WHOLE)]

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from relabel_store.repair.damaged_completion import digest_in, records_in, salvage_store
from relabel_store.repair.run import repair_store
from relabel_store.store.complete import Completion
from relabel_store.store.files import FileEntry
from relabel_store.store.journal import BadImage, PartRecord
from relabel_store.store.local_files import LocalFiles
from relabel_store.testing import file_digests

ENTRY = FileEntry.of_bytes(b"x")
RECORDS = {
    part: PartRecord(part, range(part, part + 1), {"a": ENTRY}, ENTRY, (BadImage(part, 'no "image", {'),), 1)
    for part in range(3)
}
COMPLETION = Completion({"a": ENTRY}, RECORDS, {"name": '{"bad_images":'})
DATA = COMPLETION.to_bytes()


def test_all_is_found_in_a_whole_file():
    assert records_in(DATA) == RECORDS
    assert digest_in(DATA) == COMPLETION.digest


def test_whatever_bit_is_flipped_at_most_one_record_is_lost():
    for at in range(len(DATA)):
        data = bytearray(DATA)
        data[at] ^= 1 << at % 8
        found = records_in(bytes(data))
        assert found.items() <= RECORDS.items()
        assert len(found) >= 2


def test_what_was_cut_off_is_lost():
    assert set(records_in(DATA[: DATA.index(b'"part":2')])) == {0, 1}
    assert records_in(DATA[:40]) == {}


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b'{"bad_images":' * 5000, b'{"bad_images":NaN}', b'{"digest":"sha256:0",'],
    ids=range(5),
)
def test_nothing_is_found_where_nothing_is(data: bytes):
    assert (records_in(data), digest_in(data)) == ({}, None)


@pytest.mark.parametrize("encoding", ["parquet", "packed"])
def test_a_repair_that_was_stopped_is_gone_on_with(
    store: Callable[[str], Path], whole: Callable[[str], Path], encoding: str
):
    path = store(encoding)
    data = (path / "complete.json").read_bytes().replace(b'"manifest"', b'"manifesto"')
    (path / "complete.json").write_bytes(data)
    files = LocalFiles(path)
    salvage_store(files, data).open_again(files)
    assert repair_store(path).is_whole
    assert file_digests(path) == file_digests(whole(encoding))

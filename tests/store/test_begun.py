from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from relabel_store import spec
from relabel_store.errors import DamagedFileError, FormatError, TargetExistsError
from relabel_store.store.begun import claim, read_begun, require_vouched, vouch_for
from relabel_store.store.encodings import ENCODINGS, encoding_of
from relabel_store.store.files import FileEntry
from relabel_store.store.local_files import LocalFiles
from relabel_store.store.reader import open_store
from relabel_store.store.writer import StoreWriter

ONE, OTHER = FileEntry.of_bytes(b"one"), FileEntry.of_bytes(b"other")


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path)


def test_what_a_build_begins_with_is_recorded(files: LocalFiles) -> None:
    claim(files, {"a": ONE})
    assert read_begun(files) == {"a": (ONE,)}


def test_the_same_beginning_is_joined(files: LocalFiles) -> None:
    claim(files, {"a": ONE})
    claim(files, {"a": ONE})


def test_another_beginning_is_refused(files: LocalFiles) -> None:
    claim(files, {"a": ONE})
    with pytest.raises(TargetExistsError, match="of other labels or images"):
        claim(files, {"a": OTHER})


@pytest.mark.parametrize(("content", "is_sound"), [(b"one", True), (b"other", True), (b"third", False)])
def test_a_file_that_is_being_replaced_may_be_either(
    files: LocalFiles, content: bytes, is_sound: bool
) -> None:
    claim(files, {"a": ONE})
    vouch_for(files, {"a": OTHER})
    files.write("a", content)
    if is_sound:
        require_vouched(files, "a")
    else:
        with pytest.raises(DamagedFileError, match="store file 'a': is not what the build began with"):
            require_vouched(files, "a")


class ReplacedMeanwhile(LocalFiles):
    """Files of which another process replaces one, when its size is asked for the first time, or finishes the store."""

    turns: ClassVar[list[Callable[[LocalFiles], None]]] = []

    def size(self, name: str) -> int | None:
        if self.turns:
            self.turns.pop()(LocalFiles(self.path))
        return super().size(name)


def replace_it(files: LocalFiles) -> None:
    vouch_for(files, {"a": OTHER})
    files.write("a", b"other")


def finish_it(files: LocalFiles) -> None:
    files.write("a", b"third")
    files.remove([spec.BEGUN_FILE])


@pytest.mark.parametrize("turn", [replace_it, finish_it])
def test_a_file_that_is_replaced_while_it_is_looked_at_is_sound(
    files: LocalFiles, monkeypatch: pytest.MonkeyPatch, turn: Callable[[LocalFiles], None]
) -> None:
    claim(files, {"a": ONE})
    files.write("a", b"one")
    monkeypatch.setattr(ReplacedMeanwhile, "turns", [turn])
    require_vouched(ReplacedMeanwhile(files.path), "a")
    assert ReplacedMeanwhile.turns == []


def test_where_the_record_was_lost_what_is_there_goes_on_being_right(files: LocalFiles) -> None:
    files.write("a", b"one")
    vouch_for(files, {"a": OTHER})
    require_vouched(files, "a")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"a":1}', b'{"digest":"sha256:0"}'])
def test_a_record_that_is_damaged_vouches_for_nothing(files: LocalFiles, data: bytes) -> None:
    files.write(spec.BEGUN_FILE, data)
    files.write("a", b"third")
    require_vouched(files, "a")
    assert read_begun(files) is None


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("which", ["manifest_file", "samples_file"])
@pytest.mark.parametrize("history", ["being built", "opened again"])
def test_a_reader_of_an_unfinished_store_takes_neither_manifest_nor_samples_on_trust(
    unfinished: Any, finished: Any, encoding: str, which: str, history: str
) -> None:
    made = unfinished
    if history == "opened again":
        made = finished
        StoreWriter.resume(made.path).drop_parts([1])
    name = getattr(encoding_of(made.manifest), which)
    path = made.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=f"'{name}'"):  # what is no manifest any more is found out first
        open_store(made.path).read_rows([0])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_manifest_that_names_another_encoding_is_what_is_damaged(unfinished: Any, encoding: str) -> None:
    path = unfinished.path / encoding_of(unfinished.manifest).manifest_file
    text = path.read_text()
    for other in ENCODINGS.keys() - {encoding}:
        path.write_text(text.replace(f'"name":"{encoding}"', f'"name":"{other}"'))
        assert path.read_text() != text
        with pytest.raises(FormatError, match=f"store file '{path.relative_to(unfinished.path)}'"):
            open_store(unfinished.path).read_rows([0])
        with pytest.raises(FormatError, match=f"store file '{path.relative_to(unfinished.path)}'"):
            StoreWriter.resume(unfinished.path)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_store_that_is_opened_again_is_read_as_before(finished: Any, encoding: str) -> None:
    StoreWriter.resume(finished.path).drop_parts([1])
    found = open_store(finished.path).read_rows(range(4))
    np.testing.assert_array_equal(found.indices, finished.maps.indices[:4])


def test_finishing_leaves_no_record_of_the_beginning(finished: Any, read_tree: Callable[..., Any]) -> None:
    assert spec.BEGUN_FILE not in read_tree(finished.path)

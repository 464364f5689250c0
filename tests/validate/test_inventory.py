from __future__ import annotations

import os
from pathlib import Path

from relabel_store.store.local_files import LocalFiles
from relabel_store.store.remote_files import RemoteFiles
from relabel_store.validate.inventory import take_inventory


def test_files_are_listed_with_their_sizes_whatever_they_are_called(tmp_path: Path):
    for name, size in {"a": 1, "b/c/d": 0, ".hidden": 3, "b/ü ": 2}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    inventory = take_inventory(LocalFiles(tmp_path))
    assert inventory.sizes == {"a": 1, "b/c/d": 0, ".hidden": 3, "b/ü ": 2}
    assert inventory.others == {}
    assert inventory.is_whole


def test_what_is_no_file_is_named(tmp_path: Path):
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "round").symlink_to(tmp_path)
    (tmp_path / "lost").symlink_to(tmp_path / "nothing")
    assert take_inventory(LocalFiles(tmp_path)).others == {
        "empty/inner": "an empty folder",
        "pipe": "neither a file nor a folder",
        "round": "a link to a folder",
        "lost": "a link that leads nowhere",
    }


def test_a_link_to_a_file_counts_as_that_file(tmp_path: Path):
    """Caches of downloads, Hugging Face's for one, keep files elsewhere."""
    (tmp_path / "blob").write_bytes(b"1234")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a").symlink_to(tmp_path / "blob")
    assert take_inventory(LocalFiles(tmp_path / "store")).sizes == {"a": 4}


def test_objects_are_listed_with_their_sizes(tmp_path: Path):
    files = RemoteFiles(f"memory://bucket/{tmp_path.name}")
    files.write("complete.json", b"12")
    files.write("indices/c/0", b"123")
    inventory = take_inventory(files)
    assert inventory.sizes == {"complete.json": 2, "indices/c/0": 3}
    assert inventory.is_whole

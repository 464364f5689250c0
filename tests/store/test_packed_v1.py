from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from relabel_store import spec
from relabel_store.errors import DamagedFileError
from relabel_store.manifest import AbsentRule, Manifest
from relabel_store.store.arrays import Arrays, array_specs
from relabel_store.store.packed_v1 import PackedParts, chunk_member, encode_archive, part_file
from relabel_store.store.reader import open_store
from relabel_store.testing import make_label_maps, make_manifest, make_samples, make_store

MANIFEST = make_manifest(n=4, encoding="packed")


@pytest.fixture
def encoding() -> str:
    return spec.ENCODING_PACKED


def read_members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_part_is_an_archive_of_manifest_samples_and_chunks(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    manifest = make_manifest(n=9, shard_rows=6, chunk_rows=2, encoding="packed")
    maps = make_store(tmp_path / "s", rng, manifest)
    parts = [read_members(tmp_path / "s" / part_file(manifest, part)) for part in range(2)]
    assert [list(part) for part in parts] == [
        ["manifest.json", "samples.parquet", *map(chunk_member, range(3))],
        ["manifest.json", "samples.parquet", *map(chunk_member, range(2))],
    ]
    for part in parts:
        assert Manifest.from_dict(json.loads(part["manifest.json"])) == manifest
    rows = [pq.read_table(io.BytesIO(part["samples.parquet"])).to_pydict() for part in parts]
    assert rows[0]["row"] + rows[1]["row"] == list(range(9))
    assert rows[0]["sample_id"] + rows[1]["sample_id"] == maps.sample_ids


def test_only_the_manifest_is_compressed_by_the_archive(finished: Any) -> None:
    for path in finished.path.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            deflated = [info.filename for info in archive.infolist() if info.compress_type]
            assert deflated == ["manifest.json"]
            assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
            assert archive.testzip() is None


def test_a_program_that_unpacks_archives_reads_the_samples(finished: Any, tmp_path: Path) -> None:
    (path, _) = sorted(finished.path.glob("*.zip"))
    command = [sys.executable, "-m", "zipfile", "-e", str(path), str(tmp_path / "unpacked")]
    subprocess.run(command, check=True)
    table = pq.read_table(tmp_path / "unpacked" / "samples.parquet")
    assert table["sample_id"].to_pylist() == finished.maps.sample_ids[:4]


@pytest.mark.parametrize("absent", AbsentRule)
@pytest.mark.parametrize("value_step", [0.125, "exact"])
def test_a_packed_store_is_smaller_than_a_zarr_store(
    tmp_path: Path, rng: np.random.Generator, value_step: float | str, absent: AbsentRule
) -> None:
    kind: dict[str, Any] = {"n": 64, "k": 3, "num_classes": 50, "value_step": value_step, "absent": absent}
    layout = {"shard_rows": 64, "chunk_rows": 64}
    sizes = {}
    for name in ("zarr", "packed"):
        manifest = make_manifest(**kind, **layout, grid=(7, 7), encoding=name)
        make_store(tmp_path / name, np.random.default_rng(0), manifest)
        sizes[name] = open_store(tmp_path / name).size_bytes
    assert sizes["packed"] < sizes["zarr"]


# Archives that are none, although their digests are right


def make_archive(manifest: Manifest = MANIFEST) -> bytes:
    maps = make_label_maps(np.random.default_rng(0), manifest)
    arrays: Arrays = {name: getattr(maps, name) for name in array_specs(manifest)}
    return encode_archive(manifest, arrays, make_samples(manifest))


def read_everything(data: bytes | Path) -> Arrays:
    """Read all that a part's file holds, in every way there is."""
    parts = PackedParts(MANIFEST)
    parts.read_samples(0, lambda name: data)
    for start in (0, 2):
        parts.read_rows(0, range(start, start + 2), lambda name: data)
    into = {name: array.empty(4) for name, array in array_specs(MANIFEST).items()}
    parts.read_part(0, lambda name: data if isinstance(data, bytes) else data.read_bytes(), into)
    return into


def rewritten(change: Callable[[dict[str, bytes]], object], how: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(io.BytesIO(make_archive())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_an_archive_is_read_from_a_path_as_from_bytes(tmp_path: Path) -> None:
    path = tmp_path / "part.zip"
    path.write_bytes(make_archive())
    found = read_everything(path)
    for name, array in read_everything(path.read_bytes()).items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        pytest.param(rewritten(lambda members: members.pop("maps/00001")), "3 members", id="a chunk less"),
        pytest.param(
            rewritten(lambda members: members.update({"maps/00002": b""})), "5 members", id="a chunk more"
        ),
        pytest.param(rewritten(lambda members: members.pop("samples.parquet")), "3 members", id="no samples"),
        pytest.param(
            rewritten(lambda members: members.update({"maps/00001": members["maps/00001"] + b"\0"})),
            "1 bytes after its last stream",
            id="a longer chunk",
        ),
        pytest.param(
            rewritten(lambda members: members.update({"samples.parquet": b"PAR1"})),
            "sample table",
            id="no sample table",
        ),
        pytest.param(rewritten(lambda members: None, zipfile.ZIP_DEFLATED), "is compressed", id="deflated"),
        pytest.param(rewritten(lambda members: None, zipfile.ZIP_BZIP2), "is compressed", id="bzip2"),
        pytest.param(b"", "not a zip file", id="empty"),
        pytest.param(b"PK\5\6" + 18 * b"\0", "0 members", id="empty archive"),
        pytest.param(
            make_archive(make_manifest(n=2, chunk_rows=1, encoding="packed")), "2 samples", id="rows"
        ),
    ],
)
def test_an_archive_of_something_else_is_refused(data: bytes, match: str) -> None:
    with pytest.raises(DamagedFileError, match=rf"'made-up-00000-of-00001\.zip'.*{match}"):
        read_everything(data)


def test_an_archive_that_is_cut_off_anywhere_is_refused() -> None:
    data = make_archive()
    for length in range(0, len(data), 11):
        with pytest.raises(DamagedFileError):
            read_everything(data[:length])


def test_a_changed_byte_gives_the_same_labels_or_an_error_of_ours() -> None:
    data, refused = make_archive(), 0
    expected = read_everything(data)
    for at in range(0, len(data), 5):
        changed = bytearray(data)
        changed[at] ^= 0xFF
        try:
            found = read_everything(bytes(changed))
        except DamagedFileError:
            refused += 1
            continue
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)
    assert refused > len(data) // 10


def test_a_member_that_lies_about_its_size_allocates_no_more_than_the_file() -> None:
    data = bytearray(make_archive())
    # In the directory at the end: compressed and plain size of the last member, 20 bytes into its entry.
    entry = data.rindex(b"PK\1\2")
    data[entry + 20 : entry + 28] = 2 * (2**31 - 1).to_bytes(4, "little")
    with pytest.raises(DamagedFileError):
        read_everything(bytes(data))


def test_a_damaged_chunk_leaves_the_others_readable_by_hand(finished: Any, tmp_path: Path) -> None:
    (path, _) = sorted(finished.path.glob("*.zip"))
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        data[archive.getinfo("maps/00001").header_offset + 60] ^= 1
    shutil.copy(path, tmp_path / "damaged.zip")
    (tmp_path / "damaged.zip").write_bytes(bytes(data))
    parts = PackedParts(finished.manifest)
    found = parts.read_rows(0, range(2), lambda name: tmp_path / "damaged.zip")
    np.testing.assert_array_equal(found["indices"], finished.maps.indices[:2])
    with pytest.raises(DamagedFileError, match="Bad CRC-32"):
        parts.read_rows(0, range(2, 4), lambda name: tmp_path / "damaged.zip")

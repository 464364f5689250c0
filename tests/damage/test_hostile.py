"""Stores from strangers: no file outside is touched, and small files take little memory and time."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import blosc
from relabel_store.cli.main import main

from relabel_store import spec
from relabel_store.canonical import canonical_json, with_digest
from relabel_store.errors import BadImageError, FormatError, RelabelStoreError
from relabel_store.generate.decode import Interpolation, decode_image
from relabel_store.manifest import Manifest
from relabel_store.store.commit import settle
from relabel_store.store.complete import Completion
from relabel_store.store.files import FileEntry
from relabel_store.store.journal import PartRecord
from relabel_store.store.local_files import LocalFiles
from relabel_store.store.reader import open_store
from relabel_store.store.samples import SCHEMA, from_parquet
from relabel_store.store.writer import StoreWriter
from relabel_store.store.zarr_v1 import declared_size
from relabel_store.testing import make_manifest, make_store
from relabel_store.testing.damage import forge_file, forge_json, manifest_place
from relabel_store.testing.limits import within_limits
from relabel_store.testing.probe import ask_every_reader
from relabel_store.validate.run import validate_store

# Names that lead out


HOSTILE_NAMES = ["../outside", "/etc/outside", "a/../../outside", "a//b", "./a", "", "a\0b", "..\\outside"]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize(
    "touch",
    [
        pytest.param(lambda files, name: files.write(name, b"x"), id="write"),
        pytest.param(lambda files, name: files.create(name, b"x"), id="create"),
        pytest.param(lambda files, name: files.remove([name]), id="remove"),
        pytest.param(lambda files, name: files.remove_folder(name), id="remove_folder"),
    ],
)
def test_nothing_is_written_or_removed_outside_a_store(
    tmp_path: Path, name: str, touch: Callable[[LocalFiles, str], object]
) -> None:
    (tmp_path / "store" / "a").mkdir(parents=True)
    (tmp_path / "outside").write_bytes(b"mine")
    with pytest.raises(FormatError, match="no name of a file below the store"):
        touch(LocalFiles(tmp_path / "store"), name)
    assert (tmp_path / "outside").read_bytes() == b"mine"


def test_a_folder_that_is_a_link_out_of_the_store_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_bytes(b"mine")
    (tmp_path / "store" / "journal").symlink_to(tmp_path / "mine")
    files = LocalFiles(tmp_path / "store")
    for touch in (
        lambda: files.write("journal/notes", b"x"),
        lambda: files.create("journal/new", b"x"),
        lambda: files.remove(["journal/notes"]),
    ):
        with pytest.raises(FormatError, match="a link leads out of the store"):
            touch()
    files.remove_folder("journal")
    files.sweep()
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == {"notes": b"mine"}


def test_a_file_that_is_a_link_out_of_the_store_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "store" / "file").symlink_to(tmp_path / "mine")
    LocalFiles(tmp_path / "store").write("file", b"x")
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_store_below_a_link_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    make_store(tmp_path / "link" / "store", np.random.default_rng(0))
    assert open_store(tmp_path / "disk" / "store").is_complete


def test_bytes_laid_aside_are_not_put_in_place_outside_the_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    make_store(store, np.random.default_rng(0), parts=[0])
    entry = FileEntry.of_bytes(b"evil")
    record = json.loads((store / "journal/part-00000.json").read_bytes())
    record["files"]["../mine"] = entry.to_json()
    (store / "journal/part-00000.json").write_bytes(canonical_json(with_digest(record)))
    aside = store / f"{spec.RUNNING_DIR}/aside/part-00000.x/{entry.sha256}"
    aside.parent.mkdir(parents=True)
    aside.write_bytes(b"evil")
    writer = StoreWriter.resume(store)
    assert writer.missing_parts() == [0, 1]  # a record that names such a file is none
    settle(writer.files, writer.records())
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_completion_that_lists_such_a_name_is_refused(finished: Any, tmp_path: Path, name: str) -> None:
    path = finished.copy(tmp_path / "store")
    forge_json(
        "complete.json", lambda found: found["files"].update({name: FileEntry.of_bytes(b"").to_json()}), path
    )
    with pytest.raises(FormatError, match=r"complete\.json"):
        open_store(path)


# What is no file


def in_place_of(path: Path, what: str) -> None:
    """Put something in the place of a file that is none, or is much larger than what it takes on disk."""
    if what != "a sparse file":
        path.unlink()
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a device":
        path.symlink_to("/dev/zero")
    else:
        os.truncate(path, 2**40)


@pytest.mark.parametrize("what", ["a pipe", "a device", "a sparse file"])
def test_what_stands_in_place_of_a_file_is_not_waited_for(victim: Any, tmp_path: Path, what: str) -> None:
    names = [path.relative_to(victim.path) for path in sorted(victim.path.rglob("*")) if path.is_file()]

    def ask() -> list[tuple[str, object]]:
        wrong: list[tuple[str, object]] = []
        for name in names:
            path = victim.copy(tmp_path / "store")
            in_place_of(path / name, what)
            answers = ask_every_reader(path, tmp_path / "cache", victim.truth)
            wrong += [(str(name), problem) for problem in (*answers.wrong, *answers.leaked)]
            wrong += [] if validate_store(path).has_errors() else [(str(name), "not found")]
        return wrong

    assert within_limits(ask) == "returned []"


# Shapes that are only claimed


def claim(**fields: Any) -> Callable[[dict[str, Any]], None]:
    def edit(manifest: dict[str, Any]) -> None:
        for path, value in fields.items():
            *above, last = path.split("__")
            place = manifest
            for key in above:
                place = place[key]
            place[last] = value
        if "num_samples" in fields:
            manifest["images"]["count"] = fields["num_samples"]
        if "label_map__num_classes" in fields:
            manifest["classes"].update(digest=None, names=None)
        if manifest["statistics"] is not None:
            n_rows, n_cols = manifest["label_map"]["grid"]
            cells = manifest["statistics"]["labelled"] * n_rows * n_cols
            rest = [0] * (manifest["label_map"]["num_classes"] - 1)
            manifest["statistics"]["winning_cells"] = [cells, *rest]

    return edit


CLAIMS = {
    "a million million rows": claim(num_samples=10**12),
    "a million million parts": claim(num_samples=10**12, layout__shard_rows=1, layout__chunk_rows=1),
    "a large grid": claim(label_map__grid=[65535, 65535]),
    "many classes a cell": claim(label_map__k=60, label_map__num_classes=60, label_map__grid=[9000, 9000]),
    "large chunks": claim(layout__chunk_rows=65536, layout__shard_rows=65536),
    "large shards": claim(layout__shard_rows=16777216),
}
QUESTIONS: dict[str, Callable[[Path], object]] = {
    "a row": lambda path: open_store(path)[0],
    "rows": lambda path: open_store(path).read_rows([0, 1]),
    "whether a row has a label": lambda path: open_store(path).has_label(5),
    "the first": lambda path: next(iter(open_store(path)), None),
    "samples": lambda path: open_store(path).samples,
    "load": lambda path: open_store(path).load(),
    "materialize": lambda path: open_store(path).materialize(path.parent / "cache"),
    "resume": lambda path: StoreWriter.resume(path).damaged_parts(),
}


@pytest.mark.parametrize("what", CLAIMS)
def test_a_shape_that_is_only_claimed_takes_no_memory(victim: Any, tmp_path: Path, what: str) -> None:
    path = victim.copy(tmp_path / "store")
    name, find = manifest_place(path)
    forge_json(name, lambda document: CLAIMS[what](find(document)), path)

    def ask() -> list[str]:
        leaked = []
        for question, answer in QUESTIONS.items():
            try:
                answer(path)
            except RelabelStoreError:
                continue
            except Exception as error:
                leaked.append(f"{question}: {error!r}")
        return leaked

    assert within_limits(ask) == "returned []"


def test_a_table_of_a_thousand_million_rows_in_a_kilobyte_is_refused() -> None:
    n = 1_000_000
    sink = io.BytesIO()
    table = pa.table(
        {name: pa.repeat(pa.scalar("a", pa.string()), n) for name in ("sample_id", "path")}
        | {"row": pa.repeat(pa.scalar(0), n)}
    )
    pq.write_table(table, sink, compression="zstd", row_group_size=n)
    assert len(sink.getvalue()) < 20_000
    answer = within_limits(lambda: from_parquet(sink.getvalue(), SCHEMA))
    assert answer.startswith("FormatError: sample table: 1000000 rows in")


# Compression bombs


@pytest.mark.parametrize("value_step", [0.125, "exact"], ids=["zstd", "blosc"])
@pytest.mark.parametrize("read", ["a row", "load"])
def test_a_chunk_that_unfolds_into_more_is_refused(tmp_path: Path, value_step: Any, read: str) -> None:
    manifest = make_manifest(value_step=value_step, shard_rows=4, chunk_rows=4)
    path = tmp_path / "store"
    make_store(path, np.random.default_rng(0), manifest)
    name = "values/c/0/0/0/0"
    zeros = bytes(2**30)
    if value_step == "exact":
        bomb = bytes(blosc.compress(zeros, b"zstd", 9))
    else:
        bomb = pa.Codec("zstd").compress(zeros, asbytes=True)
    assert len(bomb) < 2**18

    def with_checksum(data: bytes) -> bytes:
        return data + struct.pack("<I", google_crc32c.value(data))

    chunk = with_checksum(bomb)
    forge_file(name, chunk + with_checksum(struct.pack("<QQ", 0, len(chunk))), path)
    answer = within_limits(lambda: QUESTIONS[read](path))
    assert answer.startswith(
        f"DamagedFileError: store file '{name}': cannot be decoded (a chunk says that it"
    )


def frame_of(declared: int, *, blocks: int) -> bytes:
    """Return a zstd frame of so many blocks of 128 KiB zeros each (RFC 8878, 3.1.1), whatever it declares."""
    run = 1 << 1 | 2**17 << 3  # one byte that repeats
    body = (run.to_bytes(3, "little") + b"\0") * (blocks - 1) + (run | 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd" + b"\xe0" + struct.pack("<Q", declared) + body


ROWS = 4
FRAMES = {
    "a gigabyte that is declared": frame_of(2**30, blocks=2**13),
    "a gigabyte that is not": frame_of(ROWS, blocks=2**13),
    "exabytes that are declared": frame_of(2**62, blocks=1),
    "a gigabyte after a sound frame": pa.Codec("zstd").compress(bytes(ROWS), asbytes=True)
    + frame_of(2**30, blocks=2**13),
}


@pytest.mark.parametrize("read", ["a row", "load"])
@pytest.mark.parametrize("what", FRAMES)
def test_a_frame_in_a_packed_part_unfolds_into_no_more_than_its_numbers(
    tmp_path: Path, what: str, read: str
) -> None:
    path = tmp_path / "store"
    make_store(path, np.random.default_rng(0), make_manifest(encoding="packed", chunk_rows=ROWS))
    name = "made-up-00000-of-00002.zip"
    changed = io.BytesIO()
    with zipfile.ZipFile(path / name) as archive, zipfile.ZipFile(changed, "w") as forged:
        for member in archive.infolist():
            frame = FRAMES[what]
            bomb = struct.pack("<BI", 1, len(frame)) + frame
            is_chunk = member.filename == "maps/00000"
            forged.writestr(member, bomb if is_chunk else archive.read(member))
    forge_file(name, changed.getvalue(), path)
    answer = within_limits(lambda: QUESTIONS[read](path))
    assert answer.startswith(f"DamagedFileError: store file {name!r}: cannot be decoded")


@pytest.mark.parametrize("read", ["a row", "load"])
@pytest.mark.parametrize("what", FRAMES)
def test_a_frame_in_a_shard_unfolds_into_no_more_than_its_chunk(tmp_path: Path, what: str, read: str) -> None:
    # Two float16 are a chunk: four bytes, which the frames that lie declare.
    manifest = make_manifest(grid=(1, 1), k=1, shard_rows=ROWS // 2, chunk_rows=ROWS // 2)
    path = tmp_path / "store"
    make_store(path, np.random.default_rng(0), manifest)
    name = "values/c/0/0/0/0"

    def with_checksum(data: bytes) -> bytes:
        return data + struct.pack("<I", google_crc32c.value(data))

    chunk = with_checksum(FRAMES[what])
    forge_file(name, chunk + with_checksum(struct.pack("<QQ", 0, len(chunk))), path)
    answer = within_limits(lambda: QUESTIONS[read](path))
    assert answer.startswith(f"DamagedFileError: store file {name!r}: ")
    assert "decoded ()" not in answer  # for want of memory


@given(data=st.binary(max_size=5000), level=st.integers(1, 19))
def test_what_a_zstd_frame_declares_is_read_as_zstd_reads_it(data: bytes, level: int) -> None:
    frame = pa.Codec("zstd", compression_level=level).compress(data, asbytes=True)
    assert declared_size("zstd", frame) == len(data)


@given(st.binary(max_size=40))
def test_bytes_that_are_no_frame_declare_nothing_or_a_number(data: bytes) -> None:
    for compressor in ("zstd", "blosc"):
        assert (declared_size(compressor, data) or 0) >= 0


CODECS = {
    "gzip": lambda codecs: codecs[0]["configuration"]["codecs"].append(
        {"name": "gzip", "configuration": {"level": 1}}
    ),
    "a package's own": lambda codecs: codecs[0]["configuration"]["codecs"].append({"name": "numcodecs.lzma"}),
    "no shards": lambda codecs: codecs.__setitem__(slice(None), [{"name": "bytes"}]),
    "a compressed index": lambda codecs: codecs[0]["configuration"].update(index_codecs=[{"name": "zstd"}]),
    "none": lambda codecs: codecs.clear(),
}


@pytest.mark.parametrize("what", CODECS)
def test_codecs_that_the_format_does_not_know_are_not_loaded(tmp_path: Path, what: str) -> None:
    make_store(tmp_path / "store", np.random.default_rng(0))
    forge_json("values/zarr.json", lambda document: CODECS[what](document["codecs"]), tmp_path / "store")
    for question in ("a row", "load"):
        with pytest.raises(FormatError, match=r"'values/zarr\.json': encoded in another way"):
            QUESTIONS[question](tmp_path / "store")


# Documents and images


def test_a_million_mistakes_in_a_manifest_take_no_memory() -> None:
    document = make_manifest().to_dict()
    document["classes"]["ids"] = [1] * 300_000
    answer = within_limits(lambda: Manifest.from_dict(document))
    assert answer.startswith("ManifestError: manifest: $.classes")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"a":' * 200_000, id="nested objects"),
        pytest.param(b"[" * 200_000, id="nested lists"),
        pytest.param(b'{"digest":' + b"9" * 200_000 + b"}", id="a number of many digits"),
        pytest.param(b'{"format_version":"1.0","parts":[' + b"[]," * 300_000 + b"[]]}", id="many parts"),
        pytest.param(b"\xff" * 1000, id="no UTF-8"),
        pytest.param(b'"\\ud800"', id="half a character"),
    ],
)
def test_a_document_from_strangers_is_refused_in_little_memory(data: bytes) -> None:
    assert within_limits(lambda: Completion.from_bytes(data)).startswith(
        "DamagedFileError: store file 'complete.json'"
    )


def png_of(width: int, height: int) -> bytes:
    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = block(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + block(b"IDAT", zlib.compress(bytes(100))) + block(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (2**31 - 1, 1), (2**31 - 1, 2**31 - 1)])
def test_a_header_of_thousands_of_millions_of_pixels_is_a_bad_image(width: int, height: int) -> None:
    answer = within_limits(
        lambda: decode_image(png_of(width, height), size=(32, 32), interpolation=Interpolation.BILINEAR)
    )
    assert answer.startswith("BadImageError: ")


def test_control_characters_of_a_store_do_not_reach_the_terminal(finished: Any, tmp_path: Path) -> None:
    path = finished.copy(tmp_path / "store")
    name, find = manifest_place(path)
    forge_json(name, lambda document: find(document).update(name="\x1b[2Jvalid\x9b"), path)
    for command in ("inspect", "status", "validate", "repair"):
        output = CliRunner().invoke(main, [command, str(path)]).output
        assert output
        assert not {"\x1b", "\x9b"} & set(output)


# Whatever else: the parsers of small files, given anything

JSON_LIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    document=JSON_LIKE
    | st.dictionaries(st.sampled_from(["format_version", "files", "parts", "manifest"]), JSON_LIKE)
)
def test_any_document_is_a_completion_or_an_error_of_ours(document: Any) -> None:
    try:
        data = canonical_json(with_digest(document) if isinstance(document, dict) else document)
    except UnicodeEncodeError:
        return
    with contextlib.suppress(FormatError):
        Completion.from_bytes(data)


RECORD_KEYS = ["part", "rows", "files", "facts", "bad_images", "exif_oriented"]


@given(key=st.sampled_from(RECORD_KEYS), value=JSON_LIKE)
def test_any_record_is_a_record_or_an_error_of_ours(key: str, value: Any) -> None:
    entry = FileEntry.of_bytes(b"").to_json()
    sound = {
        "part": 0,
        "rows": [0, 4],
        "files": {"a": entry},
        "facts": entry,
        "bad_images": [],
        "exif_oriented": 0,
    }
    try:
        document = with_digest({**sound, key: value})
    except UnicodeEncodeError:
        return
    with contextlib.suppress(FormatError):
        PartRecord.from_json(document)


def test_bytes_of_any_kind_are_no_image_or_one() -> None:
    rng = np.random.default_rng(0)
    sound = png_of(4, 4)
    for _ in range(300):
        data = bytearray(sound)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(0, 256)
        with contextlib.suppress(BadImageError):
            decode_image(bytes(data), size=(8, 8), interpolation=Interpolation.BILINEAR)

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from relabel_store.convert.targets.tfrecord import frame_record
from relabel_store.testing import MadeUpLabels, file_digests, made_up_labels, make_manifest

# A reader that knows the documents of the formats and nothing of ours: CRC-32C bit by bit, Protocol Buffers field by
# field.


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        assert struct.unpack_from("<I", data, at + 8) == (masked(data[at : at + 8]),)
        record = data[at + 12 : at + 12 + size]
        assert struct.unpack_from("<I", data, at + 12 + size) == (masked(record),)
        yield record
        at += 16 + size


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 0x80:
            return number, at


def read_fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        assert tag & 7 == 2
        size, at = read_varint(message, at)
        yield tag >> 3, message[at : at + size]
        at += size


def read_example(record: bytes) -> dict[str, Any]:
    ((number, features),) = read_fields(record)
    assert number == 1
    found: dict[str, Any] = {}
    for _, entry in read_fields(features):
        (_, key), (_, feature) = read_fields(entry)
        ((kind, values),) = read_fields(feature)
        ((_, value),) = read_fields(values)
        found[key.decode()] = {1: lambda data: data, 3: lambda data: read_varint(data, 0)[0]}[kind](value)
    return found


def require_same(examples: list[dict[str, Any]], labels: MadeUpLabels) -> None:
    maps, label_map = labels.maps, labels.manifest.label_map
    assert len(examples) == len(labels.labelled)
    classes = labels.samples["class_index"].to_pylist()
    for row, example in zip(labels.labelled, examples, strict=True):
        assert example.pop("sample_id").decode() == maps.sample_ids[row]
        assert example.pop("class_index", None) == classes[row]
        shape = tuple(example.pop(name) for name in ("k", "n_rows", "n_cols"))
        assert shape == (label_map.k, *label_map.grid)
        dtype = "<u2" if label_map.num_classes <= 65535 else "<u4"
        indices = np.frombuffer(example.pop("indices"), dtype).reshape(shape)
        np.testing.assert_array_equal(indices, maps.indices[row])
        values = np.frombuffer(example.pop("values"), "<f2").reshape(shape)
        np.testing.assert_array_equal(values, maps.values[row])
        if maps.rest is not None:
            rest = np.frombuffer(example.pop("rest"), "<f2").reshape(shape[1:])
            np.testing.assert_array_equal(rest, maps.rest[row])
        assert example == {}


def shards(path: Path) -> list[Path]:
    return sorted(path.glob("*.tfrecord"))


@settings(max_examples=12)
@given(labels=made_up_labels())
def test_every_number_is_read_back(labels: MadeUpLabels, written) -> None:
    with written(labels, "tfrecord") as path:
        records = [record for shard in shards(path) for record in read_records(shard.read_bytes())]
        require_same([read_example(record) for record in records], labels)


def test_shards_are_named_after_the_store_and_their_number(tmp_path, write) -> None:
    write(MadeUpLabels.of(make_manifest(5)), tmp_path / "out", "tfrecord")
    names = ["made-up-00000-of-00002.tfrecord", "made-up-00001-of-00002.tfrecord", "relabel-store.json"]
    assert list(file_digests(tmp_path / "out")) == names


def test_a_part_without_labels_is_an_empty_file(tmp_path, write) -> None:
    labels = MadeUpLabels.of(make_manifest(5), bad_images={4: "truncated"})
    write(labels, tmp_path / "out", "tfrecord")
    assert shards(tmp_path / "out")[1].read_bytes() == b""


def test_the_checksum_is_that_of_the_castagnoli_polynomial() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of its catalogue
    assert list(read_records(frame_record(b"123456789") + frame_record(b""))) == [b"123456789", b""]


def test_tensorflow_reads_what_is_written(tmp_path, write) -> None:
    tf = pytest.importorskip("tensorflow", reason="it has an environment of its own")
    labels = MadeUpLabels.of(make_manifest(6), bad_images={1: "truncated"})
    write(labels, tmp_path / "out", "tfrecord")
    found = []
    for record in tf.data.TFRecordDataset([str(shard) for shard in shards(tmp_path / "out")]):
        example = tf.train.Example.FromString(record.numpy()).features.feature
        kinds = {"bytes_list": "bytes_list", "int64_list": "int64_list"}
        found.append(
            {
                name: getattr(value, kinds[value.WhichOneof("kind")]).value[0]
                for name, value in example.items()
            }
        )
    require_same(found, labels)

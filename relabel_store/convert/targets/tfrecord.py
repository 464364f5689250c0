"""TFRecord files of `tf.train.Example`, one a part, written without TensorFlow."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa

from relabel_store.convert.source import LabelSource
from relabel_store.convert.targets.protobuf import encode_bytes, encode_example, encode_integer
from relabel_store.convert.targets.provenance import meaning_notes, write_manifest
from relabel_store.manifest import Manifest
from relabel_store.store.local_files import write_file
from relabel_store.store.part_labels import PartLabels
from relabel_store.store.self_contained import name_of_part

SUFFIXES = (".tfrecord", ".tfrecords")

_MASK_DELTA = 0xA282EAD8


def open_target(path: Path) -> RecordFiles:
    """Return what writes a folder of TFRecord files."""
    return RecordFiles(path)


@dataclass(frozen=True)
class RecordFiles:
    """``NAME-00042-of-00313.tfrecord``, an Example for each sample that has a label; see `target.LabelTarget`."""

    path: Path

    is_sequential = False

    def begin(self, source: LabelSource) -> Sequence[str]:
        """Make the folder."""
        self.path.mkdir(exist_ok=True)
        return meaning_notes(source.manifest)

    def write_part(self, manifest: Manifest, part: int, samples: pa.Table, labels: PartLabels) -> None:
        """Write a file; one without records if no sample of the part has a label."""
        n_rows, n_cols = manifest.label_map.grid
        sizes = {
            "k": encode_integer(manifest.label_map.k),
            "n_rows": encode_integer(n_rows),
            "n_cols": encode_integer(n_cols),
        }
        arrays = {
            name: np.ascontiguousarray(rows, rows.dtype.newbyteorder("<"))
            for name, rows in labels.arrays.items()
        }
        ids, classes = samples["sample_id"].to_pylist(), samples["class_index"].to_pylist()
        records = []
        for row in np.flatnonzero(labels.is_labelled):
            features = {"sample_id": encode_bytes(ids[row].encode())}
            if classes[row] is not None:
                features["class_index"] = encode_integer(classes[row])
            features.update((name, encode_bytes(rows[row].tobytes())) for name, rows in arrays.items())
            records.append(frame_record(encode_example(features | sizes)))
        name = name_of_part(manifest, part, ".tfrecord")
        write_file(self.path / name, b"".join(records))

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest beside the files."""
        write_manifest(self.path, manifest)


def frame_record(data: bytes) -> bytes:
    """Return a record as it stands in a file: length, its checksum, data, its checksum."""
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF)

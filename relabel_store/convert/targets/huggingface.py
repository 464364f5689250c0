"""A folder that `datasets.load_dataset` loads: a card that says what it holds, and Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from relabel_store import spec
from relabel_store.canonical import canonical_json, read_json
from relabel_store.convert.source import LabelSource
from relabel_store.convert.targets.card import LABEL, class_names, dataset_card
from relabel_store.convert.targets.pieces import piece_path
from relabel_store.convert.targets.provenance import manifest_text, meaning_notes, write_manifest
from relabel_store.manifest import Manifest
from relabel_store.store.local_files import write_file
from relabel_store.store.parquet_v1 import part_schema
from relabel_store.store.part_labels import PartLabels
from relabel_store.store.samples import SCHEMA

SUFFIXES: tuple[str, ...] = ()

_FOLDER = "data"
_CARD = "README.md"
_NUM_BYTES = "num_bytes"


def open_target(path: Path) -> DatasetFolder:
    """Return what writes a folder for `datasets`."""
    return DatasetFolder(path)


@dataclass(frozen=True)
class DatasetFolder:
    """``data/train-00042-of-00313.parquet``, a row for each sample that has a label; see `target.LabelTarget`.

    Maps are plain lists of a fixed length: `datasets` makes a batch of them in 5 us a sample, of nested lists and of
    its own ``Array3D`` in 900.
    """

    path: Path

    is_sequential = False

    def begin(self, source: LabelSource) -> Sequence[str]:
        """Make the folder."""
        (self.path / _FOLDER).mkdir(parents=True, exist_ok=True)
        return meaning_notes(source.manifest)

    def write_part(self, manifest: Manifest, part: int, samples: pa.Table, labels: PartLabels) -> None:
        """Write a file; one without rows if no sample of the part has a label."""
        table = _table(manifest, samples, labels)
        write_file(self._file(manifest, part), _encode(manifest, table))
        write_file(piece_path(self.path, part), canonical_json({_NUM_BYTES: table.nbytes}))

    def _file(self, manifest: Manifest, part: int) -> Path:
        return self.path / _FOLDER / f"train-{part:05d}-of-{manifest.num_parts:05d}.parquet"

    def finish(self, manifest: Manifest) -> None:
        """Write the card, and the manifest beside it."""
        assert manifest.statistics is not None
        parts = range(manifest.num_parts)
        pieces = (read_json(piece_path(self.path, part).read_bytes()) for part in parts)
        card = dataset_card(
            manifest,
            _schema(manifest),
            examples=manifest.statistics.labelled,
            num_bytes=sum(piece[_NUM_BYTES] for piece in pieces),
            download_bytes=sum(self._file(manifest, part).stat().st_size for part in parts),
        )
        write_file(self.path / _CARD, card.encode())
        write_manifest(self.path, manifest)


def _schema(manifest: Manifest) -> pa.Schema:
    """Return the columns: those of the encoding "parquet", and the folder's class where classes have names."""
    schema = part_schema(manifest)
    if class_names(manifest) is None:
        return schema
    return schema.insert(SCHEMA.get_field_index("class_name") + 1, pa.field(LABEL, pa.int64()))


def _table(manifest: Manifest, samples: pa.Table, labels: PartLabels) -> pa.Table:
    is_labelled, schema = labels.is_labelled, _schema(manifest)
    chosen = samples.filter(pa.array(is_labelled))
    columns: list[pa.Array | pa.ChunkedArray] = []
    for field in schema:
        if field.name in labels.arrays:
            numbers = labels.arrays[field.name][is_labelled].reshape(-1)
            stored = np.ascontiguousarray(numbers, field.type.value_type.to_pandas_dtype())
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(stored), type=field.type))
        elif field.name == LABEL:
            columns.append(chosen["class_index"].cast(field.type))
        else:
            columns.append(chosen[field.name])
    return pa.table(columns, schema=schema)


def _encode(manifest: Manifest, table: pa.Table) -> bytes:
    """Return a Parquet file, in what every reader of such files knows; see the encoding "parquet"."""
    scores = [
        f"{field.name}.list.element"
        for field in table.schema
        if pa.types.is_fixed_size_list(field.type) and pa.types.is_floating(field.type.value_type)
    ]
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        use_dictionary=["class_name", "status"],
        use_byte_stream_split=scores,
        write_page_checksum=True,
    ) as writer:
        if len(table):  # a row group without rows is one that `datasets` fails at
            writer.write_table(table, row_group_size=manifest.layout.chunk_rows)
        writer.add_key_value_metadata({spec.MANIFEST_ATTRIBUTE: manifest_text(manifest)})
    return bytes(sink.getvalue())

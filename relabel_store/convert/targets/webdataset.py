"""WebDataset shards of labels, a tar a part, whose samples have the keys of the image shards'."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relabel_store.convert.source import LabelSource
from relabel_store.convert.targets.names import require_file_names
from relabel_store.convert.targets.provenance import meaning_notes, write_manifest
from relabel_store.errors import OptionError
from relabel_store.manifest import Manifest
from relabel_store.store.local_files import write_file
from relabel_store.store.part_labels import PartLabels
from relabel_store.store.self_contained import file_stem

FORM = "webdataset"
SUFFIXES = (".webdataset", ".wds")

_FACTS = ("sample_id", "row", "class_index", "class_name", "width", "height", "sha256")


def open_target(path: Path) -> TarShards:
    """Return what writes a folder of tars."""
    return TarShards(path)


@dataclass(frozen=True)
class TarShards:
    """``NAME-000042.tar``, some members for each sample that has a label; see `target.LabelTarget`."""

    path: Path

    is_sequential = False

    def begin(self, source: LabelSource) -> Sequence[str]:
        """Check that each sample has a key of its own."""
        sample_ids = source.samples["sample_id"].to_pylist()
        require_file_names(sample_ids, ".indices.npy", FORM)
        notes = [*meaning_notes(source.manifest), *_require_keys(sample_ids)]
        self.path.mkdir(exist_ok=True)
        return notes

    def write_part(self, manifest: Manifest, part: int, samples: pa.Table, labels: PartLabels) -> None:
        """Write a tar; one without members if no sample of the part has a label."""
        facts = samples.select(_FACTS).to_pylist()
        encoders = {name: _NpyFile(rows) for name, rows in labels.arrays.items()}
        pieces: list[bytes] = []
        for row in np.flatnonzero(labels.is_labelled).tolist():
            key = key_of(facts[row]["sample_id"])
            assert key is not None
            for name, encoder in encoders.items():
                pieces += _member(f"{key}.{name}.npy", encoder.encode(row))
            pieces += _member(
                f"{key}.label.json", json.dumps(facts[row], ensure_ascii=False, sort_keys=True).encode()
            )
        name = f"{file_stem(manifest)}-{part:06d}.tar"
        write_file(self.path / name, b"".join([*pieces, bytes(2 * tarfile.BLOCKSIZE)]))

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest beside the tars."""
        write_manifest(self.path, manifest)


def key_of(sample_id: str) -> str | None:
    """Return what WebDataset calls a sample whose image is named after its id: up to the first dot of the file's name.

    None where nothing comes before that dot: it would take the folder for the key, or find no sample at all.
    """
    folder, slash, name = sample_id.rpartition("/")
    stem = name.partition(".")[0]
    return folder + slash + stem if stem else None


def _require_keys(sample_ids: Sequence[str]) -> Iterator[str]:
    """Yield what readers should know of the keys.

    Raises
    ------
    OptionError
        Two samples have one key, or one has none.
    """
    seen: dict[str, str] = {}
    cut = [sample_id for sample_id in sample_ids if key_of(sample_id) != sample_id]
    for sample_id in sample_ids:
        key = key_of(sample_id)
        if key is None:
            raise OptionError(
                f"form {FORM!r}: the file of sample {sample_id!r} begins with a dot, so WebDataset finds no key "
                "in it; tfrecord, hdf5, npz, huggingface and the encodings of a store take any id"
            )
        if key in seen:
            raise OptionError(
                f"form {FORM!r}: samples {seen[key]!r} and {sample_id!r} are one to WebDataset, which cuts names at "
                "the first dot; tfrecord, hdf5, npz, huggingface and the encodings of a store tell them apart"
            )
        seen[key] = sample_id
    if cut:
        yield (
            f"WebDataset cuts names at the first dot: {len(cut)} samples have a key other than their id, such as "
            f"{key_of(cut[0])!r} of {cut[0]!r}; label.json has the id"
        )


class _NpyFile:
    """Rows of an array as the bytes of .npy files."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self._rows = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<"))
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, np.lib.format.header_data_from_array_1_0(self._rows[:1][0])
        )
        self._header = header.getvalue()

    def encode(self, row: int) -> bytes:
        data: bytes = self._rows[row].tobytes()
        return self._header + data


def _member(name: str, data: bytes) -> Iterator[bytes]:
    entry = tarfile.TarInfo(name)  # owner, group and time are 0, the mode 0644
    entry.size = len(data)
    yield entry.tobuf(tarfile.PAX_FORMAT, "utf-8")
    yield data
    yield bytes(-len(data) % tarfile.BLOCKSIZE)

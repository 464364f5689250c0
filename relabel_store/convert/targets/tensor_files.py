"""A PyTorch file a sample, ``class/stem.pt``: what the published ReLabel and TokenLabeling code reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from relabel_store.convert.source import LabelSource
from relabel_store.convert.targets.names import case_notes, require_file_names
from relabel_store.convert.targets.provenance import meaning_notes, write_manifest
from relabel_store.convert.targets.torch_file import TensorFile
from relabel_store.errors import OptionError
from relabel_store.manifest import AbsentRule, Manifest
from relabel_store.store.local_files import sync_file
from relabel_store.store.part_labels import PartLabels

SUFFIX = ".pt"


@dataclass(frozen=True)
class TensorFiles:
    """Tensors ``[2, k, n_rows, n_cols]``, values then indices; see `target.LabelTarget`.

    Attributes
    ----------
    dtype
        Of both planes.
    max_classes
        So many classes' indices are exact in it.
    """

    path: Path
    form: str
    dtype: np.dtype[np.float16] | np.dtype[np.float32]
    max_classes: int

    is_sequential = False

    def begin(self, source: LabelSource) -> Sequence[str]:
        """Check that the files can hold the labels."""
        manifest = source.manifest
        self._require_fitting(manifest)
        sample_ids = source.samples["sample_id"].to_pylist()
        require_file_names(sample_ids, SUFFIX, self.form)
        notes = [*meaning_notes(manifest), *_loader_notes(sample_ids), *case_notes(sample_ids)]
        self.path.mkdir(exist_ok=True)
        return notes

    def _require_fitting(self, manifest: Manifest) -> None:
        if manifest.label_map.absent is AbsentRule.REST:
            raise OptionError(
                f"form {self.form!r}: these labels have a rest for the classes not kept, and its files hold only "
                "values and indices: readers would take absent classes for logit 0; webdataset, tfrecord, hdf5, npz, "
                "huggingface and the encodings of a store have room for it"
            )
        if manifest.label_map.num_classes > self.max_classes:
            raise OptionError(
                f"form {self.form!r}: {manifest.label_map.num_classes} classes, and its files hold indices as "
                f"{self.dtype}, which is exact for {self.max_classes} only; every other form takes more"
            )

    def write_part(self, manifest: Manifest, part: int, samples: pa.Table, labels: PartLabels) -> None:
        """Write a file for each sample that has a label."""
        del part
        label_map = manifest.label_map
        file = TensorFile((2, label_map.k, *label_map.grid), self.dtype)
        rows = np.flatnonzero(labels.is_labelled)
        planes = np.empty((len(rows), 2, label_map.k, *label_map.grid), self.dtype)
        planes[:, 0], planes[:, 1] = labels.values[rows], labels.indices[rows]
        made: set[Path] = set()
        for sample_id, tensor in zip(samples["sample_id"].take(rows).to_pylist(), planes, strict=True):
            path = self.path / (sample_id + SUFFIX)
            if path.parent not in made:
                path.parent.mkdir(parents=True, exist_ok=True)
                made.add(path.parent)
            path.write_bytes(file.encode(tensor))
        _sync(self.path)

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest beside the classes."""
        write_manifest(self.path, manifest)


def _sync(path: Path) -> None:
    # Of thousands of small files: to sync each takes 4 ms, to sync the whole system once 60 ms.
    if hasattr(os, "sync"):
        os.sync()
    else:
        sync_file(path)


def _loader_notes(sample_ids: Sequence[str]) -> list[str]:
    """Say whose files the published loaders do not look for; refuse names for which they find another sample's.

    They join the last two parts of an image's path, cut that at its first dot, and append ``.pt``.
    """
    sought = {sample_id: looked_for(sample_id) for sample_id in sample_ids}
    elsewhere = {sample_id: name for sample_id, name in sought.items() if name != sample_id}
    for sample_id, name in elsewhere.items():
        if name in sought:
            raise OptionError(
                f"sample id {sample_id!r}: published readers of these files cut names at the first dot and take two "
                f"parts, so they would read the labels of {name!r} for it; rename one, or choose another form"
            )
    if not elsewhere:
        return []
    first, name = next(iter(elsewhere.items()))
    return [
        f"published readers take the last two parts of a path up to the first dot: {len(elsewhere)} files they look "
        f"for under another name, such as {name + SUFFIX!r} instead of {first + SUFFIX!r}"
    ]


def looked_for(sample_id: str) -> str:
    """Return the file, without suffix, that the published loaders read for the image of a sample."""
    return "/".join(f"{sample_id}.".split("/")[-2:]).split(".")[0]

"""A store to convert, and a layout of others that is a file a part."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from relabel_store.convert.observer import ConversionObserver
from relabel_store.convert.source import LabelSource
from relabel_store.manifest import Manifest
from relabel_store.store.encoded import EncodedStore
from relabel_store.store.part_labels import PartLabels
from relabel_store.store.reader import open_store
from relabel_store.testing import make_manifest, make_store


class Heard(ConversionObserver):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.started: tuple[int, int] | None = None
        self.written: list[int] = []

    def on_start(self, samples: int, finished_samples: int) -> None:
        self.started = samples, finished_samples

    def on_part(self, samples: int) -> None:
        self.written.append(samples)


class PartFiles:
    """Writes a JSON file a part, with the classes of each sample that has a label."""

    def __init__(self, path: Path, *, is_sequential: bool = False) -> None:
        self.path, self.is_sequential = path, is_sequential

    def begin(self, source: LabelSource) -> list[str]:
        self.path.mkdir(exist_ok=not self.is_sequential)
        (self.path / "first").write_text(source.manifest.name)
        return ["without values"]

    def write_part(self, manifest: Manifest, part: int, samples: pa.Table, labels: PartLabels) -> None:
        ids = samples["sample_id"].to_pylist()
        found = {ids[at]: labels.indices[at].tolist() for at in np.flatnonzero(labels.is_labelled)}
        (self.path / f"{part}.json").write_text(json.dumps(found))

    def finish(self, manifest: Manifest) -> None:
        assert manifest.statistics is not None
        (self.path / "last").write_text(str(manifest.statistics.labelled))


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def store(tmp_path: Path, rng: np.random.Generator) -> EncodedStore:
    """Ten samples in three parts, one without a label."""
    make_store(tmp_path / "a.zarr", rng, make_manifest(10), bad_images={5: "truncated"})
    return open_store(tmp_path / "a.zarr")


@pytest.fixture
def part_files() -> type[PartFiles]:
    return PartFiles


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the index of a tar is kept."""
    monkeypatch.setenv("RELABEL_STORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def write_tree():
    """Write maps as a tree of tensors: float32 as ReLabel, or float16, permuted, as TokenLabeling's generator does."""
    import torch

    def write(root: Path, indices, scores, *, dtype=np.float32, is_zip: bool = True) -> list[str]:
        ids = [f"n{row % 3:02d}/n{row % 3:02d}_{row:03d}" for row in range(len(indices))]
        for sample_id, *planes in zip(ids, scores, indices, strict=True):
            path = root / f"{sample_id}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            tensor = torch.from_numpy(np.stack(planes).astype(dtype))
            if dtype == np.float16:
                tensor = tensor.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
            torch.save(tensor, path, _use_new_zipfile_serialization=is_zip)
        return ids

    return write

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
from relabel_store.store.reader import open_store
from relabel_store.store.writer import PartLabels
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

"""Small made-up stores, for our tests and other people's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from relabel_store import spec
from relabel_store.labels.maps import LabelMaps
from relabel_store.labels.topk import sort_ranks, top_k
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import (
    AbsentRule,
    BuildInfo,
    Classes,
    Dense,
    Encoding,
    Geometry,
    ImagesInfo,
    LabelSpec,
    Layout,
    Manifest,
    TeacherInfo,
    Weights,
)
from relabel_store.sample_ids import digest_of_ids
from relabel_store.store import samples as sample_tables
from relabel_store.store.journal import BadImage
from relabel_store.store.location import Location
from relabel_store.store.part_labels import PartLabels
from relabel_store.store.samples import Status
from relabel_store.store.writer import StoreWriter

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

_MOST_IDS = 100_000  # listed for a digest; benchmarks with more rows have ids of their own


def make_sample_ids(n: int) -> list[str]:
    """Return n sample ids in two class folders, in row order."""
    return sorted(f"{'cat' if row % 2 else 'dog'}/photo {row:04d}" for row in range(n))


def make_manifest(
    n: int = 8,
    *,
    grid: tuple[int, int] = (3, 3),
    k: int = 2,
    num_classes: int = 5,
    value_step: float | str = spec.DEFAULT_VALUE_STEP,
    absent: AbsentRule = AbsentRule.ZERO,
    shard_rows: int = 4,
    chunk_rows: int = 2,
    encoding: str = spec.ENCODING_ZARR,
    are_classes_known: bool = True,
) -> Manifest:
    """Return the manifest of a store that is being built."""
    names = ["cat", "dog", *(f"thing {index}" for index in range(2, num_classes))][:num_classes]
    classes = Classes.of(None, names, "test") if are_classes_known else Classes.of(None, None, None)
    return Manifest(
        name="made-up",
        num_samples=n,
        label_map=LabelSpec(grid=grid, k=k, num_classes=num_classes, value_step=value_step, absent=absent),
        classes=classes,
        geometry=Geometry(
            input_size=(grid[0] * 32, grid[1] * 32), interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
        ),
        teacher=TeacherInfo(
            name="made-up",
            architecture=None,
            tag=None,
            weights=Weights("made-up", None),
            dense=Dense("unknown", None),
            precision="fp32",
            device="cpu",
            versions={},
        ),
        images=ImagesInfo("made-up", "class-folders", n, _images_digest(n), "sample-id"),
        layout=Layout(shard_rows, chunk_rows),
        build=BuildInfo(batch_size=2, threads=1),
        encoding=Encoding.of(encoding),
    )


def _images_digest(n: int) -> str:
    """Return the digest of the ids of `make_sample_ids`; of more than anybody makes up, one that only looks like it."""
    return digest_of_ids(make_sample_ids(n)) if n <= _MOST_IDS else digest_of_ids([str(n)])


def make_label_maps(rng: np.random.Generator, manifest: Manifest) -> LabelMaps:
    """Return made-up label maps for every row of a store, encoded as its manifest says."""
    label_map = manifest.label_map
    n, k, num_classes = manifest.num_samples, label_map.k, label_map.num_classes
    scores = rng.normal(4.0, 3.0, (n, num_classes, *label_map.grid)).astype(np.float32)
    found, kept = top_k(scores, k)
    indices, values = sort_ranks(
        found.astype(spec.indices_dtype(num_classes)), ValueStep.parse(label_map.value_step).encode(kept)
    )
    rest = None
    if label_map.absent is AbsentRule.REST:
        left = np.exp(scores.astype(np.float64))
        np.put_along_axis(left, found, 0.0, axis=1)
        with np.errstate(divide="ignore"):  # where k is the class count nothing is left
            rest = np.log(left.sum(axis=1)).astype(np.float16)
    return LabelMaps(make_sample_ids(n), indices, values.astype(np.float16), rest)


def make_samples(manifest: Manifest, sample_ids: Sequence[str] | None = None) -> pa.Table:
    """Return the sample table of a store that is being begun."""
    ids = make_sample_ids(manifest.num_samples) if sample_ids is None else list(sample_ids)
    folders = [sample_id.split("/")[0] for sample_id in ids]
    return sample_tables.planned_samples(
        ids, [f"{sample_id}.jpg" for sample_id in ids], folders, manifest.classes.index_of_folder()
    )


def make_part(
    manifest: Manifest, maps: LabelMaps, part: int, bad_images: Mapping[int, str] | None = None
) -> PartLabels:
    """Return the labels of one part, with some rows recorded as bad images."""
    bad = bad_images or {}
    rows = manifest.rows_of_part(part)
    at = slice(rows.start, rows.stop)
    facts = pa.table(
        {
            "width": [None if row in bad else 500 for row in rows],
            "height": [None if row in bad else 375 for row in rows],
            "sha256": [f"{row:064x}" for row in rows],
            "status": [Status.BAD_IMAGE.value if row in bad else Status.LABELLED.value for row in rows],
            "size_bytes": [1000 + row for row in rows],
        },
        schema=sample_tables.FACTS_SCHEMA,
    )
    return PartLabels(
        indices=maps.indices[at],
        values=maps.values[at],
        rest=None if maps.rest is None else maps.rest[at],
        facts=facts,
        mtimes_ns=np.zeros(len(rows), np.int64),
        bad_images=tuple(BadImage(row, reason) for row, reason in bad.items() if row in rows),
    )


def make_store(
    path: Location,
    rng: np.random.Generator,
    manifest: Manifest | None = None,
    *,
    bad_images: Mapping[int, str] | None = None,
    parts: Sequence[int] | None = None,
) -> LabelMaps:
    """Write a made-up store and return what is in it.

    Parameters
    ----------
    parts
        Write only these parts and leave the store unfinished.
    """
    manifest = make_manifest() if manifest is None else manifest
    maps = make_label_maps(rng, manifest)
    writer = StoreWriter.begin(path, manifest, make_samples(manifest))
    for part in range(manifest.num_parts) if parts is None else parts:
        writer.write_part(part, make_part(manifest, maps, part, bad_images))
    if parts is None:
        writer.complete()
    return maps


@dataclass(frozen=True)
class MadeUpLabels:
    """Made-up labels as what is converted: see `convert.source.LabelSource`.

    Attributes
    ----------
    bad_images
        Rows without a label, with the reason.
    """

    manifest: Manifest
    maps: LabelMaps
    bad_images: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, manifest: Manifest, seed: int = 0, bad_images: Mapping[int, str] | None = None
    ) -> MadeUpLabels:
        """Return labels that follow from a seed."""
        return cls(manifest, make_label_maps(np.random.default_rng(seed), manifest), bad_images or {})

    @property
    def samples(self) -> pa.Table:
        """The sample table without facts."""
        return make_samples(self.manifest, self.maps.sample_ids)

    def is_described_by(self, document: Mapping[str, object]) -> bool:
        """Tell whether JSON is the manifest, but for what is known only once the labels are written."""
        made_later = {"state": None, "statistics": None}
        return {**document, **made_later} == {**self.manifest.to_dict(), **made_later}

    @property
    def labelled(self) -> list[int]:
        """The rows that have a label."""
        return [row for row in range(self.manifest.num_samples) if row not in self.bad_images]

    def read_part(self, part: int) -> PartLabels:
        """Return the labels of a part; rows without one hold what nothing may be read from."""
        labels = make_part(self.manifest, self.maps, part, self.bad_images)
        for rows in labels.arrays.values():
            rows[~labels.is_labelled] = 1
        return labels


def made_up_labels(
    *, absent: Sequence[AbsentRule] = tuple(AbsentRule), max_classes: int | None = None
) -> SearchStrategy[MadeUpLabels]:
    """Return a strategy of labels of all shapes, some of them with more classes than 16 bits tell apart.

    Parameters
    ----------
    max_classes
        No labels of more than these.
    """
    from hypothesis import strategies as st

    @st.composite
    def draw_labels(draw: st.DrawFn) -> MadeUpLabels:
        num_classes = draw(st.sampled_from([1, 5, 2048, spec.MAX_UINT16_CLASSES + 1]))
        if max_classes is not None:
            num_classes = min(num_classes, max_classes)
        is_large = num_classes > 5  # the dense scores are made up
        manifest = make_manifest(
            draw(st.integers(1, 4 if is_large else 9)),
            grid=(1, 2) if is_large else draw(st.tuples(st.integers(1, 3), st.integers(1, 4))),
            k=draw(st.integers(1, min(num_classes, 4))),
            num_classes=num_classes,
            value_step="exact" if draw(st.booleans()) else draw(st.sampled_from([0.125, 1.0])),
            absent=draw(st.sampled_from(list(absent))),
            are_classes_known=not is_large,
        )
        bad = draw(st.sets(st.integers(0, manifest.num_samples - 1)))
        return MadeUpLabels.of(manifest, draw(st.integers(0, 2**16)), dict.fromkeys(bad, "truncated"))

    return draw_labels()


def file_digests(store: Path) -> dict[str, str]:
    """Return the sha256 of every file of a store, by its path below it: equal for stores of the same bytes."""
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }

"""What a person wants to know of a store, in one screen."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from relabel_store.inspect.areas import ClassArea, class_areas
from relabel_store.manifest import Manifest
from relabel_store.store.encoded import EncodedStore
from relabel_store.store.encodings import encoding_of

_LISTED_CLASSES = 5


@dataclass(frozen=True)
class ClassFrequency:
    """A class and the share of all cells where it has the best score."""

    class_index: int
    name: str
    cells: int
    fraction: float


@dataclass(frozen=True)
class StoreForm:
    """What decides the size of a store: `docs/explanation/size.md` compares them."""

    encoding: str
    version: str
    compression: str
    value_step: float | str

    @classmethod
    def of(cls, manifest: Manifest) -> StoreForm:
        """Return the form that a manifest tells."""
        encoding = manifest.encoding
        return cls(encoding.name, encoding.version, encoding.compression.value, manifest.label_map.value_step)


@dataclass(frozen=True)
class StoreSummary:
    """A store, summed up.

    Parameters
    ----------
    size_bytes
        Of each array, or of the files that hold arrays and samples, in the parts that are finished; and of everything.
    bytes_per_sample
        Of ``indices`` and ``values`` (and ``rest``), or of the files that hold them with the samples, over the samples
        of the finished parts.
    most_frequent, least_frequent
        Classes by the number of cells they win; empty while the store is being built.
    """

    manifest: Manifest
    form: StoreForm
    digest: str | None
    parts_finished: int
    parts: int
    labelled: int
    bad_images: int
    missing: int
    size_bytes: dict[str, int]
    bytes_per_sample: float | None
    most_frequent: tuple[ClassFrequency, ...]
    least_frequent: tuple[ClassFrequency, ...]
    classes_never_best: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON types: the document of ``schemas/inspect-v1.schema.json``."""
        fields = {name: value for name, value in self.__dict__.items() if name != "manifest"}
        for name in ("most_frequent", "least_frequent"):
            fields[name] = [asdict(frequency) for frequency in fields[name]]
        return {**fields, "form": asdict(self.form), "manifest": self.manifest.to_dict()}


WITH_SAMPLES = "maps with samples"  # what the files of an encoding hold that keeps both in one


def summarize(store: EncodedStore) -> StoreSummary:
    """Return the summary of a store; reads its manifest and records, not its maps."""
    manifest, parts = store.manifest, store.parts
    rows = sum(len(record.rows) for record in parts.values())
    bad = sum(len(record.bad_images) for record in parts.values())
    arrays = _size_of_arrays(store)
    frequencies = _frequencies(manifest)
    return StoreSummary(
        manifest=manifest,
        form=StoreForm.of(manifest),
        digest=store.digest,
        parts_finished=len(parts),
        parts=manifest.num_parts,
        labelled=rows - bad,
        bad_images=bad,
        missing=len(store) - rows,
        size_bytes={**arrays, "total": _total_size(store)},
        bytes_per_sample=sum(arrays.values()) / rows if rows else None,
        most_frequent=tuple(frequencies[:_LISTED_CLASSES]),
        least_frequent=tuple(reversed(frequencies[_LISTED_CLASSES:][-_LISTED_CLASSES:])),
        classes_never_best=_count_never_best(manifest),
    )


def _size_of_arrays(store: EncodedStore) -> dict[str, int]:
    encoding, sizes = encoding_of(store.manifest), Counter[str]()
    for record in store.parts.values():
        array_of = encoding.files_of_part(store.manifest, record.part)
        for name, entry in record.files.items():
            sizes[array_of.get(name) or WITH_SAMPLES] += entry.size_bytes
    return dict(sizes)


def _total_size(store: EncodedStore) -> int:
    if store.files.path is None and store.is_complete:  # a listing of 100,000 objects, or of none over HTTP
        return store.size_bytes
    return sum(stamp.size_bytes for stamp in store.files.listing("", deep=True).values())


def _frequencies(manifest: Manifest) -> list[ClassFrequency]:
    """Return the classes that win a cell, most frequent first."""
    if manifest.statistics is None:
        return []
    counts = manifest.statistics.winning_cells
    total = sum(counts)
    found = [
        ClassFrequency(index, manifest.classes.name_of(index), cells, cells / total)
        for index, cells in enumerate(counts)
        if cells
    ]
    return sorted(found, key=lambda frequency: (-frequency.cells, frequency.class_index))


def _count_never_best(manifest: Manifest) -> int | None:
    return None if manifest.statistics is None else manifest.statistics.winning_cells.count(0)


@dataclass(frozen=True)
class SampleSummary:
    """A sample, summed up: the classes that win its cells, largest area first."""

    sample_id: str
    row: int
    path: str
    class_name: str | None
    class_index: int | None
    width: int | None  # pixels
    height: int | None
    grid: tuple[int, int]
    classes: tuple[ClassArea, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON types: the document of ``schemas/inspect-sample-v1.schema.json``."""
        return {
            **self.__dict__,
            "grid": list(self.grid),
            "classes": [asdict(area) for area in self.classes],
        }


def summarize_sample(store: EncodedStore, sample_id: str) -> SampleSummary:
    """Return the summary of one sample.

    Raises
    ------
    SampleNotFoundError, NoLabelError, DamagedFileError
        As `LabelStore.row_of` and `LabelStore.__getitem__`.
    """
    row = store.row_of(sample_id)
    label_map = store[row]
    (facts,) = store.samples.slice(row, 1).to_pylist()
    areas = class_areas(
        label_map.indices,
        label_map.values,
        rest=label_map.rest,
        num_classes=store.num_classes,
        class_names=store.manifest.classes.names or store.manifest.classes.ids,
    )
    return SampleSummary(
        sample_id=sample_id,
        row=row,
        path=facts["path"],
        class_name=facts["class_name"],
        class_index=facts["class_index"],
        width=facts["width"],
        height=facts["height"],
        grid=store.grid,
        classes=tuple(areas),
    )

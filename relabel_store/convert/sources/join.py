"""Images joined to the labels of others by sample id: their sizes, and whether the maps lie on them as they should."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from relabel_store.convert.source import facts_of
from relabel_store.errors import JoinError
from relabel_store.images.names import Texts
from relabel_store.images.pixels import cell_colours, read_header
from relabel_store.images.recognise import open_images
from relabel_store.images.source import ImageSource, read_start
from relabel_store.labels.orientation import Symmetry, compare_orientations
from relabel_store.labels.topk import FloatArray, IndexArray
from relabel_store.manifest import Resize
from relabel_store.store.journal import BadImage
from relabel_store.store.samples import FACTS_SCHEMA

MAX_PHOTOS = 200  # that the maps are held against: a hundred decide it where anything does
_HEAD = 32 << 10  # bytes of an image that nearly always hold its size and its EXIF
_NAMED = 3  # ids named in a note


@dataclass(frozen=True)
class ImageJoin:
    """The images of some labels.

    Attributes
    ----------
    source
        The images.
    rows
        The image of each label, int64 ``(n,)``; -1 where there is none.
    notes
        How many fit, and which do not.
    """

    source: ImageSource
    rows: NDArray[np.int64] = field(repr=False)
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the images are called."""
        return self.source.name

    @property
    def kind(self) -> str:
        """What they were recognised as."""
        return self.source.kind

    def paths_of(self, paths: Sequence[str]) -> list[str]:
        """Return the path of each label's image, and where there is none the one that is given."""
        return [
            self.source.paths[row] if row >= 0 else path for row, path in zip(self.rows, paths, strict=True)
        ]

    def facts_of(self, rows: range, without_label: Iterable[BadImage] = ()) -> tuple[pa.Table, int]:
        """Return the facts of some labels' images, and how many of those have an EXIF orientation.

        Sizes come from the first bytes of each file. A digest would take reading all of them, and say that just these
        bytes were labelled, which nobody knows.
        """
        facts = facts_of(rows, without_label)
        headers = [self._header(int(row)) for row in self.rows[rows.start : rows.stop]]
        for name, at in (("width", 0), ("height", 1)):
            column = pa.array([None if header is None else header[at] for header in headers], pa.int32())
            facts = facts.set_column(FACTS_SCHEMA.get_field_index(name), FACTS_SCHEMA.field(name), column)
        return facts, sum(header is not None and header[2] > 1 for header in headers)

    def sampled_rows(self) -> list[int]:
        """Return the labels whose images they are held against: at most 200 that have one, evenly spread."""
        there = np.flatnonzero(self.rows >= 0)
        chosen = np.linspace(0, len(there) - 1, min(MAX_PHOTOS, len(there)))
        return [int(there[int(at)]) for at in chosen]

    def orientation_notes(
        self, rows: Sequence[int], indices: IndexArray | FloatArray, values: FloatArray, resize: Resize
    ) -> list[str]:
        """Return what the photos say of the orientation of some maps.

        Parameters
        ----------
        rows
            Of the labels.
        indices, values
            Their maps, ``(n, k, n_rows, n_cols)``.
        resize
            Which part of an image they cover; where it is unknown, all of it.
        """
        n_rows, n_cols = indices.shape[2:]
        found = {
            at: self._colours(int(self.rows[row]), (n_cols, n_rows), resize) for at, row in enumerate(rows)
        }
        there = {at: colours for at, colours in found.items() if colours is not None}
        if not there:
            return ["orientation of the maps: undecided, no photo can be decoded"]
        at = list(there)
        evidence = compare_orientations(
            indices[at].astype(np.int64), values[at], np.stack(list(there.values()))
        )
        notes = [evidence.describe()]
        if evidence.verdict not in (None, Symmetry.AS_IS):
            notes.append(
                "nothing was turned: the maps are stored as the files have them, and lie wrong on their images; "
                "turn them in the files, and convert those"
            )
        return notes

    def _header(self, row: int) -> tuple[int, int, int] | None:
        """Return width, height and EXIF orientation of an image; None where there is none that can be read."""
        if row < 0:
            return None
        try:
            head = read_start(self.source, row, _HEAD)
            return read_header(head) or (read_header(self.source.read(row)) if len(head) == _HEAD else None)
        except OSError:
            return None

    def _colours(self, row: int, size: tuple[int, int], resize: Resize) -> NDArray[np.float64] | None:
        """Return the mean colour of each cell, ``(n_rows, n_cols, 3)``; None where the image cannot be decoded."""
        try:
            found = cell_colours(self.source.read(row), (size[1], size[0]), resize)
        except OSError:
            return None
        return None if found is None else found[0]


def join_images(location: str, sample_ids: Sequence[str]) -> ImageJoin:
    """Return the images of labels, found by their ids.

    Raises
    ------
    ImageSourceError
        There are no images.
    JoinError
        None of them is of these labels.
    """
    source = open_images(location)
    ours, theirs = (
        ids.column if isinstance(ids, Texts) else Texts.of(ids).column
        for ids in (sample_ids, source.sample_ids)
    )
    found = pc.index_in(ours, value_set=theirs.cast(ours.type)).fill_null(-1)
    rows = found.to_numpy(zero_copy_only=False).astype(np.int64)
    if not (rows >= 0).any():
        raise JoinError(
            f"images {location!r}: none is of these labels; an image is called {source.sample_ids[0]!r}, a label "
            f"{sample_ids[0]!r}; give the images that were labelled, by the folder that holds their class folders"
        )
    return ImageJoin(source, rows, (_fit(source, rows, sample_ids),))


def _fit(source: ImageSource, rows: NDArray[np.int64], sample_ids: Sequence[str]) -> str:
    without_image = np.flatnonzero(rows < 0)
    has_label = np.zeros(len(source), bool)
    has_label[rows[rows >= 0]] = True
    without_label = np.flatnonzero(~has_label)
    joined = len(rows) - len(without_image)
    text = f"images {source.name!r} ({source.kind}): {joined:,} of {len(rows):,} labels have one"
    for what, at, ids in (
        ("labels have none", without_image, sample_ids),
        ("images have no label", without_label, source.sample_ids),
    ):
        if len(at):
            named = ", ".join(repr(ids[int(row)]) for row in at[:_NAMED]) + (
                ", …" if len(at) > _NAMED else ""
            )
            text += f"; {len(at):,} {what} ({named})"
    return text

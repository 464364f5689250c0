"""The level ``sense`` as far as photos tell: whether label maps lie on theirs as the manifest says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relabel_store.errors import ObjectStoreError, RelabelStoreError
from relabel_store.images.pixels import cell_colours, read_header
from relabel_store.images.source import ImageSource
from relabel_store.labels.coverage import MIN_ELONGATION, Coverage, compare_coverage
from relabel_store.labels.maps import LabelMaps
from relabel_store.labels.orientation import Symmetry, compare_orientations
from relabel_store.labels.own_photo import compare_with_others
from relabel_store.manifest import Manifest, Resize
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.finding import Finding, Place
from relabel_store.validate.opened import open_sound, rows_of_images
from relabel_store.validate.report import Findings
from relabel_store.validate.rule import Level
from relabel_store.validate.sample_facts import labelled_rows
from relabel_store.validate.sense_rules import check_coverage, check_orientation, check_own_photos
from relabel_store.validate.stage import ValidationObserver

MOST_PHOTOS = 200  # a hundred decide what anything decides
# What a manifest may say of maps that cover a part: readers take an unknown one for the whole.
_FITTING = {
    Coverage.WHOLE: (Resize.SQUASH, Resize.UNKNOWN),
    Coverage.MIDDLE: (Resize.CENTER_CROP,),
}
_MIN_OWN = 100  # photos, before anything is made of maps that do not fit them
_OWN_Z = 2.0  # real maps of 100 real photos reach 7 and more
_MIN_OWN_CELLS = 25  # 200 real photos: z = 0.1 at 3x3 cells, 2.4 at 4x4, 5.5 at 5x5, 7.0 at 7x7


@dataclass(frozen=True)
class PhotoSenseStage:
    """What takes some of the photos, decoded small.

    Parameters
    ----------
    images
        Those that were labelled.
    """

    images: ImageSource
    level: Level = Level.SENSE

    def run(self, evidence: Evidence, findings: Findings, observer: ValidationObserver) -> None:
        """Hold the maps of some samples, evenly spread, against their photos."""
        what = "maps against photos"
        opened = open_sound(evidence, findings, what)
        if opened is None:
            return
        store, samples = opened
        rows = rows_of_images(samples, self.images)
        there = np.flatnonzero(labelled_rows(samples["status"]) & (rows >= 0))
        chosen = there[np.linspace(0, len(there) - 1, min(MOST_PHOTOS, len(there))).astype(np.int64)]
        observer.on_start(level=self.level, parts=len(chosen))
        colours = [self._colours(int(rows[row]), store.grid, observer) for row in chosen]
        decoded = [at for at, found in enumerate(colours) if found is not None]
        if not decoded:
            findings.skip(what, "no photo can be decoded")
            return
        try:
            maps = store.read_rows(chosen[decoded])
        except ObjectStoreError:
            raise
        except (RelabelStoreError, OSError) as error:
            findings.skip(what, f"labels cannot be read ({' '.join(str(error).split())[:200]})")
            return
        seen = [photo for photo in colours if photo is not None]
        photos = _Photos(
            store.manifest,
            maps,
            np.stack([photo.whole for photo in seen]),
            np.stack([photo.middle for photo in seen]),
            np.array([photo.is_long for photo in seen]),
        )
        findings.add(photos.judge(Place(file=evidence.manifest_place, field="geometry"), findings))

    def _colours(self, row: int, grid: tuple[int, int], observer: ValidationObserver) -> _Photo | None:
        observer.on_part()
        try:
            data = self.images.read(row)
        except OSError:
            return None
        found, header = cell_colours(data, grid, Resize.SQUASH, Resize.CENTER_CROP), read_header(data)
        if found is None or header is None:
            return None
        sides = sorted(header[:2])
        return _Photo(found[0], found[1], sides[1] >= MIN_ELONGATION * sides[0])


@dataclass(frozen=True)
class _Photo:
    """Of one photo what `_Photos` has of all."""

    whole: NDArray[np.float64]
    middle: NDArray[np.float64]
    is_long: bool


@dataclass(frozen=True)
class _Photos:
    """Label maps, and the colours of the photos that they lie on.

    Parameters
    ----------
    whole, middle
        Of each cell over the whole photo and over its middle square, ``(n, n_rows, n_cols, 3)``.
    is_long
        bool ``(n,)``: photos that are no squares.
    """

    manifest: Manifest
    maps: LabelMaps
    whole: NDArray[np.float64]
    middle: NDArray[np.float64]
    is_long: NDArray[np.bool_]

    def judge(self, place: Place, findings: Findings) -> Iterator[Finding]:
        """Yield what does not fit; what the photos do not decide is noted as unchecked."""
        recorded = self.manifest.geometry.resize
        indices, values = self.maps.indices.astype(np.int64), self.maps.values
        colours = self.middle if recorded is Resize.CENTER_CROP else self.whole
        orientation = compare_orientations(indices, values, colours)
        if orientation.verdict is None:
            findings.skip("orientation of the maps", f"undecided on {orientation.photos} photos")
        elif orientation.verdict is not Symmetry.AS_IS:
            yield from check_orientation(place, orientation, orientation.verdict)
            return  # nothing else can be told of maps that lie another way
        keep = self.is_long
        coverage = compare_coverage(indices[keep], values[keep], self.whole[keep], self.middle[keep])
        if coverage.verdict is None:
            why = f"undecided on {coverage.photos} photos that are no squares"
            findings.skip("part of the photos that the maps cover", why)
        elif recorded not in _FITTING[coverage.verdict]:
            yield from check_coverage(place, coverage, recorded)
        n_rows, n_cols = self.manifest.label_map.grid
        if n_rows * n_cols < _MIN_OWN_CELLS:
            findings.skip("maps against other photos", f"{n_rows}x{n_cols} cells are too few to tell")
            return
        own = compare_with_others(indices, values, colours)
        if own.photos >= _MIN_OWN and own.z < _OWN_Z and orientation.verdict is None:
            yield from check_own_photos(place, own.z, own.photos)

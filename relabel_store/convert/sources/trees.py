"""Trees of tensors, a file a sample: what ReLabel and TokenLabeling published, and others like them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from relabel_store import spec
from relabel_store.convert.source import Location, SourceOptions, encode_scores, facts_of
from relabel_store.convert.sources.foreign_manifest import foreign_manifest, known_classes
from relabel_store.convert.sources.foreign_maps import (
    MAX_NEGATIVE_FRACTION,
    Reasons,
    examine_maps,
    negative_fraction,
    require_logits,
)
from relabel_store.convert.sources.join import ImageJoin, join_images
from relabel_store.convert.sources.label_files import LabelFiles, first_files, open_label_files, read_each
from relabel_store.convert.torch_file import Tensor, read_tensor
from relabel_store.errors import FormatError, LabelSourceError, OptionError
from relabel_store.images.names import Wanted
from relabel_store.labels.topk import IndexArray
from relabel_store.labels.values import ValueStep
from relabel_store.manifest import (
    AbsentRule,
    Classes,
    Geometry,
    LabelSpec,
    Manifest,
)
from relabel_store.store import samples as sample_tables
from relabel_store.store.arrays import array_specs
from relabel_store.store.journal import BadImage
from relabel_store.store.part_labels import PartLabels

DEFAULT_NUM_CLASSES = 1000
_WANTED = Wanted("label file", (".pt",))
_PROBED = 64  # files that tell what all are
_LOOKED_AT = 16  # files that tell whether this is a tree of tensors at all
_BLOCK = 256  # maps that are rounded and sorted together: what fits into a core's cache
_DTYPES = ("float32", "float16", "bfloat16")
_WITHOUT_SOFTMAX = (
    "The logarithm of a probability is its score but for one number a cell, which files of the best few classes do not "
    "hold: make the labels again without the softmax"
)


@dataclass(frozen=True)
class TreeForm:
    """What makes a tree one form or the other.

    Parameters
    ----------
    name
        As ``--from`` takes it.
    dtypes
        Of the files by which it is recognised.
    geometry
        What its published generator does with an image, as far as its files follow it.
    seen
        The same in words.
    """

    name: str
    dtypes: tuple[str, ...]
    geometry: Geometry
    seen: str

    def recognise(self, location: Location) -> bool:
        """Tell whether there is such a tree: by the first sound file; a tree without any is of the first form."""
        try:
            found = [_try_map(data) for data in first_files(location, _WANTED, _LOOKED_AT)]
        except LabelSourceError:
            return False
        sound = next((tensor for tensor in found if isinstance(tensor, Tensor)), None)
        return sound.dtype in self.dtypes if sound is not None else bool(found) and "float32" in self.dtypes


def problem_of(location: Location) -> str | None:
    """Return what keeps files from being looked at, of which no form was recognised; None where nothing does."""
    try:
        for _ in first_files(location, _WANTED, _LOOKED_AT):
            pass
    except LabelSourceError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class _Kind:
    """What the maps of a tree are like."""

    k: int
    grid: tuple[int, int]

    @classmethod
    def of(cls, label_map: LabelSpec) -> _Kind:
        """Return what a manifest says."""
        return cls(label_map.k, label_map.grid)


@dataclass(frozen=True)
class TreeSource:
    """The label maps of a tree."""

    files: LabelFiles
    manifest: Manifest
    samples: pa.Table = field(repr=False)
    notes: tuple[str, ...]
    join: ImageJoin | None

    def read_part(self, part: int) -> PartLabels:
        """Return the labels of a part; files that are damaged or hold no map become rows without a label."""
        manifest, rows = self.manifest, self.manifest.rows_of_part(part)
        arrays = {name: array.full(len(rows)) for name, array in array_specs(manifest).items()}
        reasons: list[str | None] = []
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            reasons += self._read_block(rows[block], arrays[spec.INDICES][block], arrays[spec.VALUES][block])
        rest = arrays.get(spec.REST)
        if rest is not None:  # all classes are kept: nothing is left to share
            rest[[reason is None for reason in reasons]] = -np.inf
        bad = tuple(BadImage(rows[row], reason) for row, reason in enumerate(reasons) if reason is not None)
        facts, exif_oriented = (
            (facts_of(rows, bad), 0) if self.join is None else self.join.facts_of(rows, bad)
        )
        return PartLabels(
            indices=arrays[spec.INDICES],
            values=arrays[spec.VALUES],
            rest=rest,
            facts=facts,
            mtimes_ns=np.zeros(len(rows), np.int64),
            bad_images=bad,
            exif_oriented=exif_oriented,
        )

    def _read_block(self, rows: range, indices: IndexArray, values: NDArray[np.float16]) -> list[str | None]:
        """Put the maps of some rows into arrays; return for each why there is none."""
        label_map = self.manifest.label_map
        step = ValueStep.parse(label_map.value_step)
        at, whole, scores, reasons = _sound_maps(
            self.files, rows, _Kind.of(label_map), step, label_map.num_classes
        )
        if at:
            indices[at], values[at] = encode_scores(whole, scores, self.manifest)
        return [reasons.get(position) for position in range(len(rows))]


def open_tree(location: Location, options: SourceOptions, form: TreeForm) -> TreeSource:
    """Return the label maps of a tree.

    Raises
    ------
    LabelSourceError
        There is no sound file, they hold probabilities, their classes do not fit, or the tree is deeper than
        ``class/stem.pt``.
    OptionError
        ``absent = rest``, which the files do not hold.
    TeacherError
        The file of class names cannot be used.
    """
    files = open_label_files(location, _WANTED)
    num_classes = DEFAULT_NUM_CLASSES if options.num_classes is None else options.num_classes
    step = ValueStep(spec.DEFAULT_VALUE_STEP) if options.value_step is None else options.value_step
    kind, dtype, planes, ids = _probe(str(location), files)
    if kind.k > num_classes:
        raise LabelSourceError(
            f"labels {str(location)!r}: {kind.k} classes a cell, expected at most the class count, {num_classes}; give "
            "--num-classes"
        )
    _require_known_rest(options.absent, kind, num_classes)
    _, reasons = examine_maps(
        planes[:, 1],
        planes[:, 0],
        None,
        {},
        num_classes=num_classes,
        value_step=step,
        sample_ids=ids,
        index_dtypes=[dtype] * len(planes),
    )
    if len(reasons) == len(planes):
        raise LabelSourceError(
            f"labels {str(location)!r}: none of {len(planes)} maps that were looked at can be used; the first, "
            f"{ids[0]!r}: {reasons[0]}"
        )
    sound = planes[[position not in reasons for position in range(len(planes))], 0]
    require_logits(sound, f"labels {str(location)!r}: scores", _WITHOUT_SOFTMAX)
    join = None if options.images is None else join_images(options.images, files.sample_ids)
    manifest = foreign_manifest(
        files.name,
        files.sample_ids,
        grid=kind.grid,
        k=kind.k,
        num_classes=num_classes,
        classes=known_classes(options.class_names, num_classes),
        options=options,
        order=files.order,
        geometry=form.geometry,
    )
    if join is not None:
        manifest = replace(manifest, images=replace(manifest.images, name=join.name, kind=join.kind))
    samples = sample_tables.planned_samples(
        files.sample_ids,
        files.paths if join is None else join.paths_of(files.paths),
        list(files.class_names),
        manifest.classes.index_of_folder(),
    )
    notes = [*_notes(form, files, kind, dtype, manifest.classes, samples, sound, options)]
    if join is not None:
        notes += join.notes
        sampled = join.sampled_rows()
        at, whole, scores, _ = _sound_maps(files, sampled, kind, step, num_classes)
        rows = [sampled[position] for position in at]
        notes += join.orientation_notes(rows, whole, scores, form.geometry.resize)
    return TreeSource(files, manifest, samples, tuple(notes), join)


def _try_map(data: bytes) -> Tensor | str:
    """Return the map of a file, or why it holds none."""
    try:
        tensor = read_tensor(data)
    except FormatError as error:
        return str(error)
    shape = tensor.array.shape
    if len(shape) != 4 or shape[0] != 2 or tensor.dtype not in _DTYPES:
        return (
            f"a tensor of {tensor.dtype} and shape {list(shape)}, expected {', '.join(_DTYPES[:-1])} or {_DTYPES[-1]} "
            "and [2, k, rows, cols], scores and class indices"
        )
    return tensor


def _read_planes(
    files: LabelFiles, rows: Sequence[int], planes: NDArray[np.float32]
) -> tuple[list[str], Reasons]:
    """Put scores and indices of some files into an array; return their dtypes, and why some have no map."""
    dtypes, reasons = ["float32"] * len(rows), Reasons()
    for at, (_, data) in enumerate(read_each(files, rows)):
        if isinstance(data, OSError):
            reasons[at] = f"cannot be read: {data.strerror or data}"
            continue
        found = _try_map(data)
        if isinstance(found, str):
            reasons[at] = found
        elif found.array.shape != planes.shape[1:]:
            shape, expected = list(found.array.shape), list(planes.shape[1:])
            reasons[at] = f"a map of shape {shape}, expected {expected}, as the others have"
        else:
            dtypes[at] = found.dtype
            planes[at] = found.array
    return dtypes, reasons


def _probe(location: str, files: LabelFiles) -> tuple[_Kind, str, NDArray[np.float32], list[str]]:
    """Return what most of some files are, evenly spread over all of them: their dtype, planes and sample ids."""
    rows = sorted({int(row) for row in np.linspace(0, len(files) - 1, _PROBED)})
    found = [data if isinstance(data, OSError) else _try_map(data) for _, data in read_each(files, rows)]
    tensors = [tensor for tensor in found if isinstance(tensor, Tensor)]
    if not tensors:
        raise LabelSourceError(
            f"labels {location!r}: no label map in any of {len(rows)} files; the first, {files.paths[0]!r}: {found[0]}"
        )
    (shape, dtype), _ = Counter((tensor.array.shape, tensor.dtype) for tensor in tensors).most_common(1)[0]
    alike = {
        files.sample_ids[row]: tensor.array
        for row, tensor in zip(rows, found, strict=True)
        if isinstance(tensor, Tensor) and (tensor.array.shape, tensor.dtype) == (shape, dtype)
    }
    planes = np.stack(list(alike.values())).astype(np.float32)
    return _Kind(shape[1], (shape[2], shape[3])), dtype, planes, list(alike)


def _sound_maps(
    files: LabelFiles, rows: Sequence[int], kind: _Kind, step: ValueStep, num_classes: int
) -> tuple[list[int], NDArray[np.int64], NDArray[np.float32], Reasons]:
    """Return the maps of some rows that can be stored.

    Returns
    -------
    at : list of int
        Positions of these among the rows.
    indices : ndarray
        int64 ``(len(at), k, n_rows, n_cols)``.
    scores : ndarray
        float32, same shape.
    reasons : dict
        Why the others cannot, by their positions.
    """
    planes = np.zeros((len(rows), 2, kind.k, *kind.grid), np.float32)
    dtypes, without_map = _read_planes(files, rows, planes)
    indices, reasons = examine_maps(
        planes[:, 1],
        planes[:, 0],
        None,
        without_map,
        num_classes=num_classes,
        value_step=step,
        sample_ids=[files.sample_ids[row] for row in rows],
        index_dtypes=dtypes,
    )
    at = [position for position in range(len(rows)) if position not in reasons]
    scores = planes[:, 0]
    return (at, indices, scores, reasons) if not reasons else (at, indices[at], scores[at], reasons)


def _require_known_rest(wanted: AbsentRule | None, kind: _Kind, num_classes: int) -> None:
    if wanted is AbsentRule.REST and kind.k < num_classes:
        raise OptionError(
            f"absent: 'rest', expected 'zero': these labels hold {kind.k} of {num_classes} classes a cell and nothing "
            "of the others, so that their share is not known"
        )


def _notes(
    form: TreeForm,
    files: LabelFiles,
    kind: _Kind,
    dtype: str,
    classes: Classes,
    samples: pa.Table,
    scores: NDArray[np.float32],
    options: SourceOptions,
) -> list[str]:
    rows, cols = kind.grid
    notes = [
        f"form {form.name!r}: {dtype}, top {kind.k} on {rows}x{cols} cells, {form.seen}; --from names another",
    ]
    if files.ids_from != "paths":
        notes.append(f"sample ids are {files.ids_from}")
    missing = ["the teacher"]
    if options.num_classes is None and classes.names is None:
        missing.append(f"its class count, taken to be {DEFAULT_NUM_CLASSES}")
    if classes.names is None:
        missing.append("its classes (--class-names), so no class_index")
    notes.append(f"not in the files: {', '.join(missing)}")
    if classes.names is not None:
        known = len(samples) - samples["class_index"].null_count
        if known < len(samples):
            notes.append(
                f"class names: {len(samples) - known:,} of {len(samples):,} labels lie in a folder that is none"
            )
    negative = negative_fraction(scores)
    if negative > MAX_NEGATIVE_FRACTION:
        notes.append(
            f"{negative:.1%} of the kept scores are negative, and a class that is not kept counts as 0: it ranks above "
            "them, as it did for the programs that these labels were made for"
        )
    return notes

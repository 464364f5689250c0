"""Which label belongs to which image: by sample id, never by position."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relabel_store.errors import ClassOrderError, JoinError
from relabel_store.sample_ids import sample_id_of
from relabel_store.store.reader import LabelStore

_NAMED = 3  # samples or classes named in a message


class JoinMode(StrEnum):
    """What may be left over on either side."""

    EXACT = "exact"
    """Nothing: every image has a label, and every label an image."""
    INNER = "inner"
    """Anything: images without labels are left out, labels without images are not used."""


@dataclass(frozen=True)
class Join:
    """Images and the labels that belong to them.

    Parameters
    ----------
    positions
        int64 ``(n,)``: positions in the image dataset of the images that have a label, rising.
    rows
        int64 ``(n,)``: the row of each one's label.
    unlabelled_images
        Sample ids of images without a label: not in the store, or not labelled there.
    unused_labels
        How many labels have no image.
    """

    positions: NDArray[np.int64]
    rows: NDArray[np.int64]
    unlabelled_images: tuple[str, ...]
    unused_labels: int

    def __str__(self) -> str:
        found = f"{len(self.rows):,} images with labels"
        if self.unlabelled_images:
            found += f", {len(self.unlabelled_images):,} without ({_some(self.unlabelled_images)})"
        if self.unused_labels:
            found += f", {self.unused_labels:,} labels without an image"
        return found


def join_labels(sample_ids: Sequence[str], store: LabelStore, mode: JoinMode) -> Join:
    """Return which row of a store labels which image.

    Parameters
    ----------
    sample_ids
        Of the images, by position.

    Raises
    ------
    JoinError
        Two images have one id, or there is something left over that `mode` does not allow.
    """
    ids = list(sample_ids)
    if not all(isinstance(one, str) for one in ids):
        other = next(one for one in ids if not isinstance(one, str))
        raise JoinError(f"sample_ids: {other!r}, expected text such as 'n01440764/n01440764_10026'")
    if len(set(ids)) != len(ids):
        twice = next(one for one, before in zip(sorted(ids)[1:], sorted(ids), strict=False) if one == before)
        raise JoinError(
            f"images: two have the sample id {twice!r}, expected one each; rename or leave out one, or, to see an "
            "image more often, take a Subset of the LabelDataset"
        )
    rows = store.rows_of(ids)
    has_label = rows >= 0
    has_label[has_label] = store.has_labels(rows[has_label])
    join = Join(
        positions=np.flatnonzero(has_label),
        rows=rows[has_label],
        unlabelled_images=tuple(ids[at] for at in np.flatnonzero(~has_label)),
        unused_labels=int(store.has_labels(np.arange(len(store))).sum() - has_label.sum()),
    )
    if not len(join.rows):
        known = store[0].sample_id if len(store) and store.has_label(0) else "none"
        raise JoinError(
            f"images: none of {len(ids):,} has a label; their sample ids look like {_some(ids) or 'none'}, those of "
            f"the labels like {known!r}. Sample ids are paths below the root that the labels were built from"
        )
    if mode is JoinMode.EXACT and (join.unlabelled_images or join.unused_labels):
        raise JoinError(
            f"images: {join}; expected every image to have a label and every label an image. "
            "Pass join='inner' to train on those that have both"
        )
    return join


def sources_of(images: Any) -> list[Any]:
    """Return the datasets that a dataset is made of, itself first: of a ``Subset``, a ``ConcatDataset``, or both."""
    inner = [images.dataset] if hasattr(images, "dataset") else getattr(images, "datasets", ())
    return [images, *(source for dataset in inner for source in sources_of(dataset))]


def class_orders_of(images: Any) -> list[Mapping[str, int]]:
    """Return the class folders of the datasets that a dataset is made of, with the index of each."""
    holders = [
        holder for source in sources_of(images) for holder in (source, getattr(source, "reader", None))
    ]  # timm's ImageDataset has a reader that knows
    found = [getattr(holder, "class_to_idx", None) for holder in holders]
    return [order for order in found if isinstance(order, Mapping)]


def sample_ids_of(images: Any) -> list[str]:
    """Return the sample ids of a dataset of files.

    Understands torchvision's ``DatasetFolder`` and ``ImageFolder``, timm's ``ImageDataset`` of a folder,
    anything with ``sample_ids``, and ``Subset`` and ``ConcatDataset`` of them.

    Raises
    ------
    JoinError
        The dataset does not say which files it reads.
    """
    if hasattr(images, "dataset") and hasattr(images, "indices"):  # torch.utils.data.Subset
        every = sample_ids_of(images.dataset)
        return [every[at] for at in images.indices]
    if hasattr(images, "datasets"):  # torch.utils.data.ConcatDataset
        return [sample_id for dataset in images.datasets for sample_id in sample_ids_of(dataset)]
    if hasattr(images, "sample_ids"):
        return list(images.sample_ids)
    if hasattr(images, "samples") and hasattr(images, "root"):  # torchvision's folders
        root = Path(images.root)
        return [_id_below(root, path) for path, _ in images.samples]
    if callable(getattr(images, "filenames", None)):  # timm
        return [
            sample_id_of(Path(path).as_posix()) for path in images.filenames(basename=False, absolute=False)
        ]
    raise JoinError(
        f"images: {type(images).__name__} does not say which files it reads; pass sample_ids=, one an image"
    )


def _id_below(root: Path, path: str) -> str:
    return sample_id_of(Path(os.path.relpath(path, root)).as_posix())


def class_columns(store: LabelStore, class_names: Sequence[str]) -> list[int]:
    """Return the teacher's class index of each class folder, for ``LabelPooling(classes=...)``.

    Parameters
    ----------
    class_names
        Names of class folders in the student's order, such as ``ImageFolder.classes``.

    Raises
    ------
    ClassOrderError
        The teacher has no class of such a name, or the store does not say what its classes are called.
    """
    known = store.manifest.classes.index_of_folder()
    class_names = [unicodedata.normalize("NFC", name) for name in class_names]
    missing = [name for name in class_names if name not in known]
    if missing:
        what = (
            f"knows {len(known):,} classes by name" if known else "does not say what its classes are called"
        )
        raise ClassOrderError(
            f"classes: {_some(missing)} of {len(class_names)} not among the teacher's; the store {what}"
        )
    return [known[name] for name in class_names]


def require_class_order(
    class_to_index: Mapping[str, int], store: LabelStore, columns: Sequence[int] | None
) -> bool:
    """Check that a dataset numbers its classes as the targets do; return whether it could be checked.

    Parameters
    ----------
    class_to_index
        Name of each class folder and the dataset's index of it.
    columns
        The teacher's class index of each class of the targets; None where they are the teacher's.

    Raises
    ------
    ClassOrderError
        They are in another order.
    """
    known = store.manifest.classes.index_of_folder()
    class_to_index = {unicodedata.normalize("NFC", name): index for name, index in class_to_index.items()}
    column_of = None if columns is None else {teacher: column for column, teacher in enumerate(columns)}

    def expected(name: str) -> int | None:
        return known[name] if column_of is None else column_of.get(known[name])

    wrong = [
        (name, index, expected(name))
        for name, index in class_to_index.items()
        if name in known and index != expected(name)
    ]
    if wrong:
        name, index, column = wrong[0]
        there = "not among the targets" if column is None else f"column {column} of the targets"
        raise ClassOrderError(
            f"classes: {len(wrong)} of {len(class_to_index)} are numbered otherwise than the targets; "
            f"{name!r} is class {index} of the images and {there}. For a student with the images' classes pass "
            "pool=LabelPooling(store.num_classes, classes=class_columns(store, images.classes))"
        )
    return bool(known) and any(name in known for name in class_to_index)


def _some(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more

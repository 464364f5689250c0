"""The images of a store, read from the folder that it was built from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from relabel_store.errors import FormatError, JoinError
from relabel_store.store.reader import LabelStore
from relabel_store.store.samples import SampleIds, column_values
from relabel_store.torch.join import class_columns

__all__ = ["SampleImages"]


class SampleImages(Dataset[tuple[Image.Image, int]]):
    """Every image of a store that has a label, as its sample table lists them.

    Nothing is listed on disk, and folders without class folders will do. For use with
    `relabel_store.torch.LabelDataset`; ``torchvision.datasets.ImageFolder`` does as well.

    Parameters
    ----------
    root
        The folder that the store was built from, or a copy of it.
    classes
        Names of class folders in the order of a student that knows only some; images of other classes are
        left out. None: the teacher's order.

    Raises
    ------
    JoinError
        The first image is not below `root`.
    ClassOrderError
        The teacher has no class of such a name.
    FormatError
        A path in the store leads out of `root`.

    Notes
    -----
    An item is an RGB image as PIL decodes it, without EXIF orientation, and the class index of its folder, the
    student's where `classes` are given and else the teacher's; -1 where that is unknown.
    """

    def __init__(
        self, root: str | os.PathLike[str], store: LabelStore, classes: Sequence[str] | None = None
    ) -> None:
        self.root = Path(root)
        # What is said of an image stays in the store's table, which worker processes of a materialized store share.
        # Lists of a million Python strings would be copied into each, where they are forked a page at a time as
        # references are counted.
        self._store = store
        self._rows = np.flatnonzero(store.has_labels(np.arange(len(store))))
        self.class_to_idx = store.manifest.classes.index_of_folder()
        self._index_of: NDArray[np.int64] | None = None  # the student's, by the teacher's
        if classes is not None:
            columns = class_columns(store, classes)
            self.class_to_idx = {name: index for index, name in enumerate(classes)}
            self._index_of = np.full(store.num_classes + 1, -1)
            self._index_of[columns] = np.arange(len(columns))
            of_teacher = column_values(store.samples["class_index"], null=-1)[self._rows]
            self._rows = self._rows[self._index_of[of_teacher] >= 0]
        if len(self) and not self._path(0).is_file():
            raise JoinError(
                f"images {str(self.root)!r}: no file {self._fact('path', 0)!r} in it, expected the folder that "
                f"{store.manifest.name!r} was built from; for a part of it, or files with another suffix, use "
                "ImageFolder and join='inner'"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> tuple[Image.Image, int]:
        """Return an image and its class index."""
        class_index = self._fact("class_index", position)
        with Image.open(self._path(position)) as image:
            picture = image.convert("RGB")
        if class_index is None:
            return picture, -1
        return picture, class_index if self._index_of is None else int(self._index_of[class_index])

    @property
    def classes(self) -> list[str]:
        """Names of the class folders that there are images of, in the order of `class_to_idx`."""
        found = set(self._store.samples["class_name"].unique().to_pylist())
        return [
            name for name in sorted(self.class_to_idx, key=self.class_to_idx.__getitem__) if name in found
        ]

    @property
    def sample_ids(self) -> Sequence[str]:
        """The sample id of each image."""
        return SampleIds(self._store.samples["sample_id"], self._rows)

    def _path(self, position: int) -> Path:
        path = PurePosixPath(self._fact("path", position))
        if path.is_absolute() or ".." in path.parts:
            raise FormatError(f"sample table: path {str(path)!r}, expected one below the images' root")
        return self.root / path

    def _fact(self, column: str, position: int) -> Any:
        return self._store.samples[column][int(self._rows[position])].as_py()

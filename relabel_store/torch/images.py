"""The images of a store, read from the folder that it was built from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from relabel_store.errors import FormatError, JoinError
from relabel_store.store.reader import LabelStore
from relabel_store.store.samples import SampleIds

__all__ = ["SampleImages"]


class SampleImages(Dataset[tuple[Image.Image, int]]):
    """Every image of a store that has a label, as its sample table lists them.

    Nothing is listed on disk, and folders without class folders will do. For use with
    `relabel_store.torch.LabelDataset`; ``torchvision.datasets.ImageFolder`` does as well.

    Parameters
    ----------
    root
        The folder that the store was built from, or a copy of it.

    Raises
    ------
    JoinError
        The first image is not below `root`.
    FormatError
        A path in the store leads out of `root`.

    Notes
    -----
    An item is an RGB image as PIL decodes it, without EXIF orientation, and the teacher's class index of its
    folder, -1 where that is unknown.
    """

    def __init__(self, root: str | os.PathLike[str], store: LabelStore) -> None:
        self.root = Path(root)
        # What is said of an image stays in the store's table, which worker processes of a materialized store share.
        # Lists of a million Python strings would be copied into each, where they are forked a page at a time as
        # references are counted.
        self._store = store
        self._rows = np.flatnonzero(store.has_labels(np.arange(len(store))))
        self.class_to_idx = store.manifest.classes.index_of_folder()
        if len(self) and not self._path(0).is_file():
            raise JoinError(
                f"images {str(self.root)!r}: no file {self._fact('path', 0)!r} in it, expected the folder that "
                f"{store.manifest.name!r} was built from"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> tuple[Image.Image, int]:
        """Return an image and its class index."""
        class_index = self._fact("class_index", position)
        with Image.open(self._path(position)) as image:
            return image.convert("RGB"), -1 if class_index is None else class_index

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

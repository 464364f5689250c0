"""The images of a store, read from the folder that it was built from."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from relabel_store.errors import FormatError, JoinError
from relabel_store.store.reader import LabelStore
from relabel_store.store.samples import column_values, take_rows

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
        rows = np.flatnonzero(store.has_labels(np.arange(len(store))))
        table = take_rows(store.samples.select(["sample_id", "path", "class_index"]), rows)
        # Arrow's buffers rather than lists: a million Python strings would be copied into each worker, a page
        # at a time, as it counts references to them.
        self._paths = table["path"].combine_chunks()
        self._class_indices = column_values(table["class_index"]).astype(np.int32)
        self.sample_ids = table["sample_id"].to_pylist()
        self.class_to_idx = store.manifest.classes.index_of_folder()
        if len(self) and not self._path(0).is_file():
            raise JoinError(
                f"images {str(self.root)!r}: no file {self._paths[0].as_py()!r} in it, expected the folder that "
                f"{store.manifest.name!r} was built from"
            )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, position: int) -> tuple[Image.Image, int]:
        """Return an image and its class index."""
        with Image.open(self._path(position)) as image:
            return image.convert("RGB"), int(self._class_indices[position])

    def _path(self, position: int) -> Path:
        path = PurePosixPath(self._paths[position].as_py())
        if path.is_absolute() or ".." in path.parts:
            raise FormatError(f"sample table: path {str(path)!r}, expected one below the images' root")
        return self.root / path

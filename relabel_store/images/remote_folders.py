"""Images in folders that fsspec lists."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from relabel_store.errors import ImageSourceError
from relabel_store.images.folders import sorted_by_id
from relabel_store.images.names import Names, Texts, plain_path
from relabel_store.images.services import Stamp, attempt


class RemoteFolders:
    """A remote tree of images, as `ClassFolders` has a local one.

    Parameters
    ----------
    stamps
        Of each image, by path below the root, from the listing: they cost no request each.
    """

    order = "sample-id"
    ids_from = "paths"

    def __init__(self, url: str, name: str, stamps: Mapping[str, Stamp]) -> None:
        paths = sorted_by_id(Texts.of(_plain(url, path) for path in stamps))
        names = Names.of_paths(url, paths)
        self._sizes = pa.array(np.array([stamps[path].size_bytes for path in paths], np.int64))
        self._versions = pa.array(np.array([stamps[path].version for path in paths], np.int64))
        self.name = name
        self.kind = "class-folders" if len(names.class_names.column.dictionary) else "folder"
        self.sample_ids, self.paths, self.class_names = names.sample_ids, names.paths, names.class_names
        self._url = url.rstrip("/")

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int) -> bytes:
        """Return the bytes of an image file."""
        data: bytes = attempt(f"{self._url}/{self.paths[row]}", lambda fs, path: fs.cat_file(path))
        return data

    def fingerprint(self, row: int) -> tuple[int, int]:
        """Return size in bytes and version of an image file when it was listed."""
        return self._sizes[row].as_py(), self._versions[row].as_py()


def _plain(url: str, path: str) -> str:
    if plain_path(path, f"images {url!r}") != path:
        raise ImageSourceError(
            f"images {url!r}: object {path!r}, whose name is no path below the folder; rename it"
        )
    return path

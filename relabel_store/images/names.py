"""What the images of a source are called: paths below its root, sample ids, classes; in Arrow's memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from relabel_store.errors import ImageSourceError
from relabel_store.sample_ids import sample_id_of

# torchvision's IMG_EXTENSIONS, in any case: what ImageFolder takes for training, and nothing else.
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_CHUNK = 65_536
_NOT_PLAIN = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")  # an empty part of a path, "." or ".."


class Texts(Sequence[str]):
    """Strings in one buffer, Python's own only while they are looked at.

    A list takes 57 bytes a string besides its characters; this takes eight, and forked processes share it.

    Parameters
    ----------
    column
        Strings, or a dictionary of strings.
    """

    def __init__(self, column: pa.Array) -> None:
        self.column = column

    @classmethod
    def of(cls, texts: Iterable[str | None]) -> Texts:
        """Return the strings of an iterable, of which no list is made."""
        return cls(_column(texts, pa.large_string()))

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> list[str]: ...

    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[position] for position in range(*at.indices(len(self)))]
        found: str = self.column[at].as_py()
        return found

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            yield from self.column.slice(start, _CHUNK).to_pylist()

    def take(self, rows: NDArray[np.int64]) -> Texts:
        """Return the strings of some rows, in the order asked."""
        return Texts(self.column.take(pa.array(rows)))


class OptionalTexts(Sequence[str | None]):
    """The names of classes, a number each and none where there is no class."""

    def __init__(self, column: pa.DictionaryArray) -> None:
        self.column = column

    @classmethod
    def of(cls, texts: Iterable[str | None]) -> OptionalTexts:
        """Return the strings of an iterable, of which no list is made."""
        return cls(_column(texts, pa.dictionary(pa.int32(), pa.string())))

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, at: int) -> str | None: ...

    @overload
    def __getitem__(self, at: slice) -> list[str | None]: ...

    def __getitem__(self, at: int | slice) -> str | list[str | None] | None:
        if isinstance(at, slice):
            return [self[position] for position in range(*at.indices(len(self)))]
        found: str | None = self.column[at].as_py()
        return found

    def __iter__(self) -> Iterator[str | None]:
        for start in range(0, len(self), _CHUNK):
            yield from self.column.slice(start, _CHUNK).to_pylist()


def _column(texts: Iterable[str | None], kind: pa.DataType) -> pa.Array:
    rest, chunks = iter(texts), []
    while some := list(islice(rest, _CHUNK)):
        chunks.append(pa.array(some, kind))
    column = pa.chunked_array(chunks, kind)
    if pa.types.is_dictionary(kind):
        column = column.unify_dictionaries()
    return column.combine_chunks() if chunks else pa.array([], kind)


@dataclass(frozen=True)
class Names:
    """What the images of a source are called, by row.

    Parameters
    ----------
    paths
        Below the root, ``/``-separated, as they are there.
    """

    sample_ids: Texts
    paths: Texts
    class_names: OptionalTexts

    @classmethod
    def of_paths(cls, source: str, paths: Texts, noun: str = "image") -> Names:
        """Return what images, or other files, are called by their paths.

        Raises
        ------
        ImageSourceError
            Two images have one sample id.
        """
        sample_ids = Texts.of(map(sample_id_of, paths))
        require_unique(source, sample_ids, paths, noun)
        return cls(sample_ids, paths, OptionalTexts.of(map(class_folder, paths)))

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Wanted:
    """Which files of a folder or a tar are meant.

    Parameters
    ----------
    noun
        What to call one in a message.
    suffixes
        In lower case; any of them ends the name of one.
    """

    noun: str
    suffixes: tuple[str, ...]

    def includes(self, name: str) -> bool:
        """Tell whether a file of this name is one."""
        return name.lower().endswith(self.suffixes)


IMAGES = Wanted("image", SUFFIXES)


def class_folder(path: str) -> str | None:
    """Return the folder directly below the root that a path leads through, if any."""
    folder, below, _ = path.partition("/")
    return folder if below else None


def is_image(name: str) -> bool:
    """Tell whether a file of this name is an image."""
    return IMAGES.includes(name)


def plain_path(path: str, where: str) -> str:
    """Return a path below a root without ``.`` and doubled or leading slashes.

    Raises
    ------
    ImageSourceError
        It leads out of the root, or is not UTF-8.
    """
    require_utf8(path)
    if not _NOT_PLAIN.search(path):
        return path
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise ImageSourceError(f"{where}: path {path!r}, expected one that stays below the root")
    return "/".join(parts)


def require_utf8(path: str) -> None:
    """Check that a name can be a sample id.

    Raises
    ------
    ImageSourceError
        It is not UTF-8.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ImageSourceError(
            f"name {os.fsencode(path)!r}: not UTF-8, which sample ids are; rename it"
        ) from None


_HOMES = ("home/", "Users/")
_HOME = re.compile("[^/]+/")


def drop_shared_folders(paths: Texts) -> tuple[Texts, str]:
    """Return paths without the folders that all lead through, as long as a folder is left, and what was dropped.

    ``tar cf train.tar train`` puts ``train/`` before every class folder; a source that is the folder itself does not.
    Somebody's home is no class: ``home/alice/`` is dropped even where no folder is left.
    """
    bounds = pc.min_max(paths.column).as_py()  # what these share, all do
    depth = pc.min(pc.count_substring(paths.column, "/")).as_py()
    folders = list(zip(bounds["min"].split("/"), bounds["max"].split("/"), strict=False))[: max(depth - 1, 0)]
    shared = takewhile(lambda pair: pair[0] == pair[1], folders)
    dropped = "".join(f"{folder}/" for folder, _ in shared)
    home = _HOME.match(bounds["min"], len(dropped)) if dropped.endswith(_HOMES) else None
    if home is not None and bounds["max"].startswith(home[0], len(dropped)):
        dropped += home[0]
    if not dropped:
        return paths, ""
    return Texts(pc.utf8_slice_codeunits(paths.column, start=len(dropped))), dropped


def require_unique(source: str, sample_ids: Texts, paths: Sequence[str], noun: str = "image") -> None:
    """Check that no two images have one sample id.

    Parameters
    ----------
    source
        What the images are called in a message.
    paths
        What to call an image there.

    Raises
    ------
    ImageSourceError
        Two have; both are named.
    """
    if pc.count_distinct(sample_ids.column).as_py() == len(sample_ids):
        return
    rows = pc.sort_indices(sample_ids.column)
    ordered = sample_ids.column.take(rows)
    same = np.flatnonzero(pc.equal(ordered[1:], ordered[:-1]).to_numpy(zero_copy_only=False))
    first, second = (paths[rows[int(same[0]) + step].as_py()] for step in (0, 1))
    more = f" (and {len(same) - 1} more pairs)" if len(same) > 1 else ""
    raise ImageSourceError(
        f"{noun}s {source!r}: {first!r} and {second!r} have one sample id, {ordered[int(same[0])].as_py()!r}{more}; "
        "rename or remove one of them"
    )

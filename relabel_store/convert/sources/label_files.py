"""Files with a label map each, in a folder or in a tar that stays packed."""

from __future__ import annotations

import contextlib
import errno
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from relabel_store.convert.source import Location
from relabel_store.errors import ImageSourceError, LabelSourceError
from relabel_store.images.folders import find_files, sorted_by_id
from relabel_store.images.names import Names, Texts, Wanted, drop_shared_folders, require_utf8
from relabel_store.images.places import LocalFile, is_url
from relabel_store.images.tar_index import TarFacts, TarIndex, describe_files
from relabel_store.images.tar_members import Member, scan_tar
from relabel_store.images.tars import TarImages, index_folder_name
from relabel_store.store.cache import default_cache_dir

# Threads only wait for the disk: eight of them hide a network's delay, and cost nothing where there is none.
_THREADS = 8
_AT_ONCE = 32  # files that a thread reads before it hands them over
# What a file system says of a file that is there and will not be read however often it is tried.
_FOR_GOOD = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENXIO, errno.ELOOP, errno.ENOTDIR}
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


class LabelFiles(Protocol):
    """Files by row, read from any process; their ids are as those of images in the same folders would be."""

    @property
    def name(self) -> str:
        """What to call them: a folder's or a tar's own name, never a path."""

    @property
    def order(self) -> str:
        """How the rows are ordered: ``sample-id``, or ``source`` as in the tar."""

    @property
    def ids_from(self) -> str:
        """What the sample ids are: ``paths``, or paths below which folder."""

    @property
    def sample_ids(self) -> Sequence[str]:
        """The id of each row, unique."""

    @property
    def paths(self) -> Sequence[str]:
        """The path of each row."""

    @property
    def class_names(self) -> Sequence[str | None]:
        """The folder directly below the root that each row lies in."""

    def __len__(self) -> int:
        """Return the number of files."""

    def read(self, row: int) -> bytes:
        """Return the bytes of a file; `OSError` where they cannot be had."""


class FolderFiles:
    """Files below a folder, by sample id."""

    order = "sample-id"

    def __init__(self, root: Path, name: str, names: Names, dropped: str) -> None:
        self.name = name
        self.sample_ids, self.paths, self.class_names = names.sample_ids, names.paths, names.class_names
        self.ids_from = _ids_from(dropped)
        self._root, self._dropped = root, dropped
        self._prefix = f"{root}/{dropped}"

    def __len__(self) -> int:
        return len(self.paths)

    def __reduce__(self) -> tuple[Any, ...]:
        names = Names(self.sample_ids, self.paths, self.class_names)
        return FolderFiles, (self._root, self.name, names, self._dropped)

    def read(self, row: int) -> bytes:
        """Return the bytes of a file."""
        with open(self._prefix + self.paths[row], "rb", buffering=0) as file:
            return file.read()


def open_label_files(location: Location, wanted: Wanted) -> LabelFiles:
    """Return the files of a folder, of a tar, or of a folder inside a tar (``labels.tar/relabel``).

    Parameters
    ----------
    wanted
        How their names end.

    Raises
    ------
    LabelSourceError
        There are none, they lie deeper than ``class/stem.pt`` below one root, two have one sample id, one is a link
        or leads out of the tar, or the tar is damaged.
    """
    text = str(location)
    tar = find_tar(location)
    try:
        if tar is not None:
            return _open_tar(text, *tar, wanted)
        root = _require_folder(location, wanted)
        name = root.resolve().name or "labels"
        require_utf8(name)
        paths, dropped = _below_root(Texts.of(find_files(root, wanted)), text, wanted)
        names = Names.of_paths(text, sorted_by_id(paths), wanted.noun)
    except ImageSourceError as error:
        raise LabelSourceError(str(error)) from error
    except OSError as error:
        raise LabelSourceError(f"labels {text!r}: {error.strerror or error}") from error
    return FolderFiles(root, name, names, dropped)


def first_files(location: Location, wanted: Wanted, count: int) -> Iterator[bytes]:
    """Yield the bytes of a few of the files, without listing all of them.

    Raises
    ------
    LabelSourceError
        There is no folder and no tar, or they cannot be listed or read.
    """
    tar = find_tar(location)
    try:
        if tar is not None:
            place, inner = tar
            _require_tar(str(location), place)
            with place.open() as file:
                for member, _ in zip(
                    _members(str(location), place, inner, wanted), range(count), strict=False
                ):
                    file.seek(member.offset)
                    yield file.read(member.size)
        else:
            root = _require_folder(location, wanted)
            for path, _ in zip(find_files(root, wanted), range(count), strict=False):
                yield (root / path).read_bytes()
    except ImageSourceError as error:
        raise LabelSourceError(str(error)) from error
    except OSError as error:
        raise LabelSourceError(f"labels {str(location)!r}: {error.strerror or error}") from error


def find_tar(location: Location) -> tuple[LocalFile, str] | None:
    """Return the tar that a path names or leads into, and the folder in it; None where there is none."""
    path = Path(location)
    if is_url(str(location)) or path.is_dir():
        return None
    for outer in (path, *path.parents):
        if outer.is_file():
            inner = path.relative_to(outer).as_posix()
            return LocalFile(outer), "" if inner == "." else f"{inner}/"
        if outer.exists():
            return None
    return None


def read_each(files: LabelFiles, rows: Sequence[int]) -> Iterator[tuple[int, bytes | OSError]]:
    """Yield the bytes of files, some read ahead by threads; an error in the place of one that cannot be read ever.

    Raises
    ------
    LabelSourceError
        A file cannot be read now, and may be later.
    """

    def read_some(some: Sequence[int]) -> list[tuple[int, bytes | OSError]]:
        return [(row, _read(files, row)) for row in some]

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="read") as pool:
        ahead: deque[Future[list[tuple[int, bytes | OSError]]]] = deque()
        for start in range(0, len(rows), _AT_ONCE):
            ahead.append(pool.submit(read_some, rows[start : start + _AT_ONCE]))
            if len(ahead) > _THREADS:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()


def _read(files: LabelFiles, row: int) -> bytes | OSError:
    try:
        return files.read(row)
    except OSError as error:
        if error.errno in _FOR_GOOD:
            return error
        raise LabelSourceError(
            f"label of {files.sample_ids[row]!r}: {error.strerror or error}; run the same command again when it can be "
            "read"
        ) from error


def _open_tar(text: str, place: LocalFile, inner: str, wanted: Wanted) -> TarImages:
    _require_tar(text, place)
    name = PurePosixPath(inner or place.name).stem
    require_utf8(name)
    known = describe_files([place], [place.stamp()])
    # Of the whole location, and of what is wanted: the images of a tar have an index of their own.
    key = f"{Path(text).absolute()}\0{wanted.suffixes}"
    folder = default_cache_dir() / "tar-index" / index_folder_name(key)
    index = TarIndex.load(folder, known)
    if index is None:
        index = _index(text, place, inner, wanted, known)
        with contextlib.suppress(OSError):  # else it is made anew each time, and sent to each process
            index = index.save(folder)
    return TarImages(name, index, [place])


def _require_folder(location: Location, wanted: Wanted) -> Path:
    text = str(location)
    if is_url(text) or not Path(location).is_dir():
        raise LabelSourceError(
            f"labels {text!r}: {'a URL' if is_url(text) else 'nothing there'}, expected a folder or a tar of "
            f"{wanted.noun}s on this machine"
        )
    return Path(location)


def _require_tar(text: str, place: LocalFile) -> None:
    with place.open() as file:
        head = file.read(512)
    packed = next((what for magic, what in _PACKED.items() if head.startswith(magic)), None)
    if packed is not None:
        raise LabelSourceError(
            f"labels {text!r}: a {packed} file, expected a folder or a tar; it cannot be read at random: decompress "
            "it, a tar need not be unpacked"
        )
    if not head:
        raise LabelSourceError(f"labels {text!r}: an empty file, expected a folder or a tar")


def _members(text: str, place: LocalFile, inner: str, wanted: Wanted) -> Iterator[Member]:
    with place.open() as file:
        for member in scan_tar(file, f"labels {text!r}", wanted=wanted):
            if wanted.includes(member.path) and member.path.startswith(inner):
                yield member


def _index(
    text: str, place: LocalFile, inner: str, wanted: Wanted, known: tuple[tuple[str, int, int], ...]
) -> TarIndex:
    offsets, sizes, crcs = array("q"), array("q"), array("L")  # a list of a million takes ten times as much

    def paths() -> Iterator[str]:
        for member in _members(text, place, inner, wanted):
            offsets.append(member.offset)
            sizes.append(member.size)
            crcs.append(member.header_crc32)
            yield member.path[len(inner) :]

    found, dropped = _below_root(Texts.of(paths()), text, wanted)
    return TarIndex.of_columns(
        TarFacts("tar", _ids_from(dropped), known),
        Names.of_paths(text, found, wanted.noun),
        {
            "file": pa.array(np.zeros(len(offsets), np.int32)),
            "offset": pa.array(np.asarray(offsets, np.int64)),
            "size": pa.array(np.asarray(sizes, np.int64)),
            "header_crc32": pa.array(np.asarray(crcs, np.uint32)),
        },
    )


def _ids_from(dropped: str) -> str:
    return f"paths below {dropped!r}" if dropped else "paths"


def _below_root(paths: Texts, text: str, wanted: Wanted) -> tuple[Texts, str]:
    """Return paths below the folders that all of them share, and those folders."""
    if not len(paths):
        raise LabelSourceError(
            f"labels {text!r}: no {wanted.noun} in it or below, expected files that end in {', '.join(wanted.suffixes)}"
        )
    below, dropped = drop_shared_folders(paths)
    deep = next((path for path in below if path.count("/") > 1), None)
    if deep is not None:
        tree = f"{text.rstrip('/')}/{dropped}{deep.partition('/')[0]}"
        raise LabelSourceError(
            f"labels {text!r}: {deep!r} in it, expected 'class/stem{wanted.suffixes[0]}' below one root, which makes "
            f"the sample id 'class/stem'; name one of the trees in it, such as {tree!r}"
        )
    return below, dropped

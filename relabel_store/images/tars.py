"""Images in tar files: plain ones, ImageNet's tar of tars, a tar a class, WebDataset shards."""

from __future__ import annotations

import errno
import hashlib
import logging
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from relabel_store.errors import ImageSourceError
from relabel_store.images.imagenet import imagenet_id
from relabel_store.images.names import (
    SUFFIXES,
    Names,
    OptionalTexts,
    Texts,
    class_folder,
    drop_shared_folders,
    require_unique,
    require_utf8,
)
from relabel_store.images.places import Place, RemoteFile
from relabel_store.images.tar_index import TarFacts, TarIndex, describe_files
from relabel_store.images.tar_members import BLOCK, Member, scan_tar
from relabel_store.sample_ids import sample_id_of

log = logging.getLogger("relabel_store.build")

_REMOTE_THREADS = 16  # that hop from header to header: each hop is a request
_HOP = 16 << 10  # bytes a hop asks for


class TarImages:
    """The images of some tars, in their order, read from where they lie.

    Parameters
    ----------
    places
        The tars, in the order of the index.
    """

    order = "source"

    def __init__(self, name: str, index: TarIndex, places: Sequence[Place]) -> None:
        self.name = name
        self.kind = index.facts.kind
        self.ids_from = index.facts.ids_from
        self.sample_ids, self.paths = index.names.sample_ids, index.names.paths
        self.class_names = index.names.class_names
        self._index = index
        self._places = places

    def __len__(self) -> int:
        return len(self._index)

    def __reduce__(self) -> tuple[Any, ...]:
        return TarImages, (self.name, self._index, self._places)

    def detached(self) -> TarImages:
        """Return the same images with their index in memory, for machines that do not see its file."""
        return TarImages(self.name, self._index.in_memory(), self._places)

    def read(self, row: int) -> bytes:
        """Return the bytes of an image file; `OSError` where something else lies in its place."""
        return self._read(row, None)

    def read_start(self, row: int, size: int) -> bytes:
        """Return the first bytes of an image file; `OSError` as for `read`."""
        return self._read(row, size)

    def _read(self, row: int, at_most: int | None) -> bytes:
        file, offset, size, crc32 = self._index.entry(row)
        wanted = size if at_most is None else min(size, at_most)
        data = self._places[file].read_at(offset - BLOCK, BLOCK + wanted)
        if zlib.crc32(data[:BLOCK]) != crc32:
            name = self._places[file].name
            raise OSError(
                errno.ESTALE, f"{name!r} at {offset}: another file than was listed, so the tar changed"
            )
        return data[BLOCK:]

    def fingerprint(self, row: int) -> tuple[int, int]:
        """Return the size of an image file, and when its tar was last changed before it was listed."""
        file, _, size, _ = self._index.entry(row)
        return size, self._index.facts.files[file][2]


def open_tars(
    places: Sequence[Place],
    *,
    location: str,
    name: str,
    index_folders: Iterable[Path],
    a_class_each: bool = False,
) -> TarImages:
    """Return the images of some tars.

    Parameters
    ----------
    location, name
        What to call the images in a message, and in the manifest.
    index_folders
        Where the index may lie, and be written if it lies in none; best first.
    a_class_each
        The images of each tar lie in a folder of its name, unless they turn out to be WebDataset's.

    Raises
    ------
    ImageSourceError
        A tar cannot be read, is no tar, or holds what cannot be labelled.
    """
    require_utf8(name)
    stamps = [_stamp(place) for place in places]
    files = describe_files(places, stamps)
    folders = list(index_folders)
    for folder in folders:
        index = TarIndex.load(folder, files)
        if index is not None:
            return TarImages(name, index, places)
    index = _index(places, files, location, a_class_each=a_class_each)
    for folder in folders:
        try:
            return TarImages(name, index.save(folder), places)
        except OSError as error:
            log.info("index of the tars: not kept in %r (%s)", str(folder), error.strerror or error)
    if folders:
        log.warning("index of %s: cannot be kept anywhere, it is made anew each time", name)
    return TarImages(name, index, places)


def index_folder_name(location: str) -> str:
    """Return what to call the folder of the index of some tars in a cache of many."""
    return hashlib.sha256(location.encode(errors="surrogateescape")).hexdigest()[:32]


def _stamp(place: Place) -> Any:
    try:
        return place.stamp()
    except OSError as error:
        raise ImageSourceError(f"images {place.location!r}: {error.strerror or error}") from error


@dataclass
class _Found:
    """The images of one tar, or of one inside it."""

    paths: list[str] = field(default_factory=list)
    offsets: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    crcs: array[int] = field(default_factory=lambda: array("L"))
    has_companions: bool = False  # files that share their key with an image
    inner: list[Member] = field(default_factory=list)

    def add(self, member: Member) -> None:
        self.paths.append(member.path)
        self.offsets.append(member.offset)
        self.sizes.append(member.size)
        self.crcs.append(member.header_crc32)

    def put_below(self, tar: str) -> None:
        """Put the images into the folder that a tar stands for, unless they lie in one of its name already."""
        above, slash, name = tar.rpartition("/")
        stem = name.rpartition(".")[0]
        is_below = all(path.startswith(f"{stem}/") for path in self.paths)
        folder = above + slash if is_below else f"{above}{slash}{stem}/"
        self.paths = [folder + path for path in self.paths]

    def keep_one_a_key(self) -> None:
        """Leave out images such as ``x.seg.png`` beside ``x.jpg``: parts of a sample that are no photo."""
        plain = {_key(path) for path in self.paths if _is_plain(path)}
        kept = [row for row, path in enumerate(self.paths) if _is_plain(path) or _key(path) not in plain]
        if len(kept) < len(self.paths):
            log.info("%d images beside the photo of their sample are left out", len(self.paths) - len(kept))
            self.paths = [self.paths[row] for row in kept]
            for name in ("offsets", "sizes", "crcs"):
                numbers = getattr(self, name)
                setattr(self, name, array(numbers.typecode, (numbers[row] for row in kept)))


def _key(path: str) -> str:
    """Return what WebDataset calls the sample of a file: its path up to the first dot of its name."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _is_plain(path: str) -> bool:
    return path.rpartition("/")[2].count(".") == 1


def _index(
    places: Sequence[Place], files: tuple[tuple[str, int, int], ...], location: str, *, a_class_each: bool
) -> TarIndex:
    threads = _REMOTE_THREADS if any(isinstance(place, RemoteFile) for place in places) else 1
    with ThreadPoolExecutor(threads, thread_name_prefix="scan") as pool:
        outer = list(pool.map(_scan, places))
        inside = [(number, member) for number, found in enumerate(outer) for member in found.inner]
        inner = list(pool.map(lambda pair: _scan(places[pair[0]], pair[1]), inside))
    is_webdataset = any(found.has_companions for found in (*outer, *inner))
    if is_webdataset and any("/" in path for found in outer for path in found.paths):
        a_class_each = False  # samples whose keys have folders: shards, whatever they are called
    tars: list[tuple[int, _Found]] = []
    for number, found in enumerate(outer):
        if a_class_each:
            found.put_below(places[number].name)
        tars.append((number, found))
        tars += [(number, below) for (file, _), below in zip(inside, inner, strict=True) if file == number]
    if is_webdataset:
        for _, found in tars:
            found.keep_one_a_key()
    if not any(found.paths for _, found in tars):
        raise ImageSourceError(
            f"images {location!r}: no image in the tar{'s' if len(places) > 1 else ''}, expected files that end in "
            f"{', '.join(SUFFIXES)}"
        )
    if inside:
        kind = "tar-of-tars"
    elif a_class_each:
        kind = "tar-a-class"
    else:
        kind = "webdataset" if is_webdataset or len(places) > 1 else "tar"
    paths, dropped = drop_shared_folders(Texts.of(path for _, found in tars for path in found.paths))
    ids_from = "paths" if not dropped else f"paths below {dropped!r}"
    names = _flat_names(location, paths) if kind == "webdataset" else None
    if names is not None:
        ids_from = "ImageNet's file names"
    return TarIndex.of_columns(
        TarFacts(kind, ids_from, files),
        names or Names.of_paths(location, paths),
        {
            "file": _joined([np.full(len(found.paths), number, np.int32) for number, found in tars]),
            "offset": _joined([found.offsets for _, found in tars], np.int64),
            "size": _joined([found.sizes for _, found in tars], np.int64),
            "header_crc32": _joined([found.crcs for _, found in tars], np.uint32),
        },
    )


def _joined(pieces: Sequence[Any], dtype: Any = np.int32) -> pa.Array:
    return pa.array(np.concatenate([np.asarray(piece).astype(dtype) for piece in pieces]))


def _flat_names(location: str, paths: Texts) -> Names | None:
    """Return what images without folders are called, where all of them have ImageNet's names."""
    if pc.any(pc.match_substring(paths.column, "/")).as_py():
        return None
    ids = [imagenet_id(sample_id_of(path)) for path in paths]
    if None in ids:
        return None
    sample_ids = Texts.of(ids)
    require_unique(location, sample_ids, paths)
    return Names(sample_ids, paths, OptionalTexts.of(map(class_folder, sample_ids)))


def _scan(place: Place, inside: Member | None = None) -> _Found:
    try:
        with place.open(_HOP) as file:
            return _collect(_members(file, place, inside), None if inside is None else inside.path)
    except OSError as error:
        raise ImageSourceError(f"images {place.location!r}: {error.strerror or error}") from error


def _members(file: BinaryIO, place: Place, inside: Member | None) -> Iterator[Member]:
    if inside is None:
        return scan_tar(file, f"images {place.location!r}")
    where = f"images {place.location!r}, in it {inside.path!r}"
    return scan_tar(file, where, inside.offset, inside.size)


def _collect(members: Iterator[Member], inner_path: str | None) -> _Found:
    found = _Found()
    image_key = other_key = None  # the samples of a shard are neighbours
    for member in members:
        if member.is_image:
            found.add(member)
            image_key = _key(member.path)
            found.has_companions |= image_key == other_key
        elif member.is_tar and inner_path is None:
            found.inner.append(member)
        elif not found.has_companions:
            other_key = _key(member.path)
            found.has_companions = other_key == image_key
    if inner_path is not None:
        found.put_below(inner_path)
    return found

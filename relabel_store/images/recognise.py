"""What lies at a path or URL, and the source that reads it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pyarrow as pa

from relabel_store.errors import ImageSourceError
from relabel_store.images.folders import ClassFolders, has_images
from relabel_store.images.lists import open_list, read_csv, read_parquet_list
from relabel_store.images.names import SUFFIXES, is_image
from relabel_store.images.parquet_images import holds_images, open_parquet
from relabel_store.images.patterns import expand, is_pattern
from relabel_store.images.places import (
    LocalFile,
    Place,
    is_url,
    open_place,
    require_location,
)
from relabel_store.images.remote_folders import RemoteFolders
from relabel_store.images.services import list_files
from relabel_store.images.tars import index_folder_name, open_tars
from relabel_store.store.cache import default_cache_dir

if TYPE_CHECKING:
    from relabel_store.images.source import ImageSource

log = logging.getLogger("relabel_store.build")

_HEAD = 512  # bytes that tell what a file is
_EXPECTED = (
    "a folder of class folders or of images, a tar file, WebDataset shards such as 'train-{0000..0146}.tar', Parquet "
    "files with images, or a CSV or Parquet table of paths"
)
_SHARD = re.compile(
    r"(?:.*[-_.])?\d+(?:-of-\d+)?\.tar", re.IGNORECASE
)  # train-0000.tar and 00000.tar, not n01440764.tar
_PACKED = {
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"PK\x03\x04": "a zip file",
    b"Rar!": "a RAR file",
    b"7z\xbc\xaf": "a 7z file",
}
_UNPACK = "it cannot be read at random: decompress it, a tar file need not be unpacked"


def open_images(
    location: str | os.PathLike[str], *, beside: str | os.PathLike[str] | None = None
) -> ImageSource:
    """Return the images at a path or URL, of whatever kind they are.

    Parameters
    ----------
    location
        A folder of class folders, of images, of tars or of Parquet files; a tar, Parquet, CSV or TSV file; or several
        tars or Parquet files, as in ``train-{0000..0146}.tar`` or ``train-*.parquet``. Here or, as a URL, wherever
        fsspec reads.
    beside
        Path of the store that is made of them. The index of tars is kept beside it, where that can be written, and else
        in the cache of the user.

    Raises
    ------
    ImageSourceError
        There is nothing that can be labelled; the message says what was found.
    MissingDependencyError
        The client of a service is not installed.
    """
    text = require_location(location)
    found = _find(text)
    source = _open(found, text, None if beside is None or is_url(beside) else Path(beside))
    pa.default_memory_pool().release_unused()  # what sorting a million names took
    return source


class _Form(Enum):
    """How the files of a kind begin, or what they are called."""

    TAR = "tar"
    PARQUET = "Parquet"
    TABLE = "CSV"


_FORMS = {
    ".tar": _Form.TAR,
    ".parquet": _Form.PARQUET,
    ".csv": _Form.TABLE,
    ".tsv": _Form.TABLE,
}


@dataclass(frozen=True)
class _Found:
    """Files of one form."""

    form: _Form
    places: tuple[Place, ...]
    name: str
    a_class_each: bool = False


def _find(location: str) -> _Found | ImageSource:
    if is_pattern(location):
        places = tuple(open_place(one) for one in expand(location))
        name = re.sub(r"[-_.]*(?:\{[^{}]*\}|[*?]+|\[[^\]]*\])", "", PurePosixPath(location).name) or "images"
        return _Found(_form_of(places), places, PurePosixPath(name).stem or name)
    if is_url(location):
        place = open_place(location)
        if _form_by_name(place.name) is None:
            return _find_in_remote_folder(location)
        return _Found(_form_of((place,)), (place,), PurePosixPath(place.name).stem)
    path = Path(location)
    if not path.exists():
        raise ImageSourceError(f"images {location!r}: nothing there, expected {_EXPECTED}")
    if path.is_dir():
        return _find_in_folder(path)
    if not path.is_file():
        raise ImageSourceError(f"images {location!r}: no regular file, expected {_EXPECTED}")
    place = open_place(location)
    return _Found(_form_of((place,)), (place,), path.stem)


def _find_in_folder(path: Path) -> _Found | ImageSource:
    if has_images(path):
        source = ClassFolders(path)
        packed = sorted(
            one.name for one in path.iterdir() if _form_by_name(one.name) in (_Form.TAR, _Form.PARQUET)
        )
        if packed:
            log.warning(
                "images %r: %d images in the folder; what is in %r%s is not read",
                str(path),
                len(source),
                packed[0],
                " and others" if packed[1:] else "",
            )
        return source
    files = sorted(one for one in path.rglob("*") if _form_by_name(one.name) is not None and one.is_file())
    return _of_folder(
        str(path),
        path.resolve().name or "images",
        [(str(one.relative_to(path)), LocalFile(one)) for one in files],
    )


def _find_in_remote_folder(url: str) -> _Found | ImageSource:
    try:
        listed = list(list_files(url))
    except OSError as error:
        raise ImageSourceError(f"images {url!r}: {error.strerror or error}") from error
    name = PurePosixPath(urlsplit(url).path).name or urlsplit(url).netloc
    images = {path: stamp for path, stamp in listed if is_image(path)}
    if images:
        return RemoteFolders(url, name, images)
    files = [path for path, _ in listed if _form_by_name(path) is not None]
    return _of_folder(url, name, [(path, open_place(f"{url.rstrip('/')}/{path}")) for path in files])


def _of_folder(location: str, name: str, files: Sequence[tuple[str, Place]]) -> _Found:
    """Return the tars or Parquet files in a folder that holds no images."""
    forms = {form for path, _ in files if (form := _form_by_name(path)) is not None}
    if len(forms) != 1 or (forms == {_Form.TABLE} and len(files) > 1):
        holds = (
            " and ".join(sorted(form.value for form in forms)) + " files"
            if forms
            else "no image in it or below"
        )
        raise ImageSourceError(
            f"images {location!r}: {holds}, expected images ({', '.join(SUFFIXES)}), or tar or Parquet files; "
            + (
                f"name the files you mean, such as {files[0][0]!r}"
                if files
                else "give another folder or a file"
            )
        )
    places = tuple(place for _, place in files)
    form = _form_of(places)
    is_sharded = all(_SHARD.fullmatch(place.name) for place in places)
    splits = sorted({_split_of(path) for path, _ in files})
    if len(splits) > 1 and (form is _Form.PARQUET or (form is _Form.TAR and is_sharded)):
        suffix = PurePosixPath(places[0].name).suffix
        raise ImageSourceError(
            f"images {location!r}: {form.value} files of {', '.join(map(repr, splits[:6]))}, expected one split; "
            f"name it, as in '{location.rstrip('/')}/{splits[0]}*{suffix}'"
        )
    return _Found(form, places, name, a_class_each=form is _Form.TAR and len(places) > 1 and not is_sharded)


def _split_of(path: str) -> str:
    return re.sub(r"(?:-\d+-of-\d+|[-_.]?\d+)?\.[a-z]+$", "", path, flags=re.IGNORECASE)


def _form_by_name(name: str) -> _Form | None:
    return _FORMS.get(PurePosixPath(name.lower()).suffix)


def _form_of(places: Sequence[Place]) -> _Form:
    """Return the form of some files, by how the first one begins and what it is called."""
    place = places[0]
    try:
        with place.open(_HEAD) as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise ImageSourceError(f"images {place.location!r}: {error.strerror or error}") from error
    by_name = _form_by_name(place.name)
    if head.startswith(b"PAR1"):
        return _Form.PARQUET
    if head[257:262] == b"ustar" or (by_name is _Form.TAR and head[:1] not in (b"\x1f", b"<", b"")):
        return _Form.TAR
    packed = next((what for magic, what in _PACKED.items() if head.startswith(magic)), None)
    if packed is None and by_name is _Form.TABLE and b"\0" not in head:
        return _Form.TABLE
    what = packed or (f"a file that begins with {head[:8]!r}" if head else "an empty file")
    advice = f"; {_UNPACK}" if packed else ""
    raise ImageSourceError(f"images {place.location!r}: {what}, expected {_EXPECTED}{advice}")


def _open(found: _Found | ImageSource, location: str, beside: Path | None) -> ImageSource:
    if not isinstance(found, _Found):
        return found
    places, first = found.places, found.places[0]
    if found.form is _Form.TAR:
        folders = _index_folders(location, beside)
        return open_tars(
            places,
            location=location,
            name=found.name,
            index_folders=folders,
            a_class_each=found.a_class_each,
        )
    if found.form is _Form.PARQUET and holds_images(first):
        return open_parquet(places, location=location, name=found.name)
    if len(places) > 1:
        raise ImageSourceError(f"images {location!r}: {len(places)} lists, expected one; join them")
    table = read_parquet_list(first) if found.form is _Form.PARQUET else read_csv(first)
    return open_list(first, table, found.name)


def _index_folders(location: str, beside: Path | None) -> Iterator[Path]:
    """Yield where the index of some tars may be kept."""
    if beside is not None:
        yield beside.with_name(f"{beside.name}.tar-index")
    absolute = location if is_url(location) else str(Path(location).absolute())
    yield default_cache_dir() / "tar-index" / index_folder_name(absolute)

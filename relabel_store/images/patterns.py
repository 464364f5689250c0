"""Several files in one word: ``train-{0000..0146}.tar``, ``train-*.parquet``."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Iterator

from relabel_store.errors import ImageSourceError
from relabel_store.images.places import is_url
from relabel_store.images.services import attempt

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAX_FILES = 1_000_000


def is_pattern(location: str) -> bool:
    """Tell whether a location means several files; an existing path never does."""
    if not is_url(location) and os.path.lexists(location):
        return False
    has_braces = any(".." in inside or "," in inside for inside in _BRACES.findall(location))
    # In a URL, "?" begins a query.
    return has_braces or "*" in location or ("?" in location and not is_url(location))


def expand(location: str) -> list[str]:
    """Return the files that a pattern means: braces in the order written, ``*`` sorted.

    Raises
    ------
    ImageSourceError
        It means none, one of them twice, or more than a million.
    """
    files: list[str] = []
    if (
        math.prod(map(_number, _BRACES.findall(location))) > _MAX_FILES
    ):  # before a million of them are written out
        raise ImageSourceError(f"images {location!r}: more than {_MAX_FILES:,} files")
    for one in _expand_braces(location):
        files += _glob(one) if is_pattern(one) else [one]
        if len(files) > _MAX_FILES:
            raise ImageSourceError(f"images {location!r}: more than {_MAX_FILES:,} files")
    if not files:
        raise ImageSourceError(f"images {location!r}: no file of such a name")
    if len(set(files)) < len(files):
        twice = next(file for file in files if files.count(file) > 1)
        raise ImageSourceError(f"images {location!r}: means {twice!r} twice")
    return files


def _expand_braces(text: str) -> Iterator[str]:
    found = next((one for one in _BRACES.finditer(text) if ".." in one[1] or "," in one[1]), None)
    if found is None:
        yield text
        return
    for choice in _choices(text, found[1]):
        yield from _expand_braces(text[: found.start()] + choice + text[found.end() :])


def _number(inside: str) -> int:
    """Return how many choices there are between braces."""
    numbers = _RANGE.fullmatch(inside)
    return inside.count(",") + 1 if numbers is None else abs(int(numbers[1]) - int(numbers[2])) + 1


def _choices(text: str, inside: str) -> Iterator[str]:
    if "," in inside:
        yield from inside.split(",")
        return
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        raise ImageSourceError(f"images {text!r}: {{{inside}}}, expected a range such as {{0000..0146}}")
    first, last = int(numbers[1]), int(numbers[2])
    step = 1 if last >= first else -1
    # As the shell does: as many digits as the longer one where either is written with leading zeros.
    is_padded = any(len(number) > 1 and number[0] == "0" for number in numbers.groups())
    width = max(map(len, numbers.groups())) if is_padded else 0
    for number in range(first, last + step, step):
        yield f"{number:0{width}d}"


def _glob(pattern: str) -> list[str]:
    if not is_url(pattern):
        return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - of any folder, not of one
    return attempt(pattern, lambda fs, path: sorted(fs.unstrip_protocol(one) for one in fs.glob(path)))

"""From the path or URL of a store to its files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from relabel_store.errors import OptionError
from relabel_store.store.files import StoreFiles
from relabel_store.store.local_files import LocalFiles
from relabel_store.store.remote_files import RemoteFiles

_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]+://")
_URL_AS_PATH = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/[^/]")  # what pathlib makes of one


Location = str | os.PathLike[str] | StoreFiles


def is_url(location: str | os.PathLike[str]) -> bool:
    """Tell whether a location is a URL rather than a path; ``file://`` is a path."""
    text = os.fspath(location)
    return _URL.match(text) is not None and not text.startswith("file://")


def open_files(location: Location) -> StoreFiles:
    """Return the files of the store at a path or URL; files as they are.

    Raises
    ------
    OptionError
        A URL that is none, that holds credentials, or that was turned into a path.
    """
    if not isinstance(location, str | os.PathLike):
        return location
    text = os.fspath(location)
    if is_url(text):
        return RemoteFiles(text)
    if isinstance(location, Path) and _URL_AS_PATH.match(text):
        raise OptionError(
            f"location {text!r}: a URL that became a path, which has one slash; give it as text"
        )
    return LocalFiles(Path(unquote(urlsplit(text).path)) if text.startswith("file://") else Path(location))

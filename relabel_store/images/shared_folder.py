"""Paths of files that lie anywhere, below the folder that all share: a store holds no absolute path, host or user."""

from __future__ import annotations

import os
import re
from itertools import takewhile

import pyarrow.compute as pc

from relabel_store.images.names import Texts, plain_path

_ROOT = re.compile("/|[A-Za-z][A-Za-z0-9+.-]*://[^/]*/?")  # of this machine, or scheme and host or bucket
_WEB = re.compile("https?://", re.IGNORECASE)
_THIS_MACHINE = ("/", "file:///")
# Folders of people, which are called as they are.
_OF_A_USER = "(?:file://)?/(?:(?:export|mnt|nfs)/)?(?:home|Users)/[^/]+/|[^:/]+://[^/]*/~[^/]*/"


def below_shared_folder(files: Texts, where: str) -> tuple[Texts, str] | None:
    """Return paths below the deepest folder that all share, and what that is; None where a path would tell too much.

    Where all lie directly in one folder its name is kept, as that of the class, unless the name is that of a user or
    of a folder at the root.

    Parameters
    ----------
    files
        Absolute paths and URLs, without queries.
    where
        What they are called in a message.

    Raises
    ------
    ImageSourceError
        A path has ``..``.

    Notes
    -----
    Files that share no folder but ``/``, or that of the homes, have no paths that a store could hold.
    """
    roots = sorted({_root_of(file) for file in files})
    paths = Texts.of(plain_path(file[len(_root_of(file)) :], where) for file in files)
    shared = _shared_folder(paths)
    users = _folders_of_users()

    def tells_too_much(file: str, start: int) -> bool:
        root = _root_of(file)
        if root in _THIS_MACHINE and not start:
            return "/" in file[len(root) :]
        found = users.match(file)
        return found is not None and found.end() > len(root) + start

    plain = (_root_of(file) + path for file, path in zip(files, paths, strict=True))
    if any(tells_too_much(file, len(shared)) for file in plain):
        return None
    below = _cut(paths, len(shared))
    if not pc.any(pc.match_substring(below.column, "/")).as_py():
        above = shared[: shared[:-1].rfind("/") + 1]
        if not any(tells_too_much(root + shared, len(above)) for root in roots):
            shared, below = above, _cut(paths, len(above))
    return below, _described(roots, shared)


def without_query(file: str) -> str:
    """Return a path or URL without the query of a web address: a store is published, and it may be a signature."""
    return file.partition("?")[0] if _WEB.match(file) else file


def _root_of(file: str) -> str:
    found = _ROOT.match(file)
    return "" if found is None else found[0]


def _shared_folder(paths: Texts) -> str:
    """Return the deepest folder that all paths lead through, with a slash behind it if it is one."""
    bounds = pc.min_max(paths.column).as_py()  # what these share, all do
    folders = zip(*(bounds[end].split("/")[:-1] for end in ("min", "max")), strict=False)
    return "".join(f"{folder}/" for folder, _ in takewhile(lambda pair: pair[0] == pair[1], folders))


def _cut(paths: Texts, start: int) -> Texts:
    return Texts(pc.utf8_slice_codeunits(paths.column, start=start)) if start else paths


def _folders_of_users() -> re.Pattern[str]:
    home = os.path.expanduser("~").rstrip("/") + "/"  # noqa: PTH111 - which raises where nobody knows it
    return re.compile(f"{_OF_A_USER}|{re.escape(home)}")


def _described(roots: list[str], shared: str) -> str:
    if len(roots) == 1:
        return repr(roots[0] + shared)
    places = f"{len(roots)} places"
    return f"{shared!r} of {places}" if shared else places

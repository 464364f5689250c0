"""What the sample of an image file is called."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from itertools import islice

_AT_ONCE = 4096
# What only a path of some machine begins like: a home folder, a URL of a file, a drive, a share. Not any slash, with
# which the keys of a data set may begin ("/m/01g317"), nor "~" or "@", which names of folders and files may hold.
MACHINE_PATH = (
    r"^(?:file://)?/(?:(?:export|mnt|nfs)/)?(?:home|Users)/[^/]+/|^file://|^[A-Za-z]:\\\w|^\\\\\w+\\\w"
)


def sample_id_of(path: str) -> str:
    """Return the sample id of a path below the root: without its last suffix, in Unicode NFC."""
    folder, slash, name = path.rpartition("/")
    stem = name.rpartition(".")[0] or name
    return unicodedata.normalize("NFC", folder + slash + stem)


def is_absolute_of(sample_id: str, path: str) -> bool:
    """Tell whether an id is surely an absolute path: that of its image, with more folders above than `path` has."""
    return (
        sample_id.startswith("/")
        and path != ""
        and any(
            sample_id.endswith(f"/{below}") and len(sample_id) > len(below) + 1
            for below in (path, sample_id_of(path))
        )
    )


class IdDigest:
    """The digest of a set of sample ids that come in sorted order, some at a time."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, sample_ids: Iterable[str]) -> None:
        """Take in the next ids."""
        encoded = (sample_id.encode() for sample_id in sample_ids)
        self._digest.update(b"".join(len(one).to_bytes(8, "little") + one for one in encoded))

    def value(self) -> str:
        """Return the digest of the ids so far."""
        return "sha256:" + self._digest.hexdigest()


def digest_of_ids(sample_ids: Iterable[str]) -> str:
    """Return the digest of a set of sample ids.

    The SHA-256 of the ids sorted by code point, each as its length in bytes (8 bytes, little-endian)
    followed by its UTF-8, as ``"sha256:"`` and hexadecimal digits. Ids may hold any character.
    """
    digest = IdDigest()
    ordered = iter(sorted(sample_ids))
    while some := list(islice(ordered, _AT_ONCE)):
        digest.add(some)
    return digest.value()

"""What the sample of an image file is called."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable


def sample_id_of(path: str) -> str:
    """Return the sample id of a path below the root: without its last suffix, in Unicode NFC."""
    folder, slash, name = path.rpartition("/")
    stem = name.rpartition(".")[0] or name
    return unicodedata.normalize("NFC", folder + slash + stem)


def digest_of_ids(sample_ids: Iterable[str]) -> str:
    """Return the digest of a set of sample ids.

    The SHA-256 of the ids sorted by code point, each as its length in bytes (8 bytes, little-endian)
    followed by its UTF-8, as ``"sha256:"`` and hexadecimal digits. Ids may hold any character.
    """
    digest = hashlib.sha256()
    for sample_id in sorted(sample_ids):
        encoded = sample_id.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return "sha256:" + digest.hexdigest()

"""Sample ids as names of files: which can be, and what becomes of them where case does not count."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from relabel_store.errors import OptionError

MAX_NAME_BYTES = 255  # of every common file system


def require_file_names(sample_ids: Sequence[str], suffix: str, form: str) -> None:
    """Check that each sample can have a file of its name below a folder.

    Raises
    ------
    OptionError
        An id leads out of the folder, is none that a file system takes, or is a folder of another's.
    """
    for sample_id in sample_ids:
        problem = _problem(sample_id, suffix)
        if problem:
            raise OptionError(
                f"form {form!r}: the sample id {sample_id!r} {problem}, so it can be no file name; "
                "npz, hdf5, tfrecord and the encodings of a store take any id"
            )
    folders = {f"{parent}/" for sample_id in sample_ids for parent in _parents(sample_id)}
    for sample_id in sample_ids:
        if f"{sample_id}{suffix}/" in folders:
            raise OptionError(
                f"form {form!r}: {sample_id + suffix!r} would be the file of a sample and the folder of others; "
                "npz, hdf5, tfrecord and the encodings of a store take any id"
            )


def _problem(sample_id: str, suffix: str) -> str | None:
    parts = sample_id.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "is absolute or has an empty part, '.' or '..'"
    if "\0" in sample_id:
        return "holds NUL"
    if "\\" in sample_id:
        return "holds a backslash, which parts folders on some systems"
    parts[-1] += suffix
    longest = max(len(part.encode()) for part in parts)
    return None if longest <= MAX_NAME_BYTES else f"makes a name of {longest} bytes, past {MAX_NAME_BYTES}"


def _parents(sample_id: str) -> Iterator[str]:
    at = sample_id.find("/")
    while at >= 0:
        yield sample_id[:at]
        at = sample_id.find("/", at + 1)


def require_no_nul(sample_ids: Iterable[str], form: str) -> None:
    """Check that no id holds NUL, which fixed-width text is padded with.

    Raises
    ------
    OptionError
        One does.
    """
    for sample_id in sample_ids:
        if "\0" in sample_id:
            raise OptionError(
                f"form {form!r}: the sample id {sample_id!r} holds NUL, with which this form pads text; "
                "tfrecord and the encodings of a store take any id"
            )


def case_notes(sample_ids: Iterable[str]) -> list[str]:
    """Return a note if files of two samples are one where file systems do not tell case apart."""
    seen: dict[str, str] = {}
    collisions = 0
    example = ""
    for sample_id in sample_ids:
        folded = unicodedata.normalize("NFC", sample_id.casefold())
        first = seen.setdefault(folded, sample_id)
        if first != sample_id:
            collisions += 1
            example = example or f"{first!r} and {sample_id!r}"
    if not collisions:
        return []
    return [
        f"{collisions} sample ids differ from others in case only, such as {example}: copied to a file system that "
        "does not tell case apart, one file replaces the other"
    ]

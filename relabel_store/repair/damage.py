"""Finding what is damaged: every file of a finished store beside what ``complete.json`` records of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relabel_store.errors import DamagedFileError
from relabel_store.store.complete import Completion
from relabel_store.store.files import StoreFiles, require_entry


@dataclass(frozen=True)
class Damage:
    """The files of a store that are not what was written.

    Parameters
    ----------
    documents
        Files that describe the store, with what is wrong with each: all but those of parts.
    parts
        Parts one of whose files is damaged, with what is wrong with the first.
    """

    documents: Mapping[str, str]
    parts: Mapping[int, str]

    def __bool__(self) -> bool:
        return bool(self.documents or self.parts)


def find_damage(files: StoreFiles, completion: Completion) -> Damage:
    """Compare size and digest of every file that a finished store lists: it is read once."""
    part_of = {name: part for part, record in completion.parts.items() for name in record.files}
    documents: dict[str, str] = {}
    parts: dict[int, str] = {}
    for name, entry in completion.files.items():
        try:
            require_entry(files, name, entry)
        except DamagedFileError as error:
            what = str(error).partition(";")[0]  # what to do about it is what we are about to do
            if name in part_of:
                parts.setdefault(part_of[name], what)
            else:
                documents[name] = what
    return Damage(documents, dict(sorted(parts.items())))

"""What a repair did, and what is left."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Remedy(StrEnum):
    """What became of a damaged part."""

    RESTORED = "restored"
    """Labelled again: its files are byte for byte what they were."""
    RELABELLED = "relabelled"
    """Labelled again with other bytes, those of another device or version: the store has another digest now."""
    DROPPED = "dropped"
    """All its rows are `missing` now."""


@dataclass(frozen=True)
class RepairedPart:
    """A part that was damaged.

    Parameters
    ----------
    rows
        Of the store.
    damage
        What was found.
    """

    part: int
    rows: range
    damage: str
    remedy: Remedy

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "part": self.part,
            "rows": [self.rows.start, self.rows.stop],
            "damage": self.damage,
            "remedy": self.remedy.value,
        }


@dataclass(frozen=True)
class RepairReport:
    """How a repair ended.

    Parameters
    ----------
    location
        Path or URL of the store, as it was given.
    digest_before, digest_after
        The identity of the store; None where ``complete.json``, which holds it, was lost, or is not there yet. Of a
        damaged one it is what can be read of it.
    is_root_new
        Whether ``complete.json`` was made from the other files and has not the digest that was recorded: it says what
        they are now, and nothing of what they were before.
    files
        Those that describe the store and were written again, sorted.
    parts
        The damaged parts that are whole again.
    left
        What is still wrong, one message each: the store is valid where there are none.
    """

    location: str
    digest_before: str | None
    digest_after: str | None
    is_root_new: bool
    files: tuple[str, ...]
    parts: tuple[RepairedPart, ...]
    left: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong with the store any more."""
        return not self.left

    def rows_with(self, remedy: Remedy) -> int:
        """Return the number of rows of the parts of which something became."""
        return sum(len(part.rows) for part in self.parts if part.remedy is remedy)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types: the document of ``schemas/repair-v1.schema.json``."""
        return {
            "store": self.location,
            "is_whole": self.is_whole,
            "digest_before": self.digest_before,
            "digest_after": self.digest_after,
            "is_root_new": self.is_root_new,
            "files": list(self.files),
            "parts": [part.to_json() for part in self.parts],
            "left": list(self.left),
        }

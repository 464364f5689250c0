"""Findings: one thing each that a validator has to say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relabel_store.validate.rule import Rule


class Severity(StrEnum):
    """How much a finding weighs."""

    ERROR = "error"
    """The store breaks the format: labels, or what they mean, may be wrong or lost."""
    WARNING = "warning"
    """Something is not as it should be that no label depends on."""
    NOTE = "note"
    """Worth knowing, and no fault."""


@dataclass(frozen=True)
class Place:
    """Where something was found, as closely as it is known.

    Parameters
    ----------
    file
        Path below the store, ``/``-separated.
    field
        A field of a JSON document, or a column of a table.
    row, rank, cell
        Position in the store; `cell` is ``(row, col)`` of the grid.
    """

    file: str | None = None
    field: str | None = None
    row: int | None = None
    rank: int | None = None
    cell: tuple[int, int] | None = None

    def __str__(self) -> str:
        said = [
            None if self.file is None else repr(self.file),
            None if self.field is None else f"field {self.field!r}",
            None if self.row is None else f"row {self.row}",
            None if self.cell is None else f"cell ({self.cell[0]}, {self.cell[1]})",
            None if self.rank is None else f"rank {self.rank}",
        ]
        return ", ".join(text for text in said if text) or "store"

    def to_json(self) -> dict[str, Any]:
        """Return the place as JSON types, what is not known left out."""
        known = {name: value for name, value in self.__dict__.items() if value is not None}
        return {**known, "cell": list(self.cell)} if self.cell is not None else known


@dataclass(frozen=True)
class Problem:
    """What a check found at one place, or at several that are alike.

    Parameters
    ----------
    found, expected
        What is there, and what the rule asks for: phrases that make one sentence with the place in front.
    advice
        What to do about it; empty where there is nothing but what the report says anyway.
    count
        How many places it stands for, of which `place` is the first.
    """

    place: Place
    found: str
    expected: str
    advice: str = ""
    count: int = 1


@dataclass(frozen=True)
class Finding:
    """A problem, and the rule that it breaks."""

    rule: Rule
    problem: Problem

    @property
    def message(self) -> str:
        """The whole in one line: where, what was found, what was expected, what to do."""
        problem = self.problem
        advice = f"; {problem.advice}" if problem.advice else ""
        text = f"{problem.place}: {problem.found}, expected {problem.expected}{advice}"
        # What a file says of itself may be meant for the terminal that shows it.
        return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)

    def to_json(self) -> dict[str, Any]:
        """Return what was found as JSON types, without the rule."""
        problem = self.problem
        return {
            "place": problem.place.to_json(),
            "found": problem.found,
            "expected": problem.expected,
            "advice": problem.advice or None,
            "count": problem.count,
        }

"""The report of a validation: findings by rule, counted in full and kept in part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from relabel_store.validate.finding import Finding, Severity
from relabel_store.validate.rule import Level, Rule

KEPT = 20  # findings of one rule; a store can break it in every cell of a million rows


@dataclass(frozen=True)
class Group:
    """The findings of one rule.

    Parameters
    ----------
    count
        How many places break the rule.
    findings
        The first of them, at most `KEPT`.
    """

    rule: Rule
    count: int
    findings: tuple[Finding, ...]

    @property
    def is_error(self) -> bool:
        """Whether a store is invalid because of it."""
        return self.rule.severity is Severity.ERROR

    def to_json(self) -> dict[str, Any]:
        """Return the group as JSON types."""
        return {
            "id": self.rule.id,
            "severity": self.rule.severity.value,
            "level": self.rule.level.value,
            "rule": self.rule.holds,
            "sentences": list(self.rule.sentences),
            "count": self.count,
            "first": [finding.to_json() for finding in self.findings],
        }


@dataclass(frozen=True)
class Skipped:
    """What was not checked, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Report:
    """What a validation has to say of a store.

    Parameters
    ----------
    location
        Path or URL, as it was given.
    name, state, digest
        Of the store; None where they cannot be told. The digest is the identity of a finished store.
    levels
        That were looked at.
    groups
        By id.
    files
        Every file about which an error was found, sorted: all of them, unlike `findings`.
    skipped
        What could not be checked because of what was found, or because nobody recorded it.
    """

    location: str
    name: str | None
    state: str | None
    digest: str | None
    levels: tuple[Level, ...]
    groups: tuple[Group, ...]
    files: tuple[str, ...]
    skipped: tuple[Skipped, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings that were kept, of every rule."""
        return tuple(finding for group in self.groups for finding in group.findings)

    @property
    def ids(self) -> tuple[str, ...]:
        """Which rules are broken."""
        return tuple(group.rule.id for group in self.groups)

    def count(self, severity: Severity) -> int:
        """Return the number of places where rules of a severity are broken."""
        return sum(group.count for group in self.groups if group.rule.severity is severity)

    def has_errors(self, *, strict: bool = False) -> bool:
        """Tell whether the store is invalid.

        Parameters
        ----------
        strict
            Count warnings as errors.
        """
        return bool(self.count(Severity.ERROR) or (strict and self.count(Severity.WARNING)))

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types: the document of ``schemas/validate-v1.schema.json``."""
        return {
            "store": self.location,
            "name": self.name,
            "state": self.state,
            "digest": self.digest,
            "is_valid": not self.has_errors(),
            "levels": [level.value for level in self.levels],
            "counts": {severity.value: self.count(severity) for severity in Severity},
            "findings": [group.to_json() for group in self.groups],
            "files": list(self.files),
            "skipped": [{"what": skipped.what, "why": skipped.why} for skipped in self.skipped],
        }


@dataclass
class Findings:
    """Findings as they come in: memory stays the same however many there are."""

    _counts: dict[Rule, int] = field(default_factory=dict)
    _kept: dict[Rule, list[Finding]] = field(default_factory=dict)
    _skipped: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    """Files about which an error was found."""
    spoiled: set[str] = field(default_factory=set)
    """Those of them that are not judged any further."""

    def add(self, findings: Iterable[Finding]) -> None:
        """Take findings in."""
        for finding in findings:
            rule, place = finding.rule, finding.problem.place
            self._counts[rule] = self._counts.get(rule, 0) + finding.problem.count
            kept = self._kept.setdefault(rule, [])
            if len(kept) < KEPT:
                kept.append(finding)
            if place.file is not None and rule.severity is Severity.ERROR:
                self.files.add(place.file)
                if rule.spoils:
                    self.spoiled.add(place.file)

    def skip(self, what: str, why: str) -> None:
        """Note that something is not checked; the first reason stands."""
        self._skipped.setdefault(what, why)

    @property
    def groups(self) -> tuple[Group, ...]:
        """By id."""
        return tuple(
            Group(rule, count, tuple(self._kept[rule]))
            for rule, count in sorted(self._counts.items(), key=lambda item: item[0].id)
        )

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """In the order of their notes."""
        return tuple(Skipped(what, why) for what, why in self._skipped.items())

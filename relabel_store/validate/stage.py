"""Stages: the levels of a validation, each of which adds to one set of findings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from relabel_store.validate.evidence import Evidence
    from relabel_store.validate.report import Findings
    from relabel_store.validate.rule import Level


class ValidationObserver:
    """What a validation tells while it runs; every method may be overridden, none has to be."""

    def on_start(self, *, level: Level, parts: int) -> None:
        """A level begins that goes through so many parts."""

    def on_part(self) -> None:
        """One of them is done."""


class Stage(Protocol):
    """A level of a validation, with whatever it needs besides the store: images, a teacher."""

    @property
    def level(self) -> Level:
        """Which it is."""

    def run(self, evidence: Evidence, findings: Findings, observer: ValidationObserver) -> None:
        """Look at a store and add what is found."""

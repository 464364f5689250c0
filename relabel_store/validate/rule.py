"""Rules: what must hold of a store, each with the one function that checks it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, ParamSpec

from relabel_store.validate.finding import Finding, Problem, Severity

P = ParamSpec("P")


class Level(StrEnum):
    """How deep a validation looks."""

    STRUCTURE = "structure"
    """Seconds: documents, names, sizes and the sample table."""
    CONTENT = "content"
    """Every byte is read once, and every label looked at."""
    IMAGES = "images"
    """Every image is read once, and compared with what is recorded of it."""
    SENSE = "sense"
    """Whether labels can be what they claim: evidence, where the other levels have proof."""
    TEACHER = "teacher"
    """Some samples are labelled again, and compared."""


@dataclass(frozen=True)
class Rule:
    """What must hold.

    Parameters
    ----------
    id
        ``RS`` and three digits, the first of which is the subject. It never changes its meaning.
    holds
        The rule as a sentence.
    sentences
        The sentences of ``docs/reference/format-v1.md`` that it enforces.
    spoils
        Whether a file that breaks it cannot be judged any further.
    """

    id: str
    severity: Severity
    level: Level
    holds: str
    sentences: tuple[str, ...] = ()
    spoils: bool = False


class Check(Generic[P]):
    """A rule and what finds where it is broken.

    A call gives findings; the function itself yields problems, which know nothing of ids.
    """

    def __init__(self, rule: Rule, find: Callable[P, Iterator[Problem]]) -> None:
        self.rule = rule
        self._find = find

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[Finding]:
        """Yield what breaks the rule."""
        for problem in self._find(*args, **kwargs):
            yield Finding(self.rule, problem)


CHECKS: dict[str, Check[Any]] = {}
"""Every check whose module was imported, by id; `catalog.all_checks` imports them all."""


def check(
    rule_id: str,
    *sentences: str,
    level: Level = Level.STRUCTURE,
    severity: Severity = Severity.ERROR,
    spoils: bool = False,
) -> Callable[[Callable[P, Iterator[Problem]]], Check[P]]:
    """Register a function as the check of a rule, which its docstring states as a sentence.

    Parameters
    ----------
    sentences
        Of the format that the rule enforces, such as ``"F60"``.
    level, severity, spoils
        As for `Rule`.
    """

    def register(find: Callable[P, Iterator[Problem]]) -> Check[P]:
        holds = " ".join((inspect.getdoc(find) or "").split("\n\n")[0].split())
        if not re.fullmatch(r"RS\d{3}", rule_id) or rule_id in CHECKS or not holds:
            raise ValueError(f"check {rule_id!r}: expected an id such as 'RS201' of its own, and a docstring")
        made = Check(Rule(rule_id, severity, level, holds, sentences, spoils), find)
        CHECKS[rule_id] = made
        return made

    return register

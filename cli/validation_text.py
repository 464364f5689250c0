"""What a validation found, as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relabel_store.validate.report import Group, Report

_SHOWN = 3  # places of one rule; `--json` has more


def render(report: Report) -> str:
    """Return a report as text."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield f"{report.location}: {_verdict(report)}"
    for group in report.groups:
        yield ""
        yield from _group_lines(group)
    if report.skipped:
        yield ""
        yield "not checked:"
        for skipped in report.skipped:
            yield f"  {skipped.what}: {skipped.why}"


def _verdict(report: Report) -> str:
    from relabel_store.validate.finding import Severity

    counts = {severity: report.count(severity) for severity in Severity}
    said = [_count(n, severity.value) for severity, n in counts.items() if n]
    levels = ", ".join(level.value for level in report.levels)
    state = ", still being built" if report.state == "building" else ""
    if report.has_errors():
        return f"not valid{state}: {', '.join(said)} ({levels})"
    return f"valid{': ' + ', '.join(said) if said else ''} ({levels})"


def _group_lines(group: Group) -> Iterator[str]:
    rule = group.rule
    sentences = f" [{', '.join(rule.sentences)}]" if rule.sentences else ""
    yield f"{rule.severity.value} {rule.id}{sentences}: {rule.holds}"
    shown = group.findings[:_SHOWN]
    for finding in shown:
        yield f"  {finding.message}"
    more = group.count - sum(finding.problem.count for finding in shown)
    if more:
        yield f"  and {more:,} more"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"

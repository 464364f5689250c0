"""What a conversion did, as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .words import byte_count, count, duration

if TYPE_CHECKING:
    from relabel_store.convert.run import ConversionReport

_LISTED = 20  # samples without a label


def conversion_report(report: ConversionReport) -> str:
    """Return what a conversion did."""
    rate = report.samples / max(report.seconds, 1e-9)
    size = "" if report.size_bytes is None else f", {byte_count(report.size_bytes)}"
    lines = [
        f"{report.location}: {count(report.samples, 'sample')} from {report.source_form!r} to "
        f"{report.target_form!r}{size}, {duration(report.seconds)} ({rate:,.0f} samples/s)",
        *report.notes,
    ]
    if report.without_label:
        lines.append(f"{count(len(report.without_label), 'sample')} without a label:")
        lines += [f"  {name!r}: {reason}" for name, reason in report.without_label[:_LISTED]]
        if len(report.without_label) > _LISTED:
            lines.append(f"  and {len(report.without_label) - _LISTED} more")
    return "\n".join(lines)

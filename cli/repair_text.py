"""What a repair did, as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .words import short_digest

if TYPE_CHECKING:
    from relabel_store.repair.report import RepairReport

_REMEDIES = {
    "restored": "labelled again, the same bytes",
    "relabelled": "labelled again, with other bytes",
    "dropped": "dropped, its rows have no label now",
}


def repair_report(report: RepairReport) -> str:
    """Return how a repair ended."""
    lines = [f"part {part.part}: {part.damage}: {_REMEDIES[part.remedy.value]}" for part in report.parts]
    lines += [f"{name}: made again" for name in report.files]
    if report.is_root_new:
        recorded = "none can be read" if report.digest_before is None else report.digest_before
        lines.append(
            f"complete.json was made anew from the files as they are: digest {report.digest_after}, recorded before: "
            f"{recorded}. It is no proof against changes made before the repair"
        )
    elif report.digest_before and report.digest_before != report.digest_after:
        lines.append(f"the store has another digest now, {short_digest(report.digest_after)}")
    lines += [f"still wrong: {message}" for message in report.left]
    mended = bool(report.parts or report.files)
    if report.is_whole:
        lines.append(f"{report.location}: {'repaired' if mended else 'nothing is damaged'}")
    else:
        lines.append(
            f"{report.location}: not valid; --images labels damaged parts again, --drop leaves them without labels"
        )
    return "\n".join(lines)

"""The level ``structure``: documents, names, sizes and the sample table."""

from __future__ import annotations

from dataclasses import dataclass

from relabel_store.validate import completion, files
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.report import Findings
from relabel_store.validate.rule import Level
from relabel_store.validate.stage import ValidationObserver

_CHECKS = (
    completion.check_finished,
    completion.check_completion_fields,
    completion.check_completion_digest,
    completion.check_completion_bytes,
    completion.check_listed_files,
    completion.check_parts_of_completion,
    completion.check_records_fit_list,
    files.check_nothing_missing,
    files.check_nothing_else,
)


@dataclass(frozen=True)
class StructureStage:
    """What can be told in seconds."""

    level: Level = Level.STRUCTURE

    def run(self, evidence: Evidence, findings: Findings, observer: ValidationObserver) -> None:
        """Look at everything but the label maps."""
        del observer
        for rule in _CHECKS:
            findings.add(rule(evidence))

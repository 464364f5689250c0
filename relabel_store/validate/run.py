"""validate_store: everything that the format asks for, checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from relabel_store.errors import OptionError
from relabel_store.store.files import StoreFiles
from relabel_store.store.location import is_url, open_files
from relabel_store.validate.content import ContentStage
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.report import Findings, Report
from relabel_store.validate.rule import Level
from relabel_store.validate.scan import Scan
from relabel_store.validate.stage import Stage, ValidationObserver
from relabel_store.validate.structure import StructureStage, judge_foundation


def validate_store(
    location: str | os.PathLike[str] | StoreFiles,
    *,
    level: Level | str | None = None,
    stages: Sequence[Stage] = (),
    scans: Sequence[Scan] = (),
    observer: ValidationObserver | None = None,
) -> Report:
    """Return what is wrong with a store.

    Nothing in it is believed: what is damaged becomes a finding, and whatever can still be judged is.

    Parameters
    ----------
    location
        A directory, or a URL as text.
    level
        ``structure`` (seconds) or ``content`` (a full read); None is both.
    stages
        Further levels, which need more than the store; they come after these.
    scans
        What else is to look at every part while level content reads them.
    observer
        Is told of the progress.

    Raises
    ------
    StoreNotFoundError
        There is no store there.
    UnsupportedVersionError, UnknownEncodingError
        It is of a version or encoding that this release does not read.
    OptionError
        Scans, and a level that does not read the parts.
    OSError
        It cannot be read at all.
    """
    if scans and level is not None and Level(level) is not Level.CONTENT:
        raise OptionError(f"scans: level {Level(level).value!r}, expected 'content', which reads the parts")
    if isinstance(location, str | os.PathLike) and not is_url(location):
        files = open_files(Path(location).absolute())
    else:
        files = open_files(location)
    evidence, findings = Evidence(files), Findings()
    judge_foundation(evidence, findings)
    chosen = _stages_of(None if level is None else Level(level), scans)
    for stage in [*chosen, *stages]:
        stage.run(evidence, findings, observer or ValidationObserver())
    manifest = evidence.manifest
    return Report(
        location=str(location) if isinstance(location, str | os.PathLike) else files.location,
        name=None if manifest is None else manifest.name,
        state="complete" if evidence.is_finished else "building",
        digest=None if evidence.completion is None else str(evidence.completion["digest"]),
        levels=_levels_of([*chosen, *stages]),
        groups=findings.groups,
        files=tuple(sorted(findings.files)),
        skipped=findings.skipped,
    )


def _stages_of(level: Level | None, scans: Sequence[Scan]) -> list[Stage]:
    stages: list[Stage] = [StructureStage(is_alone=level is Level.STRUCTURE), ContentStage(scans)]
    return [stage for stage in stages if level is None or stage.level is level]


def _levels_of(stages: Sequence[Stage]) -> tuple[Level, ...]:
    """Return the levels that were looked at, in their order; the labels' own sense is judged with their content."""
    levels = {stage.level for stage in stages}
    if Level.CONTENT in levels:
        levels.add(Level.SENSE)
    return tuple(level for level in Level if level in levels)

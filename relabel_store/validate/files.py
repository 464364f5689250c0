"""Rules of the files of a store, by name and size; the digests of files that describe it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from relabel_store import spec
from relabel_store.store.files import FileEntry
from relabel_store.validate.completion import finished_files
from relabel_store.validate.documents import is_below
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.finding import Place, Problem
from relabel_store.validate.inventory import EMPTY_FOLDER
from relabel_store.validate.rule import check

RESTORE = "restore it from a copy, or build its part again"


def recorded_files(evidence: Evidence) -> dict[str, FileEntry]:
    """Return what is recorded of files: by ``complete.json``, or by part records while a store is being built."""
    if evidence.listed is not None:
        return dict(evidence.listed)
    found = {name: entry for record in evidence.records.values() for name, entry in record.files.items()}
    found |= {} if evidence.is_finished else evidence.begun
    return {name: entry for name, entry in found.items() if is_below(name)}


@check("RS111", "F34", "F60", spoils=True)
def check_nothing_missing(evidence: Evidence) -> Iterator[Problem]:
    """Every file that is recorded, or that the manifest calls for, is there."""
    # What a sound complete.json does not list is RS105.
    is_judged_there = evidence.manifest is None or evidence.listed is not None
    called_for = [] if is_judged_there else _called_for(evidence)
    expected: dict[str, FileEntry | None] = {**dict.fromkeys(called_for), **recorded_files(evidence)}
    for name in sorted(expected):
        if evidence.size(name) is None:
            entry = expected[name]
            what = "the file" if entry is None else f"a file of {entry.size_bytes} bytes"
            yield Problem(Place(file=name), "missing", what, RESTORE)


def _called_for(evidence: Evidence) -> Iterator[str]:
    """Yield the files that have to be there: all of a finished store; what one begins with of another."""
    if evidence.is_finished:
        one_too_many = len(evidence.inventory.sizes) + 1  # parts, so that one of them is missing
        yield from finished_files(evidence, one_too_many)
        return
    manifest, encoding = evidence.manifest, evidence.encoding
    assert manifest is not None
    assert encoding is not None
    yield from [encoding.manifest_file, encoding.samples_file, *encoding.fixed_files(manifest)]


@check("RS112", "F61", "F74", "F53")
def check_nothing_else(evidence: Evidence) -> Iterator[Problem]:
    """A finished store holds what `complete.json` lists, and an unfinished one what a build writes."""
    folders = {
        parent.as_posix() for name in recorded_files(evidence) for parent in PurePosixPath(name).parents
    }
    for name, what in evidence.inventory.others.items():
        is_of_missing = name in folders and what == EMPTY_FOLDER  # their absence is RS111
        if not is_of_missing and not _may_be_there(evidence, f"{name}/"):
            yield Problem(Place(file=name), what, "files of the store only", "move it elsewhere")
    if evidence.is_finished and evidence.listed is None:
        return  # whatever it listed
    for name in evidence.inventory.sizes:
        known = name == spec.COMPLETE_FILE or name in evidence.listed_names
        if not known and not _may_be_there(evidence, name):
            where = "as `complete.json` lists them" if evidence.is_finished else "that a build writes"
            yield Problem(Place(file=name), "a file too many", f"only files {where}", "move it elsewhere")


def _may_be_there(evidence: Evidence, name: str) -> bool:
    """Tell whether a file may be in a store that is being built, recorded or not."""
    if evidence.is_finished:
        return False
    if name.startswith(f"{spec.RUNNING_DIR}/") or f"{spec.JOURNAL_DIR}/" == name:
        return True
    is_partial = name.rpartition("/")[2].startswith(".") and name.endswith(".partial")
    if is_partial or evidence.manifest is None or evidence.encoding is None:
        return is_partial or evidence.manifest is None
    return evidence.is_of_a_build(name)


@check("RS113", "F62", spoils=True)
def check_nothing_empty(evidence: Evidence) -> Iterator[Problem]:
    """No file of a store is empty."""
    for name in sorted({spec.COMPLETE_FILE, *recorded_files(evidence)}):
        if evidence.size(name) == 0:
            yield Problem(Place(file=name), "an empty file", "what was written", RESTORE)


@check("RS114", "F51", "F60", "F64", spoils=True)
def check_sizes(evidence: Evidence) -> Iterator[Problem]:
    """Files have the size that is recorded."""
    for name, entry in sorted(recorded_files(evidence).items()):
        size = evidence.size(name)
        if size and size != entry.size_bytes:
            yield Problem(
                Place(file=name),
                f"{size} bytes",
                f"{entry.size_bytes} as recorded",
                f"it was {'cut off' if size < entry.size_bytes else 'changed'}: {RESTORE}",
            )


@check("RS115", "F60", "F64", "F53", "F54", spoils=True)
def check_digests_of_documents(evidence: Evidence) -> Iterator[Problem]:
    """Files that describe a store, all JSON and the sample table, have the SHA-256 that is recorded."""
    for name, entry in sorted(described_files(evidence).items()):
        if evidence.size(name) != entry.size_bytes:
            continue  # that is RS111, RS113 or RS114
        found = evidence.entry(name)
        if found is not None and found != entry:
            yield Problem(
                Place(file=name),
                f"SHA-256 {found.sha256[:12]}…",
                f"{entry.sha256[:12]}… as recorded",
                "it was changed after it was written: restore it from a copy",
            )


def described_files(evidence: Evidence) -> dict[str, FileEntry]:
    """Return what is recorded of the files that say something of the others."""
    return {name: entry for name, entry in recorded_files(evidence).items() if is_description(name)}


def is_description(name: str) -> bool:
    """Tell whether a file says something of the others, by its name."""
    return name.endswith(".json") or name.rpartition("/")[2] == spec.SAMPLES_FILE


OF_RECORDED = (check_nothing_missing, check_nothing_empty, check_sizes, check_digests_of_documents)

"""Rules of ``complete.json``, the root of trust: every other file is judged by what it lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from relabel_store import spec
from relabel_store.canonical import canonical_json, with_digest
from relabel_store.manifest import is_version
from relabel_store.store.journal import PartRecord, record_path
from relabel_store.validate.documents import part_record
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.finding import Place, Problem, Severity
from relabel_store.validate.rule import check

_RESTORE = "restore it from a copy"
_FILE = Place(file=spec.COMPLETE_FILE)


@check("RS101", "F60")
def check_finished(evidence: Evidence) -> Iterator[Problem]:
    """A store is finished: `complete.json` is there."""
    if evidence.is_finished:
        return
    manifest, records = evidence.manifest, evidence.records
    parts = f"{len(records)} of {manifest.num_parts} parts" if manifest else f"{len(records)} parts"
    if evidence.encoding is None and not records:
        advice = "it was lost, or not copied along: fetch it"
    elif manifest is not None and manifest.statistics is not None:
        advice = "it was lost, or the build was stopped at its last step: run the same build again"
    else:
        advice = "run the same build again to finish it"
    yield Problem(_FILE, f"missing, {parts} are recorded as built", "the commit of a finished store", advice)


@check("RS102", "F60", "F65")
def check_completion_fields(evidence: Evidence) -> Iterator[Problem]:
    """`complete.json` is a JSON object that holds `format_version`, `files`, `parts` and `digest`."""
    if evidence.completion_data is None:
        return
    document = evidence.completion_document
    if document is None:
        size = evidence.size(spec.COMPLETE_FILE)
        yield Problem(
            _FILE, f"{size} bytes that are no JSON object", "the record of a finished store", _RESTORE
        )
        return
    kinds = _FIELDS if "manifest" not in document else {**_FIELDS, "manifest": dict}
    for name, kind in kinds.items():
        if not isinstance(document.get(name), kind):
            found = f"{_kind(document[name])}" if name in document else "missing"
            yield Problem(Place(file=spec.COMPLETE_FILE, field=name), found, _JSON_KINDS[kind], _RESTORE)


_FIELDS: dict[str, type] = {"format_version": str, "files": dict, "parts": list, "digest": str}
_JSON_KINDS: dict[type, str] = {str: "text", dict: "an object", list: "a list"}


def _kind(value: Any) -> str:
    return _JSON_KINDS.get(type(value), repr(value)[:80])


@check("RS103", "F60")
def check_completion_digest(evidence: Evidence) -> Iterator[Problem]:
    """`complete.json` carries the SHA-256 of the canonical JSON of everything else in it."""
    document = evidence.completion_document
    if document is None or evidence.completion is not None:
        return
    try:
        expected = with_digest(document)["digest"]
    except ValueError as error:
        expected = f"that of its content, which has none ({error})"
    found = repr(document.get("digest"))
    yield Problem(
        Place(file=spec.COMPLETE_FILE, field="digest"),
        found if len(found) < 80 else f"{found[:80]}…",
        f"{expected}",
        "it was changed after it was written: restore it from a copy",
    )


@check("RS104", "F60")
def check_completion_bytes(evidence: Evidence) -> Iterator[Problem]:
    """`complete.json` is canonical JSON itself: one store, one sequence of bytes."""
    if evidence.completion is None or canonical_json(evidence.completion) == evidence.completion_data:
        return
    yield Problem(
        _FILE,
        f"{len(evidence.completion_data or b'')} bytes",
        f"the {len(canonical_json(evidence.completion))} of its canonical JSON",
        "it was written again by another program: restore it from a copy",
    )


@check("RS105", "F60", "F34", "F70", "F74", "F80")
def check_listed_files(evidence: Evidence) -> Iterator[Problem]:
    """`complete.json` lists size and SHA-256 of the files that the manifest calls for, and of no others."""
    if evidence.completion is None or evidence.listed is None:
        return
    files = evidence.completion.get("files")
    entries = files if isinstance(files, dict) else {}
    wrong = {name: entry for name, entry in entries.items() if name not in evidence.listed}
    if wrong:
        first = min(wrong)
        yield Problem(
            Place(file=spec.COMPLETE_FILE, field=first),
            str(wrong[first])[:120],
            "size_bytes and sha256, in 64 digits of 0 to 9 and a to f, of a file below the store",
            _RESTORE,
            count=len(wrong),
        )
    if evidence.manifest is None:
        return
    listed = set(entries)
    wanted = set(finished_files(evidence, len(listed) + 1))  # one more than could all be listed
    for name in sorted(wanted - listed):
        yield Problem(
            Place(file=spec.COMPLETE_FILE, field=name), "not listed", "an entry of that file", _RESTORE
        )
    for name in sorted(listed - wanted):
        yield Problem(
            Place(file=spec.COMPLETE_FILE, field=name),
            "listed",
            f"only files of a store of {evidence.manifest.num_parts} parts in the encoding "
            f"{evidence.manifest.encoding.name!r}",
            _RESTORE,
        )


def finished_files(evidence: Evidence, most_parts: int) -> Iterator[str]:
    """Yield the names of the files that a finished store of a manifest consists of, but for ``complete.json``.

    Parameters
    ----------
    most_parts
        How many parts to name: a manifest may claim more than could ever be listed.
    """
    manifest, encoding = evidence.manifest, evidence.encoding
    assert manifest is not None
    assert encoding is not None
    parts = range(min(manifest.num_parts, most_parts))
    for part in parts:
        yield from encoding.files_of_part(manifest, part)
    if not encoding.is_self_contained:
        yield from [encoding.manifest_file, encoding.samples_file, *encoding.fixed_files(manifest)]
        yield from map(record_path, parts)


@check("RS106", "F60", "F51")
def check_parts_of_completion(evidence: Evidence) -> Iterator[Problem]:
    """`complete.json` holds one sound record of each part, in order."""
    if evidence.completion is None or not isinstance(evidence.completion.get("parts"), list):
        return
    documents = evidence.completion["parts"]
    parts = []
    for position, document in enumerate(documents):
        record = part_record(document)
        if record is None:
            yield Problem(
                Place(file=spec.COMPLETE_FILE, field=f"parts[{position}]"),
                "no record of a part, or one whose digest is not its own",
                "the record that the part was committed with",
                _RESTORE,
            )
        else:
            parts.append(record.part)
    if evidence.manifest is None or len(parts) != len(documents):
        return
    n = evidence.manifest.num_parts
    if len(parts) != n or parts != list(range(n)):
        known = set(parts)
        first = next((part for part in range(min(n, len(parts) + 1)) if part not in known), None)
        what = "in another order, or of others" if first is None else f"not of part {first}"
        yield Problem(
            Place(file=spec.COMPLETE_FILE, field="parts"),
            f"records of {len(parts)} parts, {what}",
            f"those of parts 0 to {n - 1}, as the manifest says",
            _RESTORE,
        )


@check("RS107", "F60", "F51")
def check_records_fit_list(evidence: Evidence) -> Iterator[Problem]:
    """The part records of `complete.json` and its list give the same size and digest of a file."""
    if evidence.listed is None:
        return
    for part in sorted(evidence.records_of_completion):
        yield from _differences(evidence, evidence.records_of_completion[part])


def _differences(evidence: Evidence, record: PartRecord) -> Iterator[Problem]:
    assert evidence.listed is not None
    for name, entry in record.files.items():
        listed = evidence.listed.get(name)
        if listed is not None and listed != entry:
            yield Problem(
                Place(file=spec.COMPLETE_FILE, field=name),
                f"{entry.size_bytes} bytes of SHA-256 {entry.sha256[:12]}… in the record of part {record.part}",
                f"{listed.size_bytes} of {listed.sha256[:12]}… as listed",
                "the two are of different builds: restore it from a copy",
            )


@check("RS108", "F65")
def check_completion_version(evidence: Evidence) -> Iterator[Problem]:
    """`format_version` of `complete.json` is a version, the same as the manifest's."""
    if evidence.completion is None:
        return
    found = evidence.completion.get("format_version")
    if not isinstance(found, str):
        return  # that is RS102
    expected = None if evidence.claimed is None else evidence.claimed.format_version
    if not is_version(found) or (expected is not None and found != expected):
        yield Problem(
            Place(file=spec.COMPLETE_FILE, field="format_version"),
            repr(found)[:80],
            f"text such as {spec.FORMAT_VERSION!r}"
            if expected is None
            else f"{expected!r}, as the manifest says",
            "it is of another store, or was written by another program: restore it from a copy",
        )


@check("RS109", "F65", severity=Severity.WARNING)
def check_completion_has_no_more(evidence: Evidence) -> Iterator[Problem]:
    """`complete.json` of this version of the format holds no fields but those of the format."""
    completion = evidence.completion
    if completion is None or completion.get("format_version") != spec.FORMAT_VERSION:
        return  # a later minor version may have more
    for name in sorted(completion.keys() - {*_FIELDS, "manifest"}):
        yield Problem(
            Place(file=spec.COMPLETE_FILE, field=name[:80]),
            "a field that the format does not know",
            f"only those of format {spec.FORMAT_VERSION}",
            "no reader looks at it: keep what you add in a file beside the store",
        )


RULES = (
    check_finished,
    check_completion_fields,
    check_completion_version,
    check_completion_has_no_more,
    check_completion_digest,
    check_completion_bytes,
    check_listed_files,
    check_parts_of_completion,
    check_records_fit_list,
)

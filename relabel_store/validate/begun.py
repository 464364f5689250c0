"""The rule of ``journal/running/begun.json``, by which the manifest and the sample table of a build are judged."""

from __future__ import annotations

from collections.abc import Iterator

from relabel_store import spec
from relabel_store.manifest import State
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.finding import Place, Problem, Severity
from relabel_store.validate.rule import check

_ADVICE = (
    "nothing tells any more whether these are what the build began with: run the same build again, which compares "
    "them with its images and settings"
)


@check("RS117", "F54", severity=Severity.WARNING)
def check_begun(evidence: Evidence) -> Iterator[Problem]:
    """While a store is being built, `journal/running/begun.json` vouches for its manifest and its sample table."""
    if evidence.is_finished:
        return
    place = Place(file=spec.BEGUN_FILE)
    data, vouched = evidence.read(spec.BEGUN_FILE), evidence.vouched
    if data is None:
        # A build that only has to write `complete.json`, or a store that lost it, has no such record any more.
        if evidence.manifest is not None and evidence.manifest.state is State.BUILDING:
            yield Problem(place, "missing", "what vouches for manifest and sample table", _ADVICE)
    elif vouched is None:
        yield Problem(
            place,
            f"{len(data)} bytes that are no record of a beginning, or whose digest is not their own",
            "what vouches for manifest and sample table",
            _ADVICE,
        )
    elif evidence.encoding is not None:
        names = {evidence.encoding.manifest_file, evidence.encoding.samples_file}
        for name in sorted(names ^ vouched.keys()):
            is_known = name in names
            yield Problem(
                Place(file=spec.BEGUN_FILE, field=name),
                "not vouched for" if is_known else "vouched for",
                "an entry of that file" if is_known else "only manifest and sample table",
                _ADVICE if is_known else "it is of another store: restore it from a copy",
            )

"""Rules of the manifest: that it can be read, and that its fields fit each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from relabel_store import spec
from relabel_store.manifest import SCHEMA, Classes, Resize, State
from relabel_store.schema import schema_errors
from relabel_store.store.encodings import ENCODINGS
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.finding import Place, Problem, Severity
from relabel_store.validate.rule import check

_RESTORE = "restore it from a copy"
_SMALL_CHUNK = 64
_MOST_SCHEMA_ERRORS = 100  # of a hostile manifest with a million class names that are numbers


def _place(evidence: Evidence, field: str | None = None) -> Place:
    return Place(file=evidence.manifest_place, field=field)


@check("RS201", "F1")
def check_manifest_there(evidence: Evidence) -> Iterator[Problem]:
    """The store has a manifest."""
    place = evidence.manifest_place
    if place is None:
        if evidence.completion is not None or not evidence.is_finished:
            names = " or ".join(f"`{encoding.manifest_file}`" for encoding in ENCODINGS.values())
            yield Problem(
                Place(),
                "no manifest",
                f"one in {names}, or in `{spec.COMPLETE_FILE}`",
                "without it nobody knows what the numbers mean: restore it from a copy",
            )
    elif evidence.is_as_recorded(place) and evidence.manifest_document is None:
        where = f"the attribute {spec.MANIFEST_ATTRIBUTE!r}" if place == spec.GROUP_FILE else "a JSON object"
        yield Problem(_place(evidence), "no manifest in it", where, _RESTORE)


@check("RS202", "F1", "F3", "F10", "F11", "F15", "F18")
def check_schema(evidence: Evidence) -> Iterator[Problem]:
    """The manifest is valid against `manifest-v1.schema.json`."""
    if evidence.manifest_document is None or evidence.claimed is not None:
        return
    broken = 0
    for problem in schema_errors(evidence.manifest_document, SCHEMA):
        field, _, what = problem.partition(": ")
        broken += 1
        if broken <= _MOST_SCHEMA_ERRORS:
            yield Problem(_place(evidence, field), what, "what the schema says", _RESTORE)
    if not broken:  # half a character, which JSON can say and UTF-8 cannot
        yield Problem(_place(evidence), "text that is not Unicode", "Unicode", _RESTORE)


@check("RS203", "F2", "F3", severity=Severity.NOTE)
def check_version(evidence: Evidence) -> Iterator[Problem]:
    """Format and encoding are of a version that this release checks in full."""
    manifest = evidence.claimed
    if manifest is None:
        return
    known = {
        "format_version": (manifest.format_version, spec.FORMAT_VERSION),
        "encoding.version": (manifest.encoding.version, spec.ENCODING_VERSIONS[manifest.encoding.name]),
    }
    for field, (found, ours) in known.items():
        if found != ours:
            yield Problem(
                _place(evidence, field),
                f"version {found}",
                f"{ours}, which is all that this release checks",
                "upgrade relabel-store to check what came later",
            )


@check("RS204", "F3", "F74")
def check_encoding_place(evidence: Evidence) -> Iterator[Problem]:
    """The manifest lies where its encoding keeps it."""
    if evidence.claimed is not None and not evidence.is_manifest_in_place:
        yield Problem(
            _place(evidence, "encoding.name"),
            f"the manifest of a store in the encoding {evidence.claimed.encoding.name!r}",
            f"it in `{evidence.expected_place}`",
            "the store was put together from files of two: restore it from a copy",
        )


@check("RS205", "F10")
def check_k(evidence: Evidence) -> Iterator[Problem]:
    """`k` is at most the class count."""
    if evidence.claimed is None:
        return
    label_map = evidence.claimed.label_map
    if label_map.k > label_map.num_classes:
        yield Problem(
            _place(evidence, "label_map.k"), f"{label_map.k}", f"at most {label_map.num_classes}", _RESTORE
        )


@check("RS206", "F13")
def check_class_lists(evidence: Evidence) -> Iterator[Problem]:
    """`classes.ids` and `classes.names` have an entry for each class, and ids are unique."""
    if evidence.claimed is None:
        return
    classes, num_classes = evidence.claimed.classes, evidence.claimed.label_map.num_classes
    for name, listed in (("ids", classes.ids), ("names", classes.names)):
        if listed is not None and len(listed) != num_classes:
            yield Problem(
                _place(evidence, f"classes.{name}"), f"{len(listed)} {name}", f"{num_classes}", _RESTORE
            )
    twice = [name for name, count in Counter(classes.ids or ()).items() if count > 1]
    if twice:
        yield Problem(
            _place(evidence, "classes.ids"), f"{twice[0][:80]!r} more than once", "an id a class", _RESTORE
        )


@check("RS207", "F20")
def check_class_digest(evidence: Evidence) -> Iterator[Problem]:
    """`classes.digest` is that of the listed classes, null where none are listed."""
    if evidence.claimed is None:
        return
    classes = evidence.claimed.classes
    expected = Classes.of(classes.ids, classes.names, classes.source).digest
    if classes.digest != expected:
        yield Problem(
            _place(evidence, "classes.digest"),
            f"{classes.digest}",
            f"{expected}, of the classes as listed",
            "classes were renamed or put in another order: restore the manifest from a copy",
        )


@check("RS208", "F45")
def check_image_count(evidence: Evidence) -> Iterator[Problem]:
    """`images.count` is `num_samples`."""
    manifest = evidence.claimed
    if manifest is not None and manifest.images.count != manifest.num_samples:
        yield Problem(
            _place(evidence, "images.count"), f"{manifest.images.count}", f"{manifest.num_samples}", _RESTORE
        )


@check("RS209", "F63")
def check_state(evidence: Evidence) -> Iterator[Problem]:
    """`state` is `complete` and `statistics` are there exactly when the store is finished."""
    manifest = evidence.claimed
    if manifest is None or evidence.is_salvaged:
        return
    is_complete, has_statistics = manifest.state is State.COMPLETE, manifest.statistics is not None
    # The manifest is the last file but one to be written: without complete.json both are possible.
    if is_complete == has_statistics and (is_complete or not evidence.is_finished):
        return
    yield Problem(
        _place(evidence, "state"),
        f"{manifest.state.value!r} {'with' if has_statistics else 'without'} statistics"
        f"{f', beside `{spec.COMPLETE_FILE}`' if evidence.is_finished else ''}",
        "'complete' with statistics of a finished store, else 'building' without",
        _RESTORE,
    )


@check("RS210", "F63")
def check_statistics_add_up(evidence: Evidence) -> Iterator[Problem]:
    """The statistics of the manifest can be those of its samples, cells and classes."""
    manifest = evidence.claimed
    if manifest is None or manifest.statistics is None:
        return
    found, label_map = manifest.statistics, manifest.label_map
    cells = found.labelled * label_map.grid[0] * label_map.grid[1]
    agreement = found.agreement
    sums: list[tuple[str, bool, str, str]] = [
        (
            "labelled",
            found.labelled + found.bad_images == manifest.num_samples,
            f"{found.labelled} labelled and {found.bad_images} bad images",
            f"{manifest.num_samples} together, as there are samples",
        ),
        (
            "winning_cells",
            len(found.winning_cells) == label_map.num_classes and sum(found.winning_cells) == cells,
            f"{sum(found.winning_cells)} cells of {len(found.winning_cells)} classes",
            f"{cells} of {label_map.num_classes}",
        ),
        (
            "agreement",
            agreement is None or agreement.agreeing <= agreement.samples <= found.labelled,
            "" if agreement is None else f"{agreement.agreeing} of {agreement.samples} samples agree",
            f"at most as many as are compared, and these at most {found.labelled}",
        ),
    ]
    for field, is_right, what, expected in sums:
        if not is_right:
            yield Problem(_place(evidence, f"statistics.{field}"), what, expected, _RESTORE)


@check("RS211", "F31", "F72")
def check_chunks_divide_shards(evidence: Evidence) -> Iterator[Problem]:
    """`layout.chunk_rows` divides `layout.shard_rows`."""
    if evidence.claimed is None:
        return
    layout = evidence.claimed.layout
    if layout.shard_rows % layout.chunk_rows:
        yield Problem(
            _place(evidence, "layout.chunk_rows"),
            f"{layout.chunk_rows}",
            f"a divisor of shard_rows, {layout.shard_rows}",
            _RESTORE,
        )


@check("RS212", "F31", severity=Severity.WARNING)
def check_chunks_are_large(evidence: Evidence) -> Iterator[Problem]:
    """`layout.chunk_rows` is 64 or more unless the shard is smaller."""
    if evidence.claimed is None:
        return
    layout = evidence.claimed.layout
    if layout.chunk_rows < _SMALL_CHUNK <= layout.shard_rows:
        yield Problem(
            _place(evidence, "layout.chunk_rows"),
            f"{layout.chunk_rows}",
            f"{_SMALL_CHUNK} or more",
            "small chunks make reading slow and files large",
        )


@check("RS213", "F16", "F17", "F18")
def check_geometry(evidence: Evidence) -> Iterator[Problem]:
    """Labels that a teacher made are of whole images, and say how an image became its input."""
    manifest = evidence.claimed
    if manifest is None or manifest.build is None:
        return  # converted: what the files of others did not say is unknown
    geometry = manifest.geometry
    if geometry.resize is not Resize.SQUASH:
        yield Problem(
            _place(evidence, "geometry.resize"),
            f"{geometry.resize.value!r} of labels that a teacher made",
            f"{Resize.SQUASH.value!r}, or `build` = null where they were converted",
            _RESTORE,
        )
    unknown: dict[str, Any] = {
        name: getattr(geometry, name) for name in ("input_size", "interpolation", "mean", "std")
    }
    unknown["exif_orientation"] = None if geometry.exif_orientation != "ignored" else "ignored"
    for name, value in unknown.items():
        if value is None:
            yield Problem(
                _place(evidence, f"geometry.{name}"),
                "unknown of labels that a teacher made",
                "what was done, or `build` = null where they were converted",
                _RESTORE,
            )


RULES = (
    check_manifest_there,
    check_schema,
    check_version,
    check_encoding_place,
    check_k,
    check_class_lists,
    check_class_digest,
    check_image_count,
    check_state,
    check_statistics_add_up,
    check_chunks_divide_shards,
    check_chunks_are_large,
    check_geometry,
)

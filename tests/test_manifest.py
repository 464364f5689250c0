from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relabel_store import errors, spec
from relabel_store.canonical import canonical_json
from relabel_store.errors import ManifestError, RelabelStoreError
from relabel_store.manifest import (
    OMITTED_BY_DEFAULT,
    SCHEMA,
    AbsentRule,
    Classes,
    Compression,
    Layout,
    Manifest,
    State,
    Statistics,
)
from relabel_store.schema import load_schema
from relabel_store.testing import make_manifest

DATA = Path(__file__).parent / "data" / "manifest"
VALID = sorted((DATA / "valid").glob("*.json"))
INVALID = sorted((DATA / "invalid").glob("*.json"))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def keeps(document: Any, known: Any) -> bool:
    """Tell whether everything in one JSON document is in another, which may have more fields."""
    if isinstance(document, dict) and isinstance(known, dict):
        return all(name in known and keeps(value, known[name]) for name, value in document.items())
    return bool(document == known)


# Examples as files: adding one adds a test


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_manifest_is_read_with_all_that_it_says(path: Path) -> None:
    document = read(path)
    assert keeps(Manifest.from_dict(document).to_dict(), document)


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_manifest_survives_json(path: Path) -> None:
    manifest = Manifest.from_dict(read(path))
    assert Manifest.from_dict(json.loads(canonical_json(manifest.to_dict()))) == manifest


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_manifest_is_refused_for_its_defect(path: Path) -> None:
    example = read(path)
    with pytest.raises(RelabelStoreError, match=re.escape(example["expected"])) as caught:
        Manifest.from_dict(example["manifest"])
    assert type(caught.value) is getattr(errors, example["error"])


# The object and its JSON


@settings(max_examples=40)
@given(
    n=st.integers(1, 20),
    grid=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    classes=st.integers(1, 9).flatmap(lambda count: st.tuples(st.integers(1, count), st.just(count))),
    value_step=st.sampled_from([1.0, 0.125, 2**-10, "exact"]),
    absent=st.sampled_from(AbsentRule),
    layout=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    name=st.text(min_size=1, max_size=20),
)
def test_a_manifest_survives_json(
    n: int,
    grid: tuple[int, int],
    classes: tuple[int, int],
    value_step: float | str,
    absent: AbsentRule,
    layout: tuple[int, int],
    name: str,
) -> None:
    manifest = make_manifest(
        n,
        grid=grid,
        k=classes[0],
        num_classes=classes[1],
        value_step=value_step,
        absent=absent,
        chunk_rows=layout[0],
        shard_rows=layout[0] * layout[1],
    )
    manifest = replace(manifest, name=name)
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest


def test_the_json_of_a_manifest_holds_only_types_of_json() -> None:
    document = make_manifest().to_dict()
    assert json.loads(json.dumps(document)) == document


def test_equal_manifests_have_one_digest() -> None:
    assert make_manifest().digest() == Manifest.from_dict(make_manifest().to_dict()).digest()


def test_another_field_gives_another_digest() -> None:
    assert replace(make_manifest(), licence="MIT").digest() != make_manifest().digest()


def test_whole_numbers_written_as_floats_are_read_as_integers() -> None:
    document = make_manifest().to_dict()
    document["num_samples"] = document["images"]["count"] = 8.0  # as JavaScript and R may write it
    document["label_map"]["grid"] = [3.0, 3.0]
    manifest = Manifest.from_dict(document)
    assert isinstance(manifest.num_samples, int)
    assert all(isinstance(side, int) for side in manifest.label_map.grid)


def test_class_names_with_half_a_character_are_refused() -> None:
    document = make_manifest().to_dict()
    document["classes"]["names"][0] = "\ud800"
    with pytest.raises(ManifestError):
        Manifest.from_dict(document)


def test_a_manifest_nested_too_deep_is_refused() -> None:
    nested: Any = []
    for _ in range(900):
        nested = [nested]
    document = {**make_manifest().to_dict(), "citation": nested}
    with pytest.raises(ManifestError):
        Manifest.from_dict(document)


# Contradictions are refused however the manifest is made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"num_samples": 9}, "images.count is 8, num_samples 9", id="number of images"),
        pytest.param({"layout": Layout(4, 3)}, "no multiple of chunk_rows 3", id="chunks in a shard"),
        pytest.param(
            {"classes": Classes.of(None, ["cat"], None)}, "1 class names, expected 5", id="class names"
        ),
        pytest.param({"classes": Classes.of(["c1"], None, None)}, "1 class ids, expected 5", id="class ids"),
        pytest.param({"classes": Classes("sha256:0")}, "not that of the listed classes", id="class digest"),
        pytest.param({"state": State.COMPLETE}, "statistics are missing", id="state"),
    ],
)
def test_a_contradiction_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=f"manifest of 'made-up': .*{message}"):
        replace(make_manifest(), **changes)


def test_more_ranks_than_classes_are_refused() -> None:
    with pytest.raises(ManifestError, match="k is 6, expected at most the class count, 5"):
        make_manifest(k=6)


# What the manifest says of the parts


@pytest.mark.parametrize(
    ("n", "parts"),
    [
        (1, [range(1)]),
        (4, [range(4)]),
        (5, [range(4), range(4, 5)]),
        (8, [range(4), range(4, 8)]),
        (9, [range(4), range(4, 8), range(8, 9)]),
    ],
    ids=["one row", "one part", "one row more", "two parts", "two parts and a row"],
)
def test_parts_cover_the_rows_in_order(n: int, parts: list[range]) -> None:
    manifest = make_manifest(n)
    assert [manifest.rows_of_part(part) for part in range(manifest.num_parts)] == parts


STATISTICS = Statistics(8, 0, 0, 1.0, 0.0, 1.0, 0.0, (72, 0, 0, 0, 0), None)


def test_completing_adds_the_statistics_and_nothing_else() -> None:
    manifest = make_manifest().completed(STATISTICS)
    assert (manifest.state, manifest.statistics) == (State.COMPLETE, STATISTICS)
    assert replace(manifest, state=State.BUILDING, statistics=None) == make_manifest()


def test_reopening_undoes_completing() -> None:
    assert make_manifest().completed(STATISTICS).reopened() == make_manifest()


# Classes


def test_folders_are_matched_with_ids_where_there_are_any() -> None:
    classes = Classes.of(["n1", "n2"], ["dog", "cat"], None)
    assert classes.index_of_folder() == {"n1": 0, "n2": 1}


def test_folders_are_matched_with_names_where_there_are_no_ids() -> None:
    assert Classes.of(None, ["dog", "cat"], None).index_of_folder() == {"dog": 0, "cat": 1}


def test_no_folder_is_known_without_a_class_list() -> None:
    assert Classes.of(None, None, None).index_of_folder() == {}


def test_a_name_that_two_classes_share_matches_no_folder() -> None:
    # ImageNet has two of "crane" and of "maillot": to take either would be a guess.
    assert Classes.of(None, ["crane", "dog", "crane"], None).index_of_folder() == {"dog": 1}


@pytest.mark.parametrize(
    ("ids", "names", "expected"),
    [
        (["n1", "n2"], ["dog", "cat"], "cat"),
        (["n1", "n2"], None, "n2"),
        (None, ["dog", "cat"], "cat"),
        (None, None, "class 1"),
    ],
    ids=["both", "ids", "names", "neither"],
)
def test_a_class_is_called_what_people_call_it(
    ids: list[str] | None, names: list[str] | None, expected: str
) -> None:
    assert Classes.of(ids, names, None).name_of(1) == expected


def test_the_class_digest_is_of_the_ids_whatever_the_names() -> None:
    assert Classes.of(["n1"], ["dog"], None).digest == Classes.of(["n1"], None, "elsewhere").digest


def test_the_class_digest_depends_on_the_order() -> None:
    assert Classes.of(["a", "b"], None, None).digest != Classes.of(["b", "a"], None, None).digest


# The schema and the dataclasses describe one thing


def described_pairs() -> Iterator[tuple[str, type, dict[str, Any]]]:
    """Yield each dataclass of the manifest, with its path and its part of the schema."""
    schema = load_schema(SCHEMA)

    def walk(path: str, target: type, part: dict[str, Any]) -> Iterator[tuple[str, type, dict[str, Any]]]:
        yield path, target, part
        hints = typing.get_type_hints(target)
        for field in fields(target):
            inner = dataclass_in(hints[field.name])
            if inner is not None:
                yield from walk(f"{path}.{field.name}", inner, object_in(part["properties"][field.name]))

    return walk("$", Manifest, schema)


def dataclass_in(hint: Any) -> type | None:
    options = typing.get_args(hint) if typing.get_origin(hint) is types.UnionType else (hint,)
    return next((option for option in options if is_dataclass(option) and isinstance(option, type)), None)


def object_in(part: dict[str, Any]) -> dict[str, Any]:
    return next(option for option in part.get("anyOf", [part]) if "properties" in option)


PAIRS = pytest.mark.parametrize(
    ("target", "part"), [pytest.param(target, part, id=path) for path, target, part in described_pairs()]
)


@PAIRS
def test_every_field_is_in_the_schema_and_the_other_way_round(target: type, part: Mapping[str, Any]) -> None:
    assert sorted(field.name for field in fields(target)) == sorted(part["properties"])


@PAIRS
def test_every_field_is_required_but_for_later_ones(target: type, part: Mapping[str, Any]) -> None:
    later = {field.name for field in fields(target) if field.metadata == OMITTED_BY_DEFAULT}
    assert sorted(part["required"]) == sorted(set(part["properties"]) - later)


@PAIRS
def test_fields_of_later_minor_versions_are_allowed(target: type, part: Mapping[str, Any]) -> None:
    assert part.get("additionalProperties", True) is True


@pytest.mark.parametrize(
    ("path", "choices"),
    [
        (("state",), [state.value for state in State]),
        (("label_map", "absent"), [rule.value for rule in AbsentRule]),
        (("encoding", "name"), list(spec.ENCODING_VERSIONS)),
        (("encoding", "compression"), [compression.value for compression in Compression]),
    ],
    ids=["state", "absent", "encoding", "compression"],
)
def test_the_choices_of_the_schema_are_those_of_the_code(path: tuple[str, ...], choices: list[str]) -> None:
    part = load_schema(SCHEMA)
    for name in path:
        part = part["properties"][name]
    assert part["enum"] == choices


def test_the_axes_of_the_schema_are_those_of_the_code() -> None:
    axes = load_schema(SCHEMA)["properties"]["label_map"]["properties"]["axes"]
    assert axes == {"const": list(spec.DIMENSIONS)}


def test_what_is_written_is_of_the_current_version() -> None:
    document = make_manifest().to_dict()
    assert document["format_version"] == spec.FORMAT_VERSION
    assert document["encoding"] == {"name": "zarr", "version": "1.0"}

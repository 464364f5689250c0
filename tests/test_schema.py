from __future__ import annotations

from importlib import resources

import pytest
from jsonschema import Draft202012Validator

from relabel_store import spec
from relabel_store.schema import SCHEMAS_PACKAGE, load_schema, schema_errors
from relabel_store.testing import make_manifest

SUFFIX = ".schema.json"


def shipped_schemas() -> list[str]:
    names = [resource.name for resource in resources.files(SCHEMAS_PACKAGE).iterdir()]
    return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))


def test_the_schema_of_the_manifest_is_shipped() -> None:
    assert "manifest-v1" in shipped_schemas()


@pytest.mark.parametrize("name", shipped_schemas())
def test_a_shipped_schema_is_one_of_draft_2020_12(name: str) -> None:
    schema = load_schema(name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", shipped_schemas())
def test_a_shipped_schema_is_identified_by_its_name(name: str) -> None:
    assert load_schema(name)["$id"] == f"urn:relabel-store:{name}"


def test_a_schema_that_is_not_shipped_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="'manifest-v0': not shipped"):
        load_schema("manifest-v0")


def test_a_sound_document_breaks_nothing() -> None:
    assert list(schema_errors(make_manifest().to_dict(), "manifest-v1")) == []


def test_each_place_where_a_document_breaks_the_schema_is_a_line() -> None:
    document = make_manifest().to_dict()
    document["label_map"]["k"] = 0
    document["layout"].pop("chunk_rows")
    assert list(schema_errors(document, "manifest-v1")) == [
        "$.label_map.k: 0 is less than the minimum of 1",
        "$.layout: 'chunk_rows' is a required property",
    ]


def test_a_line_about_a_large_value_stays_short() -> None:
    document = make_manifest().to_dict()
    document["name"] = ["x" * 1000] * 1000
    (line,) = schema_errors(document, "manifest-v1")
    assert len(line) < 400


def test_the_schema_takes_the_version_that_is_written() -> None:
    major = spec.FORMAT_VERSION.split(".")[0]
    assert load_schema(f"manifest-v{major}")["title"].endswith(f"format {major}.x")

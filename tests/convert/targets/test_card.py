from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
import yaml

from relabel_store.convert.targets.card import class_names, dataset_card
from relabel_store.manifest import AbsentRule, Classes, Manifest
from relabel_store.testing import make_manifest

SCHEMA = pa.schema([pa.field("sample_id", pa.string()), pa.field("label", pa.int64())])


def head_of(manifest: Manifest, examples: int = 10) -> dict:
    card = dataset_card(manifest, SCHEMA, examples=examples, num_bytes=20, download_bytes=10)
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def test_any_text_is_yaml_as_it_was() -> None:
    name = "a: \"b\" 'c' #\n\x7f\x85\ufeff 写真 😀"
    assert head_of(replace(make_manifest(), name=name))["pretty_name"] == name


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        (None, {}),
        ("CC-BY-4.0", {"license": "cc-by-4.0"}),
        ("Ours: ask", {"license": "other", "license_name": "Ours: ask"}),
    ],
)
def test_a_licence_is_the_hub_s_or_another_by_name(licence: str | None, expected: dict[str, str]) -> None:
    head = head_of(replace(make_manifest(), licence=licence))
    assert {name: head[name] for name in head if name.startswith("license")} == expected


@pytest.mark.parametrize(
    ("examples", "category"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**7, "n>10M")]
)
def test_the_size_is_a_category_of_the_hub(examples: int, category: str) -> None:
    assert head_of(make_manifest(), examples)["size_categories"] == [category]


def test_classes_are_named_for_people_unless_two_have_one_name() -> None:
    manifest = make_manifest(num_classes=2)
    assert class_names(manifest) == ("cat", "dog")
    twice = replace(manifest, classes=Classes.of(["n1", "n2"], ["crane", "crane"], "test"))
    assert class_names(twice) == ("n1", "n2")
    assert class_names(replace(manifest, classes=Classes.of(None, ["crane", "crane"], "test"))) is None
    assert class_names(replace(manifest, classes=Classes.of(None, None, None))) is None


def test_people_are_told_what_an_absent_class_counts_as() -> None:
    card = dataset_card(
        make_manifest(absent=AbsentRule.REST), SCHEMA, examples=1, num_bytes=1, download_bytes=1
    )
    assert "each of them counts as `rest - log(5 - 2)`" in card
    assert ".reshape(2, 3, 3)" in card

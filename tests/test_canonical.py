from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel_store.canonical import canonical_json, digest_of, has_own_digest, with_digest

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
DOCUMENTS = st.dictionaries(
    st.text(),
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_size=4,
)


@given(DOCUMENTS)
def test_a_document_survives_its_bytes(document: dict[str, Any]) -> None:
    assert json.loads(canonical_json(document)) == document


@given(DOCUMENTS)
def test_the_order_of_the_keys_does_not_matter(document: dict[str, Any]) -> None:
    backwards = dict(reversed(document.items()))
    assert canonical_json(backwards) == canonical_json(document)


def test_the_bytes_are_sorted_utf8_without_spaces_and_with_a_final_newline() -> None:
    document = {"b": [1, 2.5, None, True], "a": {"é": "ü", "d": ""}}
    assert canonical_json(document) == '{"a":{"d":"","é":"ü"},"b":[1,2.5,null,true]}\n'.encode()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")], ids=str)
def test_a_number_that_json_cannot_say_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": [number]})


def test_half_a_character_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        canonical_json({"a": "\ud800"})


def test_a_digest_names_its_algorithm() -> None:
    expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_of(b"abc") == expected


@given(DOCUMENTS)
def test_a_document_with_its_digest_has_its_own(document: dict[str, Any]) -> None:
    assert has_own_digest(with_digest(document))


@given(DOCUMENTS)
def test_a_digest_does_not_cover_the_digest_before(document: dict[str, Any]) -> None:
    assert with_digest({**document, "digest": "old"}) == with_digest(document)


@pytest.mark.parametrize(
    "change",
    [{"b": 2}, {"a": 2}, {"a": 1.5}, {"a": "1"}, {"digest": "sha256:"}, {"digest": None}],
    ids=["field added", "field changed", "number changed", "type changed", "other digest", "no digest"],
)
def test_a_changed_document_has_not_its_own_digest(change: dict[str, Any]) -> None:
    assert not has_own_digest({**with_digest({"a": 1}), **change})


def test_the_document_that_gets_a_digest_stays_as_it_was() -> None:
    document = {"a": 1}
    with_digest(document)
    assert document == {"a": 1}

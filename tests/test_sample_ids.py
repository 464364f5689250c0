from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relabel_store.sample_ids import digest_of_ids, sample_id_of


@pytest.mark.parametrize(
    ("path", "sample_id"),
    [
        ("n01440764/n01440764_10026.JPEG", "n01440764/n01440764_10026"),
        ("a.b/c.d.jpg", "a.b/c.d"),
        (".jpg", ".jpg"),
        ("cat/.jpg", "cat/.jpg"),
        ("cat/cafe\u0301.png", "cat/caf\u00e9"),
        ("a b/\n\\.png", "a b/\n\\"),
    ],
)
def test_an_id_is_the_path_without_its_last_suffix_in_nfc(path: str, sample_id: str):
    assert sample_id_of(path) == sample_id


@given(ids=st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True), data=st.data())
def test_the_digest_of_ids_is_defined_and_does_not_depend_on_their_order(ids: list[str], data: st.DataObject):
    expected = hashlib.sha256()
    for sample_id in sorted(ids):
        expected.update(len(sample_id.encode()).to_bytes(8, "little"))
        expected.update(sample_id.encode())
    shuffled = data.draw(st.permutations(ids))
    assert digest_of_ids(shuffled) == "sha256:" + expected.hexdigest()


def test_ids_that_run_together_the_same_have_other_digests():
    assert digest_of_ids(["ab", "c"]) != digest_of_ids(["a", "bc"])
    assert digest_of_ids(["a\nb"]) != digest_of_ids(["a", "b"])

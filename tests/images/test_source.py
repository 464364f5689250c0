from __future__ import annotations

from relabel_store.images.source import describe_changes


def test_changes_are_named():
    assert describe_changes(["a", "b"], ["b", "a"]) is None
    assert describe_changes(["a"], ["a", "b"]) == "1 added ('b')"
    assert describe_changes(["a", "b"], ["c"]) == "1 added ('c') and 2 removed ('a', 'b')"
    assert describe_changes([], list("edcba")) == "5 added ('a', 'b', 'c', …)"

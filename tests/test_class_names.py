from __future__ import annotations

import json
from pathlib import Path

import pytest

from relabel_store.class_names import read_class_names
from relabel_store.errors import TeacherError


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("n.txt", "cat\ndog\n", "2 names, expected 3"),
        ("n.txt", "cat\ndog\ncat\n", "'cat' is there twice"),
        (
            "n.json",
            '{"ids": [], "names": []}',
            "an object with 'ids', 'names', expected a JSON list of names",
        ),
        ("n.json", "[1, 2, 3]", "a list with other things than texts, expected a JSON list of names"),
        ("n.json", "[", "expected UTF-8 text"),
        ("missing.txt", None, "No such file"),
    ],
    ids=["too few", "twice", "object", "numbers", "broken", "missing"],
)
def test_a_broken_list_of_classes_is_refused(tmp_path: Path, name: str, text: str | None, message: str):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(TeacherError, match=message):
        read_class_names(tmp_path / name, 3)


def test_classes_may_be_json(tmp_path: Path):
    (tmp_path / "n.json").write_text(json.dumps(["a, b", "c", "d"]))
    assert read_class_names(tmp_path / "n.json", 3) == ["a, b", "c", "d"]

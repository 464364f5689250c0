from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from relabel_store.errors import TeacherError
from relabel_store.generate.class_list import read_class_names
from relabel_store.generate.load import load_teacher
from relabel_store.generate.teacher_options import TeacherOptions

SMALL = "test_efficientnet"  # a few thousand parameters; timm has it for tests
Save = Callable[..., Path]


def test_classes_are_named_only_when_the_weights_are(save: Save, tmp_path: Path):
    path = save(tmp_path / "w.pth")
    tagged = load_teacher(f"{SMALL}.r160_in1k", TeacherOptions(weights=path)).facts
    assert tagged.classes.ids[:2] == ("n01440764", "n01443537")
    assert tagged.classes.names[1] == "goldfish, Carassius auratus"
    assert tagged.tag == "r160_in1k"
    anybodys = load_teacher(SMALL, TeacherOptions(weights=path)).facts
    assert (anybodys.classes.digest, anybodys.tag) == (None, None)
    own = load_teacher(
        f"{SMALL}.r160_in1k", TeacherOptions(weights=save(tmp_path / "3.pth", num_classes=3))
    ).facts
    assert own.classes.digest is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("n.txt", "cat\ndog\n", "2 names, expected 3"),
        ("n.txt", "cat\ndog\ncat\n", "'cat' is there twice"),
        ("n.json", '{"cat": 1}', "expected a list"),
        ("n.json", "[1, 2, 3]", "expected a list of names"),
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

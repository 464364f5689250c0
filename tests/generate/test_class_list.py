from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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

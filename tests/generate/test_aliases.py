from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from relabel_store.generate.aliases import ALIASES
from relabel_store.generate.load import load_teacher, planned_input_size
from relabel_store.generate.teacher import probe_grid
from relabel_store.generate.teacher_options import TeacherOptions

CPU = torch.device("cpu")


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

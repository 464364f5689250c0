from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

from relabel_store.errors import NoDenseMapError
from relabel_store.generate.aliases import ALIASES
from relabel_store.generate.load import load_teacher
from relabel_store.generate.teacher_options import TeacherOptions

Save = Callable[..., Path]


def test_a_class_token_teacher_is_refused_with_two_that_have_a_map(save: Save, tmp_path: Path):
    path = save(tmp_path / "w.pth", architecture="test_vit")
    with pytest.raises(NoDenseMapError, match="class token") as caught:
        load_teacher("test_vit", TeacherOptions(weights=path))
    near = str(caught.value).rpartition("with a dense map: ")[2].split(" or ")
    assert len(near) == 2
    assert all(name in ALIASES or name in timm.list_pretrained() for name in near)


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

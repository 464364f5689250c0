"""Teachers by name: architecture, weights and class list put together."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from relabel_store.errors import NoDenseMapError, TeacherError, UnknownTeacherError, WeightsError
from relabel_store.generate.aliases import ALIASES, Alias
from relabel_store.generate.class_list import find_classes
from relabel_store.generate.refusals import require_average, with_alternatives
from relabel_store.generate.teacher_options import HEADS, TeacherOptions, pair_of
from relabel_store.generate.timm_names import HUB, require_known, require_timm
from relabel_store.generate.weights import digest_of_state, make_model, read_weights, with_state
from relabel_store.manifest import Weights

if TYPE_CHECKING:
    from relabel_store.generate.teacher import Teacher, TeacherFacts, TeacherInput


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
    if ":" in name and not name.startswith(HUB):
        return _load_from_factory(name, options)
    return _load_from_timm(name, options)


def planned_input_size(name: str, options: TeacherOptions) -> tuple[int, int] | None:
    """Return ``(height, width)`` of a teacher's input without loading it; None when only loading would tell."""
    if options.input_size is not None:
        return pair_of(options.input_size)
    if name in ALIASES:
        return pair_of(ALIASES[name].input_size)
    if ":" in name:
        return None
    config = require_timm().get_pretrained_cfg(require_known(name))
    return None if config is None else (config.input_size[1], config.input_size[2])


def _load_from_factory(name: str, options: TeacherOptions) -> Teacher:
    from relabel_store.generate.teacher import Teacher

    given = [field for field, value in options.__dict__.items() if value is not None]
    if given:
        raise TeacherError(
            f"teacher {name!r}: {given[0]} is given, but a factory decides about its teacher itself"
        )
    module, _, factory = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), factory)):
        raise UnknownTeacherError(f"teacher {name!r}: expected module:factory, such as my_teachers:make")
    try:
        make = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError) as error:
        raise UnknownTeacherError(
            f"teacher {name!r}: {error}; expected module:factory, with the module on Python's path"
        ) from error
    if not callable(make):
        raise UnknownTeacherError(
            f"teacher {name!r}: {factory!r} is a {type(make).__name__}, expected a function that returns a teacher"
        )
    teacher = make()
    if not isinstance(teacher, Teacher):
        raise TeacherError(
            f"teacher {name!r}: the factory returned {type(teacher).__name__}, "
            "expected an object with facts, to, dense_logits and identity_error"
        )
    return teacher


def _load_from_timm(name: str, options: TeacherOptions) -> Teacher:
    timm = require_timm()
    from relabel_store.generate.teacher import TeacherFacts, TimmTeacher

    alias = ALIASES.get(name)
    timm_name = alias.timm_name if alias else require_known(name)
    model, origin = _load_model(timm, name, timm_name, alias, options)
    num_classes = int(model.num_classes)
    # A file given for a bare architecture may be anybody's; with a tag or an alias it is those weights.
    is_named = options.weights is None or alias is not None or "." in name
    facts = TeacherFacts(
        name=name,
        input=_input(timm, model, alias, options),
        num_classes=num_classes,
        classes=find_classes(model.pretrained_cfg, options.class_names, num_classes, is_named=is_named),
        weights=Weights(origin, digest_of_state(model.state_dict())),
        architecture=str(model.pretrained_cfg.get("architecture") or timm_name.split(".")[0]),
        tag=(model.pretrained_cfg.get("tag") or None) if is_named else None,
        dense_head=options.head or HEADS[0],
    )
    _set_input_size(model, facts)
    try:
        return TimmTeacher(model, facts)
    except NoDenseMapError as error:
        raise with_alternatives(error, facts.architecture) from error


def _load_model(
    timm: Any, name: str, timm_name: str, alias: Alias | None, options: TeacherOptions
) -> tuple[Any, str]:
    """Return the model with its weights, and where they came from."""
    if options.weights is not None and timm_name.startswith(HUB):
        raise WeightsError(
            f"teacher {name!r}: --weights is given, but the hub has weights and configuration in one; name timm's "
            "architecture instead"
        )
    config = None if timm_name.startswith(HUB) else timm.get_pretrained_cfg(timm_name)
    state, origin = read_weights(timm_name, alias, options.weights)
    arguments: dict[str, Any] = dict(alias.arguments) if alias else {}
    if state is not None:
        arguments |= with_state(config, state)
    elif config is not None and not config.has_weights:
        raise WeightsError(
            f"teacher {name!r}: timm has the architecture but no weights of it; give --weights FILE "
            "or a name that `relabel-store teachers` lists"
        )
    if state is None and not timm_name.startswith(HUB):
        require_average(timm, timm_name, alias.arguments if alias else {})
    model = make_model(timm, name, timm_name, arguments)
    model.pretrained_cfg.pop("state_dict", None)  # timm keeps it there, a second copy of the weights
    return model, origin


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


def _input(timm: Any, model: Any, alias: Alias | None, options: TeacherOptions) -> TeacherInput:
    from relabel_store.generate.decode import Interpolation
    from relabel_store.generate.teacher import TeacherInput

    config = timm.data.resolve_model_data_config(model)
    size = options.input_size or (
        alias.input_size if alias else (config["input_size"][1], config["input_size"][2])
    )
    found = TeacherInput(
        size=pair_of(size),
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

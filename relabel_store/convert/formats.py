"""The forms of labels that can be converted, and those that they are converted into, by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from relabel_store import spec
from relabel_store.convert.source import LabelSource, Location, SourceOptions
from relabel_store.convert.target import LabelTarget
from relabel_store.errors import LabelSourceError, OptionError

SOURCE_GROUP = "relabel_store.label_sources"
TARGET_GROUP = "relabel_store.label_targets"

# A module each. One of a source has `recognise(location) -> bool` and `open_source(location, options)`, one of a
# target `SUFFIXES` and `open_target(path)`; docs/how-to/new-format.md says what they promise. Recognised in this order.
_SOURCES: dict[str, str] = {
    "store": "relabel_store.convert.sources.stores",
    "npz": "relabel_store.convert.sources.npz",
    "npy": "relabel_store.convert.sources.npy_folder",
    "fkd": "relabel_store.convert.sources.fkd",
    "dataset-dr": "relabel_store.convert.sources.dataset_dr",
    "tinyvit": "relabel_store.convert.sources.tinyvit",
    "token-labeling": "relabel_store.convert.sources.token_labeling",
    "relabel": "relabel_store.convert.sources.relabel",
}
_TARGETS: dict[str, str] = {
    "relabel": "relabel_store.convert.targets.relabel",
    "token-labeling": "relabel_store.convert.targets.token_labeling",
    "webdataset": "relabel_store.convert.targets.webdataset",
    "tfrecord": "relabel_store.convert.targets.tfrecord",
    "hdf5": "relabel_store.convert.targets.hdf5",
    "npz": "relabel_store.convert.targets.npz",
    "huggingface": "relabel_store.convert.targets.huggingface",
}

_ENCODING_SUFFIXES = {f".{name}": name for name in spec.ENCODING_VERSIONS}


def source_names() -> list[str]:
    """Return the forms that labels can come in, those of installed plug-ins too."""
    return [*_SOURCES, *sorted(_plug_ins(SOURCE_GROUP, _SOURCES))]


def target_names() -> list[str]:
    """Return the forms that labels can be converted into, the encodings of a store first."""
    return [*spec.ENCODING_VERSIONS, *_TARGETS, *sorted(_plug_ins(TARGET_GROUP, _TARGETS))]


def recognised_form(location: Location) -> str | None:
    """Return the form of labels, None where they are of none that is known."""
    return next(_recognised(location), None)


def open_source(location: Location, name: str | None, options: SourceOptions) -> tuple[str, LabelSource]:
    """Return labels of some form, and what it is called.

    Parameters
    ----------
    name
        The form; None recognises it.

    Raises
    ------
    LabelSourceError
        It is none that is known, or the labels cannot be used as a whole.
    OptionError
        There is no such form, or one of the options means nothing for it.
    """
    if name is None:
        name = recognised_form(location)
    if name is None:
        raise LabelSourceError(_why_none(location))
    opened: LabelSource = _module(SOURCE_GROUP, _SOURCES, name).open_source(location, options)
    return name, opened


def target_named_by(location: Location) -> str:
    """Return the form that the end of a path asks for.

    Raises
    ------
    OptionError
        It asks for none.
    """
    suffix = Path(str(location).rstrip("/")).suffix.lower()
    if suffix in _ENCODING_SUFFIXES:
        return _ENCODING_SUFFIXES[suffix]
    known = dict(_ENCODING_SUFFIXES)
    for name in target_names()[len(spec.ENCODING_VERSIONS) :]:
        known.update(dict.fromkeys(_module(TARGET_GROUP, _TARGETS, name).SUFFIXES, name))
    if suffix not in known:
        raise OptionError(
            f"output {str(location)!r}: its end names no form, expected one of {', '.join(known)}; or give --to"
        )
    return known[suffix]


def target_maker(name: str) -> Callable[[Path], LabelTarget]:
    """Return what makes a target of a form, which is no encoding of a store, at a path.

    Raises
    ------
    OptionError
        There is no such form.
    """
    maker: Callable[[Path], LabelTarget] = _module(TARGET_GROUP, _TARGETS, name).open_target
    return maker


def _why_none(location: Location) -> str:
    from relabel_store.convert.sources.trees import problem_of

    what, problem = f"labels {str(location)!r}: ", problem_of(location)
    reason = "; name its form with --from" if problem is None else f": {problem.removeprefix(what)}"
    return f"{what}of none of the forms {', '.join(source_names())}{reason}"


def _recognised(location: Location) -> Iterator[str]:
    for name in source_names():
        if _module(SOURCE_GROUP, _SOURCES, name).recognise(location):
            yield name


def _plug_ins(group: str, ours: Mapping[str, str]) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group) if point.name not in ours}


def _module(group: str, ours: Mapping[str, str], name: str) -> Any:
    if name in ours:
        return importlib.import_module(ours[name])
    found = _plug_ins(group, ours).get(name)
    if found is None:
        known = source_names() if group == SOURCE_GROUP else target_names()
        raise OptionError(f"form {name!r}: is not known, expected one of {', '.join(known)}")
    return found.load()

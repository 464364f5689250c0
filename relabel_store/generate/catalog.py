"""The list of teachers that can be asked for by name."""

from __future__ import annotations

import fnmatch
from dataclasses import asdict, dataclass
from typing import Any

from relabel_store.errors import MissingDependencyError
from relabel_store.generate.aliases import ALIASES, MISLEADING


@dataclass(frozen=True)
class CatalogEntry:
    """A teacher that can be asked for by name.

    Parameters
    ----------
    timm_name
        What it is called in timm.
    input_size
        Pixels a side.
    grid
        Cells a side; None where only loading the teacher would tell.
    dense_kind
        ``exact`` or ``per-location``; None where only loading the teacher would tell.
    """

    name: str
    timm_name: str
    input_size: int
    grid: int | None
    dense_kind: str | None
    weights: str
    licence: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON types."""
        return asdict(self)


def list_teachers(pattern: str | None = None) -> list[CatalogEntry]:
    """Return our aliases, and with a pattern also the classifiers of timm that have weights.

    Parameters
    ----------
    pattern
        As file names are matched: ``*`` stands for anything. Without one, part of a name will do.

    Raises
    ------
    MissingDependencyError
        A pattern is given and timm is not installed.
    """
    aliases = [
        CatalogEntry(
            alias.name,
            alias.timm_name,
            alias.input_size,
            alias.grid,
            alias.dense_kind,
            alias.weights,
            alias.licence,
        )
        for alias in ALIASES.values()
    ]
    if pattern is None:
        return aliases
    glob = pattern if any(character in pattern for character in "*?[") else f"*{pattern}*"
    return [entry for entry in aliases if fnmatch.fnmatch(entry.name, glob)] + _from_timm(glob)


def _from_timm(glob: str) -> list[CatalogEntry]:
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            f"teachers of timm: {error.name} is not installed; pip install 'relabel-store[build]'"
        ) from error
    entries = []
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name)
        if (
            config is not None
            and fnmatch.fnmatch(name, glob)
            and config.num_classes
            and name.split(".")[0] not in MISLEADING
        ):
            size = config.input_size[-1]
            entries.append(
                CatalogEntry(name, name, size, None, None, "timm, Hugging Face hub", config.license)
            )
    return entries

"""Names that timm knows, and what it says of a model before it is made."""

from __future__ import annotations

import difflib
from typing import Any

from relabel_store.errors import MissingDependencyError, UnknownTeacherError
from relabel_store.generate.aliases import ALIASES, MISLEADING

HUB = "hf-hub:"


def require_timm() -> Any:
    """Return timm, which is loaded here.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            f"teachers: {error.name} is not installed; pip install 'relabel-store[build]'"
        ) from error
    return timm


def require_known(name: str) -> str:
    """Return a name after checking that timm, or the hub, may have it.

    Raises
    ------
    UnknownTeacherError
        timm has no such architecture, or no such weights of it; the message names what is near.
    """
    if name.startswith(HUB):
        return name
    timm = require_timm()
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

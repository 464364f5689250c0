"""The names of a teacher's classes, in order, from a file of the user's."""

from __future__ import annotations

import json
from pathlib import Path

from relabel_store.errors import TeacherError


def read_class_names(path: Path, num_classes: int | None) -> list[str]:
    """Return the classes of a file, in order.

    Parameters
    ----------
    num_classes
        How many there have to be; None takes as many as there are.

    Raises
    ------
    TeacherError
        The file cannot be read, holds another number of classes, or one of them twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise TeacherError(
            f"class names {str(path)!r}: {error}; expected UTF-8 text, one class a line"
        ) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TeacherError(
            f"class names {path.name!r}: {_described(names)}, expected a JSON list of names or ids in class order, "
            "or text with one a line"
        )
    names = [name.strip() for name in names]
    while names and not names[-1]:
        names.pop()
    if num_classes is not None and len(names) != num_classes:
        raise TeacherError(
            f"class names {path.name!r}: {len(names)} names, expected {num_classes}, the class count"
        )
    repeated = next((name for position, name in enumerate(names) if name in names[:position]), None)
    if repeated is not None:
        raise TeacherError(
            f"class names {path.name!r}: {repeated!r} is there twice; folders are matched by name"
        )
    return names


def _described(names: object) -> str:
    if isinstance(names, dict):
        return f"an object with {', '.join(map(repr, list(names)[:3]))}{', …' if len(names) > 3 else ''}"
    return (
        f"a {type(names).__name__}" if not isinstance(names, list) else "a list with other things than texts"
    )

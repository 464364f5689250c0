"""The teacher that a store records: loaded again, and shown to be the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relabel_store.errors import TeacherError, UnknownTeacherError, WeightsError
from relabel_store.generate.load import load_teacher
from relabel_store.generate.look import recorded_input
from relabel_store.generate.teacher import Teacher
from relabel_store.generate.teacher_options import TeacherOptions
from relabel_store.manifest import Manifest

_ORIGIN_FILE = "file "  # as `load` records where weights came from


def load_recorded_teacher(
    manifest: Manifest, *, teacher: str | Teacher | None = None, weights: Path | None = None
) -> Teacher:
    """Return the teacher that labelled a store.

    Parameters
    ----------
    teacher
        One that no name leads to: ``module:factory``, or the object itself. None is the recorded name.
    weights
        The file of its weights, where they came from a file.

    Raises
    ------
    TeacherError
        The store does not say which, its labels being converted; or the teacher is another one.
    WeightsError
        Its weights are others, or have to be given.
    UnknownTeacherError
        No name leads to it.
    """
    require_built(manifest)
    found = _load(manifest, teacher, weights)
    differences = list(_differences(manifest, found))
    if differences:
        raise TeacherError(
            f"teacher {found.facts.name!r}: not the one that the store records: {'; '.join(differences)}; give the "
            "teacher and the weights that it was built with"
        )
    return found


def require_built(manifest: Manifest) -> None:
    """Check that a store says how its labels were made.

    Raises
    ------
    TeacherError
        They were converted.
    """
    if manifest.build is None:
        raise TeacherError(
            f"store {manifest.name!r}: its labels were converted, not built, so nobody can make them again; convert "
            "them again, restore the files from a copy, or drop the damaged parts"
        )


def _load(manifest: Manifest, teacher: str | Teacher | None, weights: Path | None) -> Teacher:
    if teacher is not None and not isinstance(teacher, str):
        if not isinstance(teacher, Teacher):
            raise TeacherError(
                f"teacher: {type(teacher).__name__} has no facts, to, dense_logits and identity_error; expected a name "
                "or an object that has"
            )
        return teacher
    name = manifest.teacher.name if teacher is None else teacher
    if ":" in name and not name.startswith("hf-hub:"):
        return load_teacher(name, TeacherOptions(weights=weights))
    origin = manifest.teacher.weights.origin
    if weights is None and origin.startswith(_ORIGIN_FILE):
        raise WeightsError(
            f"teacher {name!r}: its weights came from the file {origin.removeprefix(_ORIGIN_FILE)!r}; give it with "
            "--weights"
        )
    shown = recorded_input(manifest)
    options = TeacherOptions(
        weights=weights,
        input_size=shown.size,
        mean=shown.mean,
        std=shown.std,
        interpolation=shown.interpolation.value,
        head=manifest.teacher.dense.head,
    )
    try:
        return load_teacher(name, options)
    except UnknownTeacherError as error:
        if teacher is not None:
            raise
        raise UnknownTeacherError(
            f"teacher {name!r}: the store records it, and no name leads to it; give it with --teacher module:factory"
        ) from error


def _differences(manifest: Manifest, teacher: Teacher) -> Iterator[str]:
    for what, recorded, found in _compared(manifest, teacher):
        if recorded != found:
            yield f"{what} {_shown(found)}, recorded {_shown(recorded)}"


def _compared(manifest: Manifest, teacher: Teacher) -> Iterator[tuple[str, Any, Any]]:
    facts, recorded = teacher.facts, manifest.teacher
    yield "weights", recorded.weights.digest, facts.weights.digest
    if recorded.weights.digest is None:  # else they are the same weights under whatever name
        yield "name", recorded.name, facts.name
        yield "classes", manifest.classes.digest, facts.classes.digest
    yield "architecture", recorded.architecture, facts.architecture
    yield "head", recorded.dense.head, facts.dense_head
    yield "class count", manifest.label_map.num_classes, facts.num_classes
    shown = recorded_input(manifest)
    for field in ("size", "interpolation", "mean", "std"):
        yield f"input {field}", getattr(shown, field), getattr(facts.input, field)


def _shown(value: Any) -> str:
    text = str(value)
    return f"{text[:19]}…" if text.startswith("sha256:") else text

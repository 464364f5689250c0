"""Every damage to a store is found by `validate_store`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relabel_store import spec
from relabel_store.errors import StoreNotFoundError, UnknownEncodingError, UnsupportedVersionError
from relabel_store.testing.damage import Damage
from relabel_store.validate.report import Report
from relabel_store.validate.run import validate_store

AMOUNTS = [
    pytest.param((2, 307), id="sample"),
    pytest.param((None, 23), id="whole matrix", marks=pytest.mark.slow),
]


def is_detected(path: Path, was: Report) -> bool:
    """Tell whether the report of a store says something else than that of the sound one, which may be unfinished."""
    try:
        report = validate_store(path)
    except (StoreNotFoundError, UnknownEncodingError, UnsupportedVersionError):
        return True  # refused as a whole, and said why
    return report.has_errors() and report.groups != was.groups


def is_scratch(damage: Damage) -> bool:
    """Tell whether only notes of a build in progress are hit, which are no part of a store."""
    return all(name.startswith(f"{spec.RUNNING_DIR}/") for name in damage.files)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_every_damage_is_found(victim: Any, tmp_path: Path, amount: tuple[int | None, int]) -> None:
    sound = validate_store(victim.path)
    missed = [
        str(damage)
        for damage in victim.damages(*amount)
        if not (damage.is_forged or is_scratch(damage))
        and not is_detected(victim.damaged(damage, tmp_path / "store"), sound)
    ]
    assert missed == []

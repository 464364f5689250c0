"""Every damage to a store is found by `validate_store`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relabel_store.errors import UnknownEncodingError, UnsupportedVersionError
from relabel_store.validate.report import Report
from relabel_store.validate.run import validate_store

AMOUNTS = [
    pytest.param((3, 251), id="sample"),
    pytest.param((None, 23), id="whole matrix", marks=pytest.mark.slow),
]


def is_detected(path: Path, was: Report) -> bool:
    """Tell whether the report of a store says more than that of the sound one, which may be that it is unfinished."""
    try:
        report = validate_store(path)
    except (UnknownEncodingError, UnsupportedVersionError):
        return True  # refused as a whole, and said why
    before = {group.rule.id: group.count for group in was.groups}
    return any(group.count > before.get(group.rule.id, 0) for group in report.groups)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_every_damage_is_found(victim: Any, tmp_path: Path, amount: tuple[int | None, int]) -> None:
    sound = validate_store(victim.path)
    missed = [
        str(damage)
        for damage in victim.damages(*amount)
        if not damage.is_forged and not is_detected(victim.damaged(damage, tmp_path / "store"), sound)
    ]
    assert missed == []

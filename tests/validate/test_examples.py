"""Every check has an example that it finds something in and one that it does not, as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from relabel_store.validate.catalog import all_checks
from relabel_store.validate.finding import Severity
from relabel_store.validate.rule import Level
from relabel_store.validate.run import validate_store

STORES = Path(__file__).parents[1] / "data" / "stores"
INVALID = sorted((STORES / "invalid").glob("*.json"))
VALID = sorted((STORES / "valid").glob("*.json"))


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_nothing_is_found_in_a_valid_store(path: Path, valid_store: Callable[[str], Path]):
    report = validate_store(valid_store(path.stem))
    assert (report.ids, report.skipped) == ((), ())


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_store_is_found_out_for_its_defect_and_nothing_else(
    path: Path, invalid_store: Callable[[Mapping[str, Any]], Path]
):
    recipe = read(path)
    report = validate_store(invalid_store(recipe))
    assert set(report.ids) == {recipe["finding"], *recipe.get("besides", ())}
    is_error = any(all_checks()[rule].rule.severity is Severity.ERROR for rule in report.ids)
    assert report.has_errors() == is_error


def test_every_check_of_files_has_an_example():
    """The others have theirs beside the tests of their levels: of images, of many labels, of other forms (RS0)."""
    of_files = (Level.STRUCTURE, Level.CONTENT)
    checks = {name for name, check in all_checks().items() if check.rule.level in of_files and name[2] != "0"}
    assert {read(path)["finding"] for path in INVALID} == checks

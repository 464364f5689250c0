"""Labels of another form, validated as they would be converted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from relabel_store.convert.formats import open_source, recognised_form
from relabel_store.convert.source import LabelSource, SourceOptions
from relabel_store.errors import LabelSourceError, ValueRangeError
from relabel_store.store.part_labels import PartLabels
from relabel_store.validate.catalog import all_checks
from relabel_store.validate.finding import Severity
from relabel_store.validate.labels import validate_labels
from relabel_store.validate.rule import Level

N, CLASSES = 300, 20


@pytest.fixture
def arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    values = -np.sort(-rng.uniform(2, 20, (N, 3, 4, 4)).astype(np.float32), axis=1)
    first = rng.integers(0, CLASSES - 2, (N, 1, 4, 4))
    indices = (first + np.arange(3)[None, :, None, None]).astype(np.uint16)
    return {
        "indices": indices,
        "values": values,
        "sample_ids": np.array([f"a/{row:04d}" for row in range(N)]),
    }


def opened(tmp_path: Path, arrays: dict[str, np.ndarray]) -> LabelSource:
    np.savez(tmp_path / "mine.npz", **arrays)  # type: ignore[arg-type]
    assert recognised_form(tmp_path / "mine.npz") == "npz"
    return open_source(tmp_path / "mine.npz", None, SourceOptions(num_classes=CLASSES))[1]


def test_every_check_of_other_forms_has_an_example() -> None:
    assert {"RS011", "RS012", "RS013"} == {name for name in all_checks() if name.startswith("RS0")}


def test_labels_that_can_be_converted_have_notes_only(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    report = validate_labels(opened(tmp_path, arrays), "mine.npz")
    assert set(report.ids) <= {"RS013"}
    assert not report.has_errors(strict=True)
    assert (report.location, report.state, report.digest) == ("mine.npz", None, None)
    assert report.levels == (Level.CONTENT, Level.SENSE)


def test_notes_are_told(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    class Noted:
        def __init__(self, source: LabelSource) -> None:
            self.manifest, self.samples, self.read_part = source.manifest, source.samples, source.read_part
            self.notes = ("their class count is a guess",)

    report = validate_labels(Noted(opened(tmp_path, arrays)), "mine.npz")
    assert report.ids == ("RS013",)
    assert report.count(Severity.NOTE) == 1
    assert "their class count is a guess" in report.findings[0].message


def test_a_label_that_cannot_be_used_is_told_with_its_row_and_reason(
    tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    arrays["values"][7, 0, 1, 1] = np.nan
    report = validate_labels(opened(tmp_path, arrays), "mine.npz")
    (group,) = [group for group in report.groups if group.rule.id == "RS011"]
    assert group.count == 1
    assert "row 7: label of 'a/0007': " in group.findings[0].message
    assert report.has_errors()


def test_labels_of_which_a_part_does_not_fit_are_told_and_the_others_judged(
    tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    source = opened(tmp_path, arrays)

    class Ragged:
        manifest = replace(source.manifest, layout=replace(source.manifest.layout, shard_rows=256))
        samples, notes = source.samples, ()

        def read_part(self, part: int) -> PartLabels:
            if part == 1:
                raise ValueRangeError("teacher score: 70000, expected less")
            rows = self.manifest.rows_of_part(part)
            read = source.read_part(0)
            some = slice(rows.start, rows.stop)
            return replace(
                read, indices=read.indices[some], values=read.values[some] * 0 + 0.5, facts=read.facts[some]
            )

    report = validate_labels(Ragged(), "mine.npz")
    assert report.ids == ("RS012", "RS807")
    assert "rows 256 to 299 cannot be used (teacher score: 70000" in report.findings[0].message
    assert report.groups[0].count == 44


def test_labels_that_make_no_sense_are_found_out_before_they_are_converted(
    tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    arrays["indices"][100:200], arrays["values"][100:200] = arrays["indices"][:100], arrays["values"][:100]
    report = validate_labels(opened(tmp_path, arrays), "mine.npz")
    (group,) = [group for group in report.groups if group.rule.severity is Severity.WARNING]
    assert group.rule.id == "RS803"
    assert "row 100: 100 of 300 labelled rows repeat an earlier one" in group.findings[0].message
    assert group.findings[0].problem.place.file is None


def test_labels_of_no_known_form_are_recognised_as_none(tmp_path: Path) -> None:
    assert recognised_form(tmp_path) is None
    with pytest.raises(LabelSourceError):
        open_source(tmp_path, None, SourceOptions())

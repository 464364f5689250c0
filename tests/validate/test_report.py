from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import jsonschema
import pytest

from relabel_store.schema import load_schema
from relabel_store.validate.finding import Finding, Place, Problem, Severity
from relabel_store.validate.report import KEPT, Findings, Report
from relabel_store.validate.rule import Level, Rule

BAD = Rule("RS999", Severity.ERROR, Level.CONTENT, "Numbers are small.", ("F1",))
FATAL = Rule("RS998", Severity.ERROR, Level.STRUCTURE, "Files are there.", (), spoils=True)
DOUBTFUL = Rule("RS100", Severity.WARNING, Level.STRUCTURE, "Numbers are round.")
NOTE = Rule("RS101", Severity.NOTE, Level.STRUCTURE, "Numbers are known.")


def found(rule: Rule, n: int = 1, count: int = 1, file: str | None = "a") -> Iterator[Finding]:
    for row in range(n):
        yield Finding(rule, Problem(Place(file=file, row=row, cell=(1, 2)), "9", "1", "mend it", count))


def report_of(*findings: Iterator[Finding]) -> Report:
    collected = Findings()
    for some in findings:
        collected.add(some)
    collected.skip("labels", "no manifest")
    files = tuple(sorted(collected.files))
    return Report("s", None, "complete", None, (Level.CONTENT,), collected.groups, files, collected.skipped)


def test_findings_of_a_rule_are_counted_in_full_and_kept_in_part():
    report = report_of(found(BAD, 1000, count=7))
    (group,) = report.groups
    assert group.count == 7000
    assert [finding.problem.place.row for finding in group.findings] == list(range(KEPT))
    assert report.count(Severity.ERROR) == 7000


def test_groups_are_in_order_of_their_ids():
    assert report_of(found(BAD), found(DOUBTFUL), found(FATAL)).ids == ("RS100", "RS998", "RS999")


def test_memory_does_not_grow_with_the_number_of_findings():
    collected = Findings()
    collected.add(found(BAD, KEPT))
    tracemalloc.start()
    collected.add(found(BAD, 20_000))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 20_000


@pytest.mark.parametrize(
    ("rules", "is_error", "is_strict_error"),
    [
        ([], False, False),
        ([NOTE], False, False),
        ([DOUBTFUL, NOTE], False, True),
        ([BAD], True, True),
    ],
    ids=["nothing", "a note", "a warning", "an error"],
)
def test_errors_make_a_store_invalid_and_warnings_where_it_is_strict(
    rules: list[Rule], is_error: bool, is_strict_error: bool
):
    report = report_of(*map(found, rules))
    assert report.has_errors() is is_error
    assert report.has_errors(strict=True) is is_strict_error


def test_files_with_errors_are_all_listed():
    names = [f"indices/c/{part}" for part in range(100)]
    report = report_of(
        *(found(BAD, file=name) for name in names), found(DOUBTFUL, file="z"), found(BAD, file=None)
    )
    assert report.files == tuple(sorted(names))


def test_only_rules_that_spoil_a_file_keep_others_from_it():
    collected = Findings()
    collected.add(found(FATAL, file="gone"))
    collected.add(found(BAD, file="odd"))
    assert collected.spoiled == {"gone"}


def test_the_first_reason_for_skipping_stands():
    collected = Findings()
    collected.skip("labels", "first")
    collected.skip("labels", "second")
    assert [(skipped.what, skipped.why) for skipped in collected.skipped] == [("labels", "first")]


def test_the_document_keeps_to_its_schema():
    document = report_of(found(BAD, 30), found(DOUBTFUL, file=None), found(NOTE)).to_json()
    jsonschema.validate(document, load_schema("validate-v1"))
    assert document["counts"] == {"error": 30, "warning": 1, "note": 1}
    assert document["findings"][-1]["first"][2]["place"] == {"file": "a", "row": 2, "cell": [1, 2]}


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (Place(), "store"),
        (Place(file="a/b", field="x.y"), "'a/b', field 'x.y'"),
        (Place(file="a", row=3, rank=1, cell=(0, 2)), "'a', row 3, cell (0, 2), rank 1"),
        (Place(file="a\nb"), r"'a\nb'"),
    ],
    ids=["nowhere", "a field", "a number", "a name with a line break"],
)
def test_a_place_reads_from_large_to_small(place: Place, text: str):
    assert str(place) == text


def test_a_message_gives_a_terminal_nothing_to_obey():
    problem = Problem(Place(), "\x1b[2J\nok é \u202e\ud800", "1")
    assert Finding(BAD, problem).message == r"store: \x1b[2J\nok é \u202e\ud800, expected 1"


def test_a_message_is_one_sentence():
    (finding,) = found(BAD)
    assert finding.message == "'a', row 0, cell (1, 2): 9, expected 1; mend it"

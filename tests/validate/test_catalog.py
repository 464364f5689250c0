"""Checks in the code, sentences in the format's page and the table of checks say the same."""

from __future__ import annotations

import re
from pathlib import Path

from relabel_store.validate.catalog import all_checks, render_page
from relabel_store.validate.finding import Severity
from relabel_store.validate.rule import Level, Rule

DOCS = Path(__file__).parents[2] / "docs" / "reference"


def sentences() -> dict[str, str]:
    """The numbered paragraphs of the format."""
    page = (DOCS / "format-v1.md").read_text(encoding="utf-8")
    found = re.findall(r"^- \*\*(F\d+)\*\* (.*?)(?=\n- \*\*|\n\n|\n#|\Z)", page, re.DOTALL | re.MULTILINE)
    return {number: " ".join(text.split()) for number, text in found}


def rules_of_the_format() -> list[Rule]:
    """The rules of what a store must be; others ask what it is worth, or are of labels that are no store (RS0)."""
    rules = [check.rule for check in all_checks().values() if not check.rule.id.startswith("RS0")]
    return [rule for rule in rules if rule.level in (Level.STRUCTURE, Level.CONTENT)]


def checks_of(text: str) -> set[str]:
    return set(re.findall(r"\bRS\d{3}\b", text))


def test_the_page_has_its_sentences():
    assert len(sentences()) > 40
    assert sum(text.count("MUST") for text in sentences().values()) > 50


def test_a_sentence_names_the_checks_that_enforce_it():
    enforced = {number: set[str]() for number in sentences()}
    for check in all_checks().values():
        for number in check.rule.sentences:
            enforced[number].add(check.rule.id)
    assert {number: checks_of(text) for number, text in sentences().items()} == enforced


def test_what_must_be_has_a_check_or_says_whom_it_binds():
    unchecked = [
        number
        for number, text in sentences().items()
        for clause in re.split(r"(?<=[.;]) ", text)
        if "MUST" in clause and not checks_of(text) and not re.search(r"\*\((reader|writer)\)\*", clause)
    ]
    assert unchecked == []


def test_every_check_enforces_a_sentence_but_the_one_that_protects_who_checks():
    assert [rule.id for rule in rules_of_the_format() if not rule.sentences] == ["RS604"]


def test_what_the_format_demands_of_a_store_is_an_error():
    """A later version is no fault, no label depends on the digest of the ids, and three say what SHOULD be."""
    softer = {rule.id for rule in rules_of_the_format() if rule.severity is not Severity.ERROR}
    assert softer == {"RS109", "RS117", "RS203", "RS212", "RS414"}


def test_the_page_of_checks_is_made_from_the_code():
    assert (DOCS / "checks.md").read_text(encoding="utf-8") == render_page(), "run `make docs`"


def test_a_check_says_what_holds_in_a_sentence():
    for check in all_checks().values():
        assert re.fullmatch(r"[A-Z`].*\.", check.rule.holds), check.rule
        assert "|" not in check.rule.holds

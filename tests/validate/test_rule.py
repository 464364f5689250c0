from __future__ import annotations

from collections.abc import Iterator

import pytest

from relabel_store.validate.finding import Finding, Place, Problem, Severity
from relabel_store.validate.rule import CHECKS, Level, check


@pytest.fixture
def no_checks() -> Iterator[None]:
    before = dict(CHECKS)
    CHECKS.clear()
    yield
    CHECKS.clear()  # of those that the test made, too
    CHECKS.update(before)


def find(n: int) -> Iterator[Problem]:
    """Numbers are
    small.

    Parameters
    ----------
    n
        One.
    """
    if n > 1:
        yield Problem(Place(), f"{n}", "at most 1")


def test_a_check_gives_findings_of_its_rule(no_checks: None):
    made = check("RS999", "F1", level=Level.CONTENT, severity=Severity.WARNING, spoils=True)(find)
    assert list(made(1)) == []
    assert list(made(2)) == [Finding(made.rule, Problem(Place(), "2", "at most 1"))]
    assert {"RS999": made} == CHECKS
    rule = made.rule
    assert (rule.id, rule.sentences, rule.level) == ("RS999", ("F1",), Level.CONTENT)
    assert (rule.severity, rule.spoils, rule.holds) == (Severity.WARNING, True, "Numbers are small.")


def test_an_id_belongs_to_one_check(no_checks: None):
    check("RS999")(find)
    with pytest.raises(ValueError, match="check 'RS999': expected an id such as 'RS201' of its own"):
        check("RS999")(find)


@pytest.mark.parametrize("rule_id", ["RS1", "RS12345", "XX123", "rs123", ""])
def test_an_id_has_three_digits(no_checks: None, rule_id: str):
    with pytest.raises(ValueError, match="expected an id"):
        check(rule_id)(find)


def test_a_check_says_what_it_checks(no_checks: None):
    with pytest.raises(ValueError, match="and a docstring"):
        check("RS999")(lambda: iter(()))

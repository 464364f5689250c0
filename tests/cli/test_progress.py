from __future__ import annotations

import sys
from io import StringIO

import pytest
from relabel_store.cli.progress import show_validation

from relabel_store.validate.rule import Level


class Terminal(StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("is_quiet", "is_shown"), [(False, True), (True, False)], ids=["loud", "quiet"])
def test_the_parts_of_a_validation_are_counted_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, is_quiet: bool, is_shown: bool
):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with show_validation(is_quiet=is_quiet) as observer:
        observer.on_start(level=Level.CONTENT, parts=3)
        observer.on_part()
        observer.on_part()
    assert ("content" in terminal.getvalue()) is is_shown
    assert ("2/3" in terminal.getvalue()) is is_shown


def test_nothing_is_shown_where_stderr_is_a_file(monkeypatch: pytest.MonkeyPatch):
    file = StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with show_validation(is_quiet=False) as observer:
        observer.on_start(level=Level.CONTENT, parts=3)
        observer.on_part()
    assert file.getvalue() == ""

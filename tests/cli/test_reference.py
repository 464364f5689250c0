from __future__ import annotations

from pathlib import Path

from relabel_store.cli.reference import render_page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"


def test_the_page_of_commands_is_what_they_say_of_themselves():
    assert PAGE.read_text(encoding="utf-8") == render_page(), "run `make docs`"

"""What the documentation says is there, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relabel_store.store.reader import open_store

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_python_example_compiles(page: Path):
    for block in code_blocks(page, "python"):
        compile(block, str(page), "exec")


def test_the_tutorial_runs_on_the_demo_and_says_what_comes_out(demo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(demo.parent)
    names: dict[str, object] = {}
    blocks = code_blocks(ROOT / "docs" / "tutorials" / "first-store.md", "python")
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    compared = 0
    for line in "\n".join(blocks).splitlines():
        expression, _, said = line.partition("  # ")
        if said[:1] and said[:1] in "('0123456789":
            found = eval(expression.split(" = ")[-1], names)
            assert found == eval(said), line
            compared += 1
    assert compared == 6


def test_the_picture_in_the_readme_is_of_the_demo(demo: Path):
    assert (demo / "pictures" / "coffee.png").exists()
    assert "docs/images/coffee.png" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert open_store(demo / "labels.zarr").grid == (7, 7)

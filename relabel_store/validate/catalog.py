"""All checks, and the table of them in the documentation."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from relabel_store.validate import content, image_rules, labels, sense_rules, structure, teacher
from relabel_store.validate.rule import CHECKS, Check, Level

_MODULES = (
    content,
    image_rules,
    labels,
    sense_rules,
    structure,
    teacher,
)  # import every module that has checks

_HEAD = """# Checks

What `relabel-store validate` looks at ([how to](../how-to/validate.md)). Made from the code by `make docs`; a test
compares the two. An id never changes its meaning. The sentences are those of the [format](format-v1.md).
"""
_COSTS = {
    Level.STRUCTURE: "Seconds: documents, names, sizes and the sample table are read.",
    Level.CONTENT: "A full read: every byte is compared with its digest, and every label looked at.",
    Level.IMAGES: "With `--images`: every image is read and hashed once, at the speed of the disk or the network.",
    Level.SENSE: "Of labels alone with the content, at little cost; with `--images` 200 photos are decoded small too.",
    Level.TEACHER: "With `--recompute N`: the teacher is loaded, and labels N samples as it does in a build.",
}


def all_checks() -> Mapping[str, Check[Any]]:
    """Return every check by id."""
    assert _MODULES
    return dict(sorted(CHECKS.items()))


def render_page() -> str:
    """Return the table of checks as Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield _HEAD
    for level in Level:
        yield f"## Level `{level.value}`\n"
        yield f"{_COSTS[level]}\n"
        yield "| id | severity | what holds | sentences |"
        yield "| --- | --- | --- | --- |"
        for check in all_checks().values():
            rule = check.rule
            if rule.level is level:
                yield f"| {rule.id} | {rule.severity.value} | {rule.holds} | {', '.join(rule.sentences)} |"
        yield ""


if __name__ == "__main__":
    sys.stdout.write(render_page())

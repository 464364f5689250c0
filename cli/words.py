"""Numbers, sizes, durations and tables as text."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table


def field_lines(fields: Iterable[tuple[str, str]]) -> list[str]:
    """Return lines of names and texts, the texts one below the other."""
    return [f"  {name:<10} {text}" for name, text in fields]


def count(n: int, noun: str, plural: str | None = None) -> str:
    """Return a number of things in words, such as ``1 image`` or ``1,200 images``."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def byte_count(size_bytes: int) -> str:
    """Return a number of bytes in words, in powers of 1,000."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def short_digest(digest: str | None) -> str:
    """Return the beginning of a digest."""
    return "digest unknown" if digest is None else digest[:19] + "…"


def duration(seconds: float) -> str:
    """Return a duration in words, in the largest unit of which there are two."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def table_text(table: Table) -> str:
    """Return a table as lines without trailing blanks."""
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())

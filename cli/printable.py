"""Texts of strangers on a terminal of ours."""

from __future__ import annotations

# What could rewrite what a terminal shows, "valid" where it said something else: texts in a store may be a stranger's.
_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in ("\n", "\t")
}


def printable(text: str) -> str:
    """Return a text as it may be written to a terminal: control characters, which command it, as escapes."""
    return text.translate(_CONTROLS)

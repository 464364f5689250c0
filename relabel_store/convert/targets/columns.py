"""The sample table as NumPy arrays, for formats that know neither nulls nor text of any length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

UNKNOWN = -1
"""Where a class index or a size is not known."""

NUMBERS = ("class_index", "width", "height")
TEXTS = ("sample_id", "path", "class_name", "sha256", "status")  # empty where not known

_FACT_WIDTHS = {"sha256": 64, "status": 9}  # ASCII that is there only once a part is written


def numbers_of(samples: pa.Table, name: str) -> NDArray[np.int32]:
    """Return a column of integers."""
    return np.asarray(samples[name].fill_null(UNKNOWN).to_numpy(), np.int32)


def texts_of(samples: pa.Table, name: str) -> list[str]:
    """Return a column of text."""
    return ["" if text is None else text for text in samples[name].to_pylist()]


def text_widths(samples: pa.Table, *, is_utf8: bool) -> dict[str, int]:
    """Return how wide each column of text has to be.

    Parameters
    ----------
    samples
        All of a store's, with or without facts.
    is_utf8
        Count bytes of UTF-8 rather than characters.
    """

    def width(text: str) -> int:
        return len(text.encode() if is_utf8 else text)

    found: dict[str, int] = {}
    for name in TEXTS:
        found[name] = _FACT_WIDTHS.get(name) or max(1, *map(width, texts_of(samples, name)))
    return found


def text_array(texts: list[str], width: int, *, is_utf8: bool) -> NDArray[Any]:
    """Return texts of a fixed width: ``U`` of NumPy, or UTF-8 padded with NUL."""
    if is_utf8:
        return np.array([text.encode() for text in texts], f"S{width}")
    return np.array(texts, f"<U{width}")

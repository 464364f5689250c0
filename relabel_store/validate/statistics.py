"""The rule that a manifest's statistics are those of its labels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from typing import Any

from relabel_store.manifest import Manifest
from relabel_store.store.statistics import Counts
from relabel_store.validate.finding import Place, Problem
from relabel_store.validate.rule import Level, check


@check("RS621", "F63", level=Level.CONTENT)
def check_statistics(manifest: Manifest, place: Place, counts: Counts) -> Iterator[Problem]:
    """The statistics of the manifest are those of the stored labels."""
    recorded = manifest.statistics
    assert recorded is not None
    counted = counts.summary(bad_images=recorded.bad_images, exif_oriented=recorded.exif_oriented)
    for name, found in recorded.__dict__.items():
        expected = counted.__dict__[name]
        if not _is_same(found, expected):
            yield Problem(
                Place(file=place.file, field=f"statistics.{name}"),
                _short(found),
                f"{_short(expected)} as counted",
                "labels or statistics are of another build: restore the store from a copy",
            )


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return bool(one == other)


def _short(value: Any) -> str:
    text = str(asdict(value) if is_dataclass(value) and not isinstance(value, type) else value)
    return text if len(text) <= 60 else f"{text[:60]}…"

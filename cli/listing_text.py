"""Lists of teachers and of materialized stores as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from .words import byte_count, count, table_text

if TYPE_CHECKING:
    from relabel_store.generate.catalog import CatalogEntry
    from relabel_store.store.cache import CacheEntry

_DIGEST_DIGITS = 12


def teachers(entries: Sequence[CatalogEntry]) -> str:
    """Return a table of teachers."""
    table = Table(box=None, pad_edge=False, header_style="")
    for heading in ("NAME", "TIMM", "INPUT", "GRID", "DENSE MAP", "LICENCE", "WEIGHTS"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "WEIGHTS")
    for entry in entries:
        table.add_row(
            entry.name,
            "" if entry.timm_name == entry.name else entry.timm_name,
            f"{entry.input_size} px",
            f"{entry.grid}x{entry.grid}" if entry.grid else "at load",
            entry.dense_kind or "at load",
            entry.licence or "not stated",
            entry.weights,
        )
    return table_text(table)


def cache_entries(entries: Sequence[CacheEntry], directory: Path) -> str:
    """Return a table of materialized stores."""
    if not entries:
        return f"{directory}: no materialized stores"
    table = Table(box=None, pad_edge=False, header_style="")
    for heading in ("STORE", "LABEL MAPS", "SIZE", "LAST USED", "DIGEST"):
        table.add_column(
            heading, no_wrap=True, justify="right" if heading in ("LABEL MAPS", "SIZE") else "left"
        )
    for entry in entries:
        used = datetime.fromtimestamp(entry.used_s).strftime("%Y-%m-%d %H:%M")
        digest = entry.path.name.lstrip(".")[:_DIGEST_DIGITS]
        table.add_row(
            entry.name or "(cannot be used)",
            f"{entry.num_samples:,}",
            byte_count(entry.size_bytes),
            used,
            digest,
        )
    total = byte_count(sum(entry.size_bytes for entry in entries))
    return f"{table_text(table)}\n{total} in {directory}"


def cleared_entries(entries: Sequence[CacheEntry]) -> str:
    """Return what was removed from the cache."""
    size = byte_count(sum(entry.size_bytes for entry in entries))
    return f"{count(len(entries), 'materialized store')} removed, {size}"

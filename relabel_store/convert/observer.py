"""What a conversion tells of its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relabel_store.convert.source import LabelSource


class ConversionObserver:
    """Told what happens; does nothing with it."""

    def on_source(self, form: str, source: LabelSource) -> None:
        """Labels were recognised as this form, and opened."""

    def on_start(self, samples: int, finished_samples: int) -> None:
        """Writing begins; some samples were written by an earlier attempt."""

    def on_part(self, samples: int) -> None:
        """So many more samples are written."""

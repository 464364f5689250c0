"""What every layout of others that labels are written in offers: parts written one by one, then finished."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from relabel_store.convert.source import LabelSource
from relabel_store.manifest import Manifest
from relabel_store.store.writer import PartLabels


class LabelTarget(Protocol):
    """Labels in a layout of others, below a path of its own. It is sent to other processes, so it can be pickled.

    `into_files` calls `begin` once, `write_part` for each part, again for one during which the process died, and
    `finish` once. What is at the path appears under its final name only then.

    Attributes
    ----------
    is_sequential
        Whether parts have to be written in order by one process, all of them anew after an interruption: of formats
        that are one file.
    """

    @property
    def is_sequential(self) -> bool:
        """Whether parts have to be written in order by one process."""

    def begin(self, source: LabelSource) -> None:
        """Write what comes before the parts, if anything.

        Raises
        ------
        OptionError
            The layout cannot hold these labels; the message says why, and which can.
        """

    def write_part(self, manifest: Manifest, part: int, samples: pa.Table, labels: PartLabels) -> None:
        """Write the labels of a part; when this returns they are on disk.

        Parameters
        ----------
        samples
            The rows of the sample table, with facts, in `samples.SCHEMA`.
        labels
            Rows without a label are left out, or marked where the layout has a mark for them.
        """

    def finish(self, source: LabelSource) -> None:
        """Write what comes after the parts, if anything."""

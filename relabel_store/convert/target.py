"""What every layout of others that labels are written in offers: parts written one by one, then finished."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from relabel_store.convert.source import LabelSource
from relabel_store.manifest import Manifest
from relabel_store.store.part_labels import PartLabels


class LabelTarget(Protocol):
    """Labels in a layout of others, below a path of its own. It is sent to other processes, so it can be pickled.

    `into_files` calls `begin` once, also of a conversion that goes on; what that leaves in the target goes to the other
    processes with it. Then `write_part` for each part that is not written yet, again for one during which the process
    died, and `finish` once, again if it died in there. What is at the path appears under its final name only then.
    Things that are not to be part of it may lie beside the path; they are removed at the end.

    Attributes
    ----------
    is_sequential
        Whether parts have to be written in order by one process, all of them anew after an interruption: of formats
        that are one file.
    """

    @property
    def is_sequential(self) -> bool:
        """Whether parts have to be written in order by one process."""

    def begin(self, source: LabelSource) -> Sequence[str]:
        """Write what comes before the parts, if anything; return what users of the layout should know, in sentences.

        Raises
        ------
        OptionError
            The layout cannot hold these labels; the message says why, and which can. Nothing is written then.
        """

    def write_part(self, manifest: Manifest, part: int, samples: pa.Table, labels: PartLabels) -> None:
        """Write the labels of a part; when this returns they are on disk.

        Parameters
        ----------
        samples
            The rows of the sample table, with facts, in `samples.SCHEMA`.
        labels
            Checked against the format. Rows without a label are left out, or marked where the layout has a mark for
            them.
        """

    def finish(self, manifest: Manifest) -> None:
        """Write what comes after the parts, if anything.

        Parameters
        ----------
        manifest
            With the statistics of all parts: what says where the labels come from, for layouts that have room for it.
        """

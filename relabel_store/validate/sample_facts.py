"""What checking label maps needs of the sample table: five bytes a row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from relabel_store.store.journal import PartRecord
from relabel_store.store.samples import SCHEMA, Status, column_values, from_parquet, text_array

LABELLED, BAD_IMAGE, MISSING = map(list(Status).index, (Status.LABELLED, Status.BAD_IMAGE, Status.MISSING))


@dataclass(frozen=True)
class SampleFacts:
    """The sample table, as far as label maps depend on it.

    Parameters
    ----------
    is_labelled
        bool ``(n,)``: rows whose status says so; None while a store is being built, where part records say it.
    class_index
        int32 ``(n,)``, -1 where unknown.
    """

    is_labelled: NDArray[np.bool_] | None
    class_index: NDArray[np.int32]

    @classmethod
    def read(cls, source: bytes | Path, *, is_finished: bool) -> SampleFacts:
        """Return the facts in a file.

        Raises
        ------
        FormatError
            It is no sample table.
        """
        table = from_parquet(source, SCHEMA, ["status", "class_index"])
        class_index = column_values(table["class_index"]).astype(np.int32)
        return cls(labelled_rows(table["status"]) if is_finished else None, class_index)

    def of_part(self, record: PartRecord) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return which rows of a part have a label, and the class index of each, int64."""
        rows = slice(record.rows.start, record.rows.stop)
        is_labelled = without_bad_images(record) if self.is_labelled is None else self.is_labelled[rows]
        return is_labelled, self.class_index[rows].astype(np.int64)


def without_bad_images(record: PartRecord) -> NDArray[np.bool_]:
    """Tell which rows of a part have a label by its record: bool ``(n,)``."""
    is_labelled = np.ones(len(record.rows), np.bool_)
    is_labelled[[bad.row - record.rows.start for bad in record.bad_images if bad.row in record.rows]] = False
    return is_labelled


def labelled_rows(status: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Tell which rows a column of statuses calls labelled: bool ``(n,)``."""
    return np.asarray(status_codes(status) == LABELLED, np.bool_)


def status_codes(status: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the position of each status among `samples.Status`, -1 where it is none: int64 ``(n,)``."""
    return column_values(pc.index_in(status.cast(pa.large_string()), value_set=text_array(list(Status))))

"""Names, dtypes and versions of the format, as constants.

``docs/reference/format-v1.md`` is the authority; this module is its only copy in code.
"""

from __future__ import annotations

import numpy as np

FORMAT_VERSION = "1.0"
ENCODING_ZARR = "zarr"
ENCODING_PARQUET = "parquet"
ENCODING_PACKED = "packed"
ENCODING_VERSIONS = {ENCODING_ZARR: "1.0", ENCODING_PARQUET: "1.0", ENCODING_PACKED: "1.0"}

MANIFEST_ATTRIBUTE = (
    "relabel_store"  # key among the attributes of a Zarr group, and in a Parquet file's metadata
)

INDICES = "indices"
VALUES = "values"
REST = "rest"
DIMENSIONS = ("sample", "rank", "row", "col")
REST_DIMENSIONS = ("sample", "row", "col")

GROUP_FILE = "zarr.json"
SAMPLES_FILE = "samples.parquet"
COMPLETE_FILE = "complete.json"
JOURNAL_DIR = "journal"
RUNNING_DIR = "journal/running"
BEGUN_FILE = "journal/running/begun.json"  # size and digest of what a build begins with

SHARD_ROWS = 4096
CHUNK_ROWS = 256  # 256 x 15 x 15 x 5 x 2 B = 563 KiB raw an array; docs/explanation/size.md has the table
DEFAULT_K = 5
DEFAULT_VALUE_STEP = 0.125

MAX_UINT16_CLASSES = 65_535  # index 65,535 is the fill value, so it can be no class
MAX_NUM_CLASSES = 2**31 - 1


def indices_dtype(num_classes: int) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """Return the dtype of ``indices``: uint16, or uint32 past 65,535 classes."""
    return np.dtype(np.uint16) if num_classes <= MAX_UINT16_CLASSES else np.dtype(np.uint32)


def indices_fill_value(num_classes: int) -> int:
    """Return what ``indices`` holds where there is no label: the largest integer of its dtype."""
    return int(np.iinfo(indices_dtype(num_classes)).max)


def part_name(part: int) -> str:
    """Return the stem of a part's files in the journal, ``part-00042``."""
    return f"part-{part:05d}"

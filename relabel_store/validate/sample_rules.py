"""Rules of the sample table: what a line of it may say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from relabel_store.manifest import Manifest
from relabel_store.sample_ids import MACHINE_PATH, is_absolute_of
from relabel_store.store.samples import SCHEMA, column_values, text_array
from relabel_store.validate.finding import Place, Problem
from relabel_store.validate.rule import check
from relabel_store.validate.sample_facts import LABELLED, labelled_rows, status_codes

Mask = NDArray[np.bool_]

_NAMED = 3  # lines of a piece that get a finding of their own
_RESTORE = "restore the sample table from a copy, or build the store again"
# Of these sources paths are those of image files below one folder, and ids follow from them.
_FOLDERS = ("class-folders", "folder")
_OUTSIDE = r"^/|^[A-Za-z]:[\\/]|^\\\\|^[A-Za-z][A-Za-z0-9+.-]*://|(^|/)\.\.(/|$)"
_LAST_SUFFIX = r"([^/])\.[^./]*$"


@dataclass(frozen=True)
class Samples:
    """Neighbouring lines of a sample table.

    Parameters
    ----------
    start
        The row of the first one by its position.
    table
        In `samples.SCHEMA`.
    bad_rows
        int64, rising: rows of bad images by the records of parts; None where some parts have no sound record.
    """

    manifest: Manifest
    file: str
    start: int
    table: pa.Table
    bad_rows: NDArray[np.int64] | None

    @property
    def rows(self) -> NDArray[np.int64]:
        """Positions of the lines."""
        return np.arange(self.start, self.start + len(self.table), dtype=np.int64)

    @property
    def is_of_folders(self) -> bool:
        """Whether the images lay in folders, so that ids and classes follow from paths."""
        return self.manifest.images.kind in _FOLDERS


def column_problem(schema: pa.Schema) -> str | None:
    """Return what is wrong with the columns of a file, or None."""
    for field in SCHEMA:
        found = schema.get_all_field_indices(field.name)
        if len(found) != 1:
            return f"{len(found)} columns {field.name!r}"
        kind = schema.field(found[0]).type
        if kind != field.type:
            return f"column {field.name!r} of {kind}, not {field.type}"
    return None


@check("RS401", "F40", spoils=True)
def check_table_readable(file: str, error: str) -> Iterator[Problem]:
    """The sample table is a Parquet file with the columns of the format."""
    yield Problem(
        Place(file=file),
        f"cannot be used ({error})",
        f"a Parquet file of {', '.join(SCHEMA.names)}",
        _RESTORE,
    )


@check("RS402", "F40")
def check_nulls(samples: Samples) -> Iterator[Problem]:
    """`row`, `sample_id`, `path` and `status` have no nulls."""
    for field in SCHEMA:
        column = samples.table[field.name]
        if not field.nullable and column.null_count:
            is_null = mask_of(pc.is_null(column))
            yield from problems_of(samples, field.name, is_null, "a value", lambda _: "null")


@check("RS403", "F40")
def check_rows(samples: Samples) -> Iterator[Problem]:
    """Lines are in row order, and `row` counts them from 0."""
    found = column_values(samples.table["row"])
    yield from problems_of(
        samples,
        "row",
        (found != samples.rows) & mask_of(pc.is_valid(samples.table["row"])),
        "the position of the line",
        lambda at: f"row {found[at]} at position {samples.start + at}",
    )


@check("RS404", "F40")
def check_table_length(manifest: Manifest, file: str, n: int) -> Iterator[Problem]:
    """The sample table has a line for each of `num_samples`."""
    if n != manifest.num_samples:
        yield Problem(
            Place(file=file), f"{n} lines", f"{manifest.num_samples} as the manifest says", _RESTORE
        )


@check("RS405", "F41")
def check_ids(samples: Samples) -> Iterator[Problem]:
    """Sample ids are not empty and in Unicode NFC; of images in folders, they are the paths without the last suffix."""
    ids = samples.table["sample_id"]
    expected = ids
    if samples.is_of_folders:
        expected = pc.replace_substring_regex(samples.table["path"], _LAST_SUFFIX, r"\1")
    composed = pc.utf8_normalize(expected, form="NFC")
    is_bad = mask_of(pc.not_equal(ids, composed)) | _is_empty(ids)

    def found(at: int) -> str:
        path = f" of {text_at(samples.table['path'], at)}" if samples.is_of_folders else ""
        return f"{text_at(ids, at)}{path}"

    yield from problems_of(samples, "sample_id", is_bad, "the path without its last suffix, in NFC", found)


@check("RS406", "F41", "F62")
def check_paths(samples: Samples) -> Iterator[Problem]:
    """Paths are below the images' root: no absolute path, no URL, no `..`."""
    paths = samples.table["path"]
    is_bad = mask_of(pc.match_substring_regex(paths, _OUTSIDE)) | _is_empty(paths)
    yield from problems_of(
        samples, "path", is_bad, "a path below the root of the images", lambda at: text_at(paths, at)
    )


@check("RS415", "F62")
def check_ids_of_no_machine(samples: Samples) -> Iterator[Problem]:
    """No sample id is a path of a home folder, a drive, a share or `file://`, nor an absolute one of its image."""
    ids, paths = samples.table["sample_id"], samples.table["path"]
    is_bad = mask_of(pc.match_substring_regex(ids, MACHINE_PATH))
    for at in np.flatnonzero(mask_of(pc.starts_with(ids, "/"))).tolist():
        is_bad[at] |= is_absolute_of(ids[at].as_py(), paths[at].as_py() or "")
    yield from problems_of(
        samples, "sample_id", is_bad, "nothing of where the images lay", lambda at: text_at(ids, at)
    )


@check("RS407", "F42")
def check_class_names(samples: Samples) -> Iterator[Problem]:
    """Of images in folders, `class_name` is the folder directly below the root, null where there is none."""
    if not samples.is_of_folders:
        return
    paths, names = samples.table["path"], samples.table["class_name"]
    has_folder = mask_of(pc.match_substring(paths, "/"))
    folders = pc.replace_substring_regex(paths, r"(?s)/.*$", "")
    is_same = np.where(has_folder, mask_of(pc.equal(names, folders)), mask_of(pc.is_null(names)))
    yield from problems_of(
        samples,
        "class_name",
        ~is_same & mask_of(pc.is_valid(paths)),
        "the first folder of the path",
        lambda at: f"{text_at(names, at)} of {text_at(paths, at)}",
    )


@check("RS408", "F42", "F13")
def check_class_indices(samples: Samples) -> Iterator[Problem]:
    """`class_index` is null or the class of the folder in the manifest's class list: it is never guessed."""
    found, names = samples.table["class_index"], samples.table["class_name"]
    index_of = samples.manifest.classes.index_of_folder()
    composed = pc.utf8_normalize(names, form="NFC").cast(pa.large_string())
    position = column_values(pc.index_in(composed, value_set=text_array(list(index_of))))
    expected = np.array([*index_of.values(), -1], np.int64)[position]  # -1 where there is no such class
    indices = column_values(found)
    is_bad = mask_of(pc.is_valid(found)) & ((indices != expected) | (indices < 0))
    yield from problems_of(
        samples,
        "class_index",
        is_bad,
        "the class of that name, null where there is none or more than one",
        lambda at: f"{found[at]} of {text_at(names, at)}",
    )


@check("RS409", "F43")
def check_image_facts(samples: Samples) -> Iterator[Problem]:
    """`width` and `height` are pixels, `sha256` 64 hexadecimal digits; what a teacher labelled has all three."""
    table = samples.table
    for name in ("width", "height"):
        pixels = column_values(table[name], null=1)
        yield from problems_of(samples, name, pixels < 1, "1 pixel or more", pixels.__getitem__)
    is_bad = ~mask_of(pc.match_substring_regex(table["sha256"], r"^[0-9a-f]{64}\z"), null=True)
    yield from problems_of(
        samples, "sha256", is_bad, "64 hexadecimal digits", lambda at: text_at(table["sha256"], at)
    )
    if samples.manifest.build is None:
        return  # converted: nobody looked at the images
    is_labelled = labelled_rows(table["status"])
    for name in ("width", "height", "sha256"):
        is_unknown = is_labelled & mask_of(pc.is_null(table[name]))
        yield from problems_of(samples, name, is_unknown, "that of the labelled image", lambda _: "null")


@check("RS410", "F44")
def check_status(samples: Samples) -> Iterator[Problem]:
    """`status` is `labelled`, `bad-image` or `missing`."""
    status = samples.table["status"]
    is_bad = (status_codes(status) < 0) & mask_of(pc.is_valid(status))
    yield from problems_of(
        samples, "status", is_bad, "labelled, bad-image or missing", lambda at: text_at(status, at)
    )


@check("RS411", "F44", "F51", "F52")
def check_status_of_records(samples: Samples) -> Iterator[Problem]:
    """In a finished store `status` is `labelled` but where a part record lists the row as without a label."""
    if samples.bad_rows is None:
        return
    status = samples.table["status"]
    is_without = np.isin(samples.rows, samples.bad_rows)
    codes = status_codes(status)
    yield from problems_of(
        samples,
        "status",
        (codes >= 0) & ((codes == LABELLED) == is_without),  # what is no status is RS410
        "what the records of the parts say",
        lambda at: (
            f"{text_at(status, at)} of a row that the record of its part lists with"
            f"{'out' if is_without[at] else ''} a label"
        ),
    )


OF_SAMPLES = (
    check_nulls,
    check_rows,
    check_ids,
    check_paths,
    check_ids_of_no_machine,
    check_class_names,
    check_class_indices,
    check_image_facts,
    check_status,
    check_status_of_records,
)


def mask_of(column: pa.Array | pa.ChunkedArray, *, null: bool = False) -> Mask:
    """Return a column of booleans, with `null` in the place of nulls."""
    return np.asarray(column_values(column, null=int(null)), np.bool_)


def _is_empty(texts: pa.ChunkedArray) -> Mask:
    return ~np.asarray(column_values(pc.binary_length(texts), null=1), np.bool_)


def text_at(column: pa.Array | pa.ChunkedArray, at: int) -> str:
    """Return a text of a column as a message shows it."""
    text = repr(column[at].as_py())
    return text if len(text) <= 120 else f"{text[:120]}…"


def problems_of(
    samples: Samples,
    column: str,
    is_bad: Mask,
    expected: str,
    found: Callable[[int], object],
    rows: NDArray[np.int64] | None = None,
) -> Iterator[Problem]:
    """Yield a problem for each of the first lines that have one, and one for all the others.

    Parameters
    ----------
    is_bad
        bool ``(n,)``.
    found
        Says what is in a line.
    rows
        The row of each line, where that is not its position.
    """
    lines = np.flatnonzero(is_bad)
    for position, line in enumerate(lines[: _NAMED + 1].tolist()):
        yield Problem(
            Place(
                file=samples.file, field=column, row=samples.start + line if rows is None else int(rows[line])
            ),
            str(found(line)),
            expected,
            _RESTORE,
            count=1 if position < _NAMED else len(lines) - _NAMED,
        )

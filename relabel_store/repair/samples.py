"""The samples of damaged parts, where the files of parts are what holds them."""

from __future__ import annotations

from collections.abc import Container

import pyarrow as pa

from relabel_store.errors import DamagedFileError
from relabel_store.images.source import ImageSource
from relabel_store.manifest import Manifest
from relabel_store.sample_ids import digest_of_ids
from relabel_store.store.encoded import EncodedStore
from relabel_store.store.encodings import encoding_of
from relabel_store.store.files import StoreFiles
from relabel_store.store.salvage import salvaged_samples
from relabel_store.store.samples import planned_samples
from relabel_store.store.writer import StoreWriter


def open_writer(
    files: StoreFiles, manifest: Manifest, damaged: Container[int], source: ImageSource | None
) -> StoreWriter:
    """Return the writer of a finished store some parts of which are damaged.

    Parameters
    ----------
    source
        The images, where they are at hand: they tell the samples of a part whose file tells nothing any more.

    Raises
    ------
    DamagedFileError
        Nothing tells the samples of a part, or those told are not the recorded ones.
    """
    if not encoding_of(manifest).is_self_contained:
        return StoreWriter.resume(files)
    store = EncodedStore(files)
    pieces = []
    for part in range(manifest.num_parts):
        if part not in damaged:
            pieces.append(store.samples_of_part(part))
            continue
        found = salvaged_samples(files, manifest, part)
        if found is None and source is None:
            raise DamagedFileError(
                f"part {part}: its file, which held its samples too, cannot be read any more; give --images, from "
                "which their names can be told"
            )
        pieces.append(_planned(manifest, part, source) if found is None else found)
    samples = pa.concat_tables(pieces).combine_chunks()
    if digest_of_ids(samples["sample_id"].to_pylist()) != manifest.images.digest:
        raise DamagedFileError(
            f"store {files.location!r}: the samples that can be told of its damaged parts are not those that it "
            "records; give --images with the images that were labelled"
        )
    return StoreWriter(files, store.manifest, samples)


def _planned(manifest: Manifest, part: int, source: ImageSource | None) -> pa.Table:
    assert source is not None
    rows = manifest.rows_of_part(part)
    at = slice(rows.start, rows.stop)
    table = planned_samples(
        source.sample_ids[at], source.paths[at], source.class_names[at], manifest.classes.index_of_folder()
    )
    index = table.schema.get_field_index("row")
    return table.set_column(index, table.schema.field("row"), pa.array(rows, pa.int64()))

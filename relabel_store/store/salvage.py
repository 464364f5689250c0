"""What files of parts tell that hold more than labels, where what is recorded of the store is damaged."""

from __future__ import annotations

import pyarrow as pa

from relabel_store import spec
from relabel_store.errors import FormatError
from relabel_store.manifest import Manifest
from relabel_store.store.encodings import Shards, encoding_of
from relabel_store.store.files import StoreFiles
from relabel_store.store.packed_v1 import PackedEncoding
from relabel_store.store.parquet_v1 import ParquetEncoding, ParquetParts


def salvaged_samples(files: StoreFiles, manifest: Manifest, part: int) -> pa.Table | None:
    """Return the rows of the sample table in the file of a part that is damaged elsewhere, else None.

    The file is not what was recorded, so that its digest cannot vouch for them; the checksums inside it do, of Parquet
    pages or of a member of a ZIP. They are made against accidents: compare the ids with what else is known.
    """
    encoding = encoding_of(manifest)
    shards: Shards = (
        ParquetParts(manifest, is_strict=True)
        if encoding.name == spec.ENCODING_PARQUET
        else encoding.open_shards(files, manifest, None)
    )
    try:
        table = shards.read_samples(part, files.read)
    except (FormatError, FileNotFoundError):
        return None
    rows = manifest.rows_of_part(part)
    return table if table is not None and table["row"].to_pylist() == list(rows) else None


def salvaged_manifest(name: str, data: bytes) -> Manifest | None:
    """Return the manifest in the file of a part, as it was when the store was begun; None if it is no such file.

    Raises
    ------
    FormatError
        It holds none, or one of a version or encoding that this release does not read.
    """
    for encoding in (ParquetEncoding(), PackedEncoding()):
        if encoding.is_ours(name):
            return encoding.parse_manifest(encoding.manifest_in(data))
    return None

"""The store as its readers see it, for the levels that look at rows rather than at files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from relabel_store.errors import ObjectStoreError, RelabelStoreError
from relabel_store.images.names import Texts
from relabel_store.images.source import ImageSource
from relabel_store.store.encoded import EncodedStore
from relabel_store.validate.evidence import Evidence
from relabel_store.validate.report import Findings


def open_sound(evidence: Evidence, findings: Findings, what: str) -> tuple[EncodedStore, pa.Table] | None:
    """Return a store and its sample table; where readers refuse it, None, and a note that something was not checked.

    Parameters
    ----------
    what
        That is not checked then.
    """
    if evidence.manifest is None:
        findings.skip(what, "the manifest cannot be used")
        return None
    try:
        store = EncodedStore(evidence.files)
        return store, store.samples
    except ObjectStoreError:
        raise  # the service failed: that says nothing of the store
    except (RelabelStoreError, pa.ArrowException, OSError) as error:
        findings.skip(what, f"the store cannot be opened ({' '.join(str(error).split())[:200]})")
        return None


def rows_of_images(samples: pa.Table, images: ImageSource) -> NDArray[np.int64]:
    """Return the row of each sample's image in a source, int64 ``(n,)``; -1 where there is none of its id."""
    ids = images.sample_ids
    theirs = (ids if isinstance(ids, Texts) else Texts.of(ids)).column
    ours = samples["sample_id"].combine_chunks()
    found = pc.index_in(ours, value_set=theirs.cast(ours.type)).fill_null(-1)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)

"""One sample of a store as a picture: its map on its photo."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from relabel_store.errors import SampleNotFoundError
from relabel_store.generate.decode import open_rgb
from relabel_store.generate.images import ImageSource
from relabel_store.inspect.picture import draw_label_map
from relabel_store.inspect.png import save_picture
from relabel_store.store.reader import LabelStore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_sample", "save_picture"]

log = logging.getLogger("relabel_store.inspect")


def draw_sample(store: LabelStore, sample_id: str, source: ImageSource) -> Figure:
    """Return the picture of a sample: photo, winning classes, confidence.

    Raises
    ------
    SampleNotFoundError
        The sample is not in the store, or not among the images.
    NoLabelError
        It has no label.
    BadImageError
        The image cannot be decoded.
    """
    row = store.row_of(sample_id)
    label_map = store[row]
    photo = _read_photo(source, sample_id)
    recorded = store.samples["sha256"][row].as_py()
    if recorded != hashlib.sha256(photo).hexdigest():
        log.warning("image of sample %r: not the file that was labelled, its SHA-256 is another", sample_id)
    manifest = store.manifest
    return draw_label_map(
        open_rgb(photo),
        label_map.indices,
        label_map.values,
        rest=label_map.rest,
        num_classes=store.num_classes,
        class_names=manifest.classes.names or manifest.classes.ids,
        title=sample_id,
        subtitle=f"{manifest.teacher.name} on {manifest.images.name}",
    )


def _read_photo(source: ImageSource, sample_id: str) -> bytes:
    try:
        return source.read(list(source.sample_ids).index(sample_id))
    except ValueError:
        raise SampleNotFoundError(
            f"sample {sample_id!r}: not among the {len(source)} images of {source.name!r}; "
            "give the folder that was labelled"
        ) from None

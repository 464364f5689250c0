"""One sample of a store as a picture: its map on its photo."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from relabel_store.errors import SampleNotFoundError
from relabel_store.generate.decode import open_rgb
from relabel_store.images.source import ImageSource
from relabel_store.inspect.picture import draw_label_map
from relabel_store.inspect.png import save_picture
from relabel_store.labels.boxes import middle_square
from relabel_store.manifest import Resize
from relabel_store.store.reader import LabelStore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_sample", "save_picture"]

log = logging.getLogger("relabel_store.inspect")

# First in the line, which is shortened at its end.
_DRAWN_ON = {
    Resize.SQUASH: "",
    Resize.CENTER_CROP: "On the middle square of the photo, of which the teacher saw all or most. Teacher: ",
    Resize.UNKNOWN: "On the whole photo; which part the teacher saw is unknown. Teacher: ",
}


def draw_sample(store: LabelStore, sample_id: str, source: ImageSource) -> Figure:
    """Return the picture of a sample: photo, winning classes, confidence.

    A map of a square in the middle of its photo is drawn on the largest such square, since labels that were converted
    do not say how much of it was cut off. One of an unknown part is drawn over all of the photo. Either is said below
    the title.

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
    if recorded is not None and recorded != hashlib.sha256(photo).hexdigest():
        log.warning("image of sample %r: not the file that was labelled, its SHA-256 is another", sample_id)
    manifest = store.manifest
    image = open_rgb(photo)
    resize = manifest.geometry.resize
    if resize is Resize.CENTER_CROP:
        image = image.crop(middle_square(*image.size))
    return draw_label_map(
        image,
        label_map.indices,
        label_map.values,
        rest=label_map.rest,
        num_classes=store.num_classes,
        class_names=manifest.classes.names or manifest.classes.ids,
        title=sample_id,
        subtitle=f"{_DRAWN_ON[resize]}{manifest.teacher.name} on {manifest.images.name}",
    )


def _read_photo(source: ImageSource, sample_id: str) -> bytes:
    try:
        return source.read(list(source.sample_ids).index(sample_id))
    except ValueError:
        raise SampleNotFoundError(
            f"sample {sample_id!r}: not among the {len(source)} images of {source.name!r}; "
            "give the folder that was labelled"
        ) from None

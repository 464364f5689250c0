"""The label maps that ReLabel published: ``class/stem.pt``, float32 ``[2, k, rows, cols]``, scores then class indices.

The published code has a reader and no generator (naver-ai/relabel_imagenet, ``utils/relabel_functions.py``): it puts
plane 0 at the classes of plane 1, pools, and takes the softmax, so the scores are logits. Which part of an image the
teacher saw, and how, is not said anywhere.
"""

from __future__ import annotations

from relabel_store.convert.source import Location, SourceOptions
from relabel_store.convert.sources.trees import TreeForm, TreeSource, open_tree
from relabel_store.manifest import Geometry, Resize

FORM = TreeForm(
    name="relabel",
    dtypes=("float32", "bfloat16"),
    geometry=Geometry(
        input_size=None,
        interpolation=None,
        mean=None,
        std=None,
        resize=Resize.UNKNOWN,
        exif_orientation="unknown",
    ),
    seen="of an unknown part of each image",
)
recognise = FORM.recognise


def open_source(location: Location, options: SourceOptions) -> TreeSource:
    """Return the labels of a tree; see `open_tree`."""
    return open_tree(location, options, FORM)

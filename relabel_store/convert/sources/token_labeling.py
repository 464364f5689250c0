"""The label maps that TokenLabeling published: ``class/stem.pt``, float16 ``[2, k, rows, cols]``, scores then indices.

Its generator (zihangJiang/TokenLabeling, ``generate_label.py``) is public: timm's evaluation transform, which resizes
an image by its shorter side, not applying its EXIF orientation, and cuts a square out of the middle; then the logits of
each location. How large the square was (``--crop-pct``), and how many pixels, is up to whoever runs it.
"""

from __future__ import annotations

from relabel_store.convert.source import Location, SourceOptions
from relabel_store.convert.sources.trees import TreeForm, TreeSource, open_tree
from relabel_store.manifest import Geometry, Resize

FORM = TreeForm(
    name="token-labeling",
    dtypes=("float16",),
    geometry=Geometry(
        input_size=None,
        interpolation=None,
        mean=None,
        std=None,
        resize=Resize.CENTER_CROP,
        exif_orientation="ignored",
    ),
    seen="of a square in the middle of each image, as its generator makes them",
)
recognise = FORM.recognise


def open_source(location: Location, options: SourceOptions) -> TreeSource:
    """Return the labels of a tree; see `open_tree`."""
    return open_tree(location, options, FORM)

"""ImageNet's file names, which say the class folder where the path does not."""

from __future__ import annotations

import re

_SYNSET = r"n\d{8}"
_TRAIN = re.compile(rf"({_SYNSET})_\d+")
_WITH_SYNSET = re.compile(rf"(.+)_({_SYNSET})")


def imagenet_id(stem: str) -> str | None:
    """Return the sample id in class folders of an image whose folder was dropped; None for other names.

    ``datasets`` appends the class to the name, and keeps that name when it stores images in Parquet.

    >>> imagenet_id("n01440764_10026")
    'n01440764/n01440764_10026'
    >>> imagenet_id("n01440764_10026_n01440764")
    'n01440764/n01440764_10026'
    >>> imagenet_id("ILSVRC2012_val_00000293_n01440764")
    'n01440764/ILSVRC2012_val_00000293'
    >>> imagenet_id("img_0001")
    """
    named = _WITH_SYNSET.fullmatch(stem)
    if named is not None:
        return f"{named[2]}/{named[1]}"
    train = _TRAIN.fullmatch(stem)
    return None if train is None else f"{train[1]}/{stem}"

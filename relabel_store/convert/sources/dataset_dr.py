"""Dataset reinforcement's labels: recognised, and refused as docs/explanation/other-label-forms.md says.

A folder of ``config.pth.tar`` and, for the sample at each position of a data set, ``0.pth.tar``, ``1.pth.tar``, ...:
``torch.save`` or ``joblib.dump`` of ``(position, [{"params": ..., "prob": (probabilities, classes)}, ...])``: the
parameters of an augmentation (crop, flip, RandAugment, erasing, mixing with another image) and the teacher's best
probabilities of what came out. After `reinforce.py` of github.com/apple/ml-dr, arXiv:2303.08983.
"""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path
from typing import NoReturn

from relabel_store.convert.source import Location, SourceOptions
from relabel_store.convert.sources.file_words import words_in
from relabel_store.errors import LabelSourceError
from relabel_store.store.location import is_url

FORMAT = "dataset-dr"

_CONFIG = "config.pth.tar"
_SAMPLE = re.compile(r"[0-9]+\.pth\.tar")
_LOOKED_AT = 100  # entries of the folder


def recognise(location: Location) -> bool:
    """Tell whether this is such a folder, by its configuration and one of its samples."""
    if is_url(location) or not (Path(location) / _CONFIG).is_file():
        return False
    with os.scandir(location) as entries:
        names = [entry.name for entry in islice(entries, _LOOKED_AT) if _SAMPLE.fullmatch(entry.name)]
    return any({"params", "prob"} <= words_in(Path(location) / name) for name in names[:1])


def open_source(location: Location, options: SourceOptions) -> NoReturn:  # noqa: ARG001 - as the protocol has it
    """Refuse, with the reason.

    Raises
    ------
    LabelSourceError
        Always.
    """
    raise LabelSourceError(
        f"labels {str(location)!r}: dataset reinforcement's teacher probabilities of augmented, perhaps mixed, crops, "
        "expected scores for each cell of a grid over the image; they hold for those pictures only, and images are "
        "known by position. Train on them with ml-dr's own loader, or label the images anew with relabel-store build"
    )

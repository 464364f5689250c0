"""TinyViT's sparse soft labels: recognised, and refused as docs/explanation/other-label-forms.md says.

Folders ``logits_top100_epoch0``, ``logits_top100_epoch1``, ...: in each, for every process that wrote,
``rank0-keys.txt`` with a key a line, and ``rank0-values.bin`` with as many records of ``4 + 4 k`` bytes: the seed of an
augmentation (int32), the best classes of the picture that it gives (int16), their probabilities (float16; after
softmax, whatever the folder is called). After ``save_logits.py`` and ``data/augmentation/manager.py`` of TinyViT in
github.com/microsoft/Cream, arXiv:2207.10666.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NoReturn

from relabel_store.convert.source import Location, SourceOptions
from relabel_store.errors import LabelSourceError
from relabel_store.store.location import is_url

FORMAT = "tinyvit"

_EPOCH = re.compile(r"logits_top([0-9]+)_epoch[0-9]+")
_VALUES, _KEYS = "-values.bin", "-keys.txt"
_LOOKED_AT = 1000  # entries of a folder


def recognise(location: Location) -> bool:
    """Tell whether this is the folder of an epoch, or one of such folders."""
    if is_url(location) or not Path(location).is_dir():
        return False
    path = Path(location)
    return _is_epoch(path) or any(_EPOCH.fullmatch(name) and _is_epoch(path / name) for name in _names(path))


def open_source(location: Location, options: SourceOptions) -> NoReturn:  # noqa: ARG001 - as the protocol has it
    """Refuse, with the reason.

    Raises
    ------
    LabelSourceError
        Always.
    """
    raise LabelSourceError(
        f"labels {str(location)!r}: TinyViT's teacher probabilities of augmented crops, expected scores for each cell "
        "of a grid over the image; of the crop there is a random seed only, which says where it was to the code that "
        "drew it. Train on them with TinyViT's own loader, or label the images anew with relabel-store build"
    )


def _names(path: Path) -> Iterator[str]:
    with os.scandir(path) as entries:
        yield from (entry.name for entry in islice(entries, _LOOKED_AT))


def _is_epoch(path: Path) -> bool:
    if not path.is_dir():
        return False
    first = next((name for name in _names(path) if re.fullmatch(rf"rank-?[0-9]+{_VALUES}", name)), None)
    if first is None or not (path / first.replace(_VALUES, _KEYS)).is_file():
        return False
    size_bytes = (path / first).stat().st_size
    said = _EPOCH.fullmatch(path.resolve().name)
    return size_bytes % (4 + 4 * int(said[1]) if said else 4) == 0

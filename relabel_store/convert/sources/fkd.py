"""FKD's soft labels: recognised, and refused as docs/explanation/other-label-forms.md says.

A tree ``.../class/stem.tar`` of files that are no tars: ``torch.save`` of a list of crop boxes (NumPy, ``(n, 4)`` of
top, left, height, width as fractions), whether each crop was mirrored (NumPy, ``(n,)``), and the teacher's
probabilities for each, whole or the best few. After ``FKD_SLG/generate_soft_label.py`` of github.com/szq0214/FKD,
arXiv:2112.01528.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import NoReturn

from relabel_store.convert.source import Location, SourceOptions
from relabel_store.convert.sources.file_words import words_in
from relabel_store.errors import LabelSourceError
from relabel_store.store.location import is_url

FORMAT = "fkd"

_MAX_DEPTH = 4  # root, data set, split, class
_LOOKED_AT = 3  # entries of a folder


def recognise(location: Location) -> bool:
    """Tell whether there is a tree of such files, by the first few."""
    return not is_url(location) and any(map(_is_label_file, _first_files(Path(location), _MAX_DEPTH)))


def open_source(location: Location, options: SourceOptions) -> NoReturn:  # noqa: ARG001 - as the protocol has it
    """Refuse, with the reason.

    Raises
    ------
    LabelSourceError
        Always.
    """
    raise LabelSourceError(
        f"labels {str(location)!r}: FKD's teacher probabilities of random crops, expected scores for each cell of a "
        "grid over the image; overlapping crops do not give those. Train on them with FKD's own loader, or label "
        "the images anew with relabel-store build"
    )


def _first_files(path: Path, depth: int) -> list[Path]:
    if not path.is_dir():
        return [path] if path.is_file() else []
    try:
        with os.scandir(path) as entries:
            found = sorted(Path(entry.path) for entry in islice(entries, _LOOKED_AT))
    except OSError:  # a folder of somebody else's
        return []
    return [file for entry in found if depth or entry.is_file() for file in _first_files(entry, depth - 1)]


def _is_label_file(path: Path) -> bool:
    if path.suffix != ".tar":
        return False
    words = words_in(path)
    return "_reconstruct" in words and any(word.startswith("_rebuild_tensor") for word in words)

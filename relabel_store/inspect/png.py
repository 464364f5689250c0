"""Pictures as files."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def require_png(path: Path) -> None:
    """Raise ValueError unless ``path`` ends in ``.png``: pictures are written in no other format."""
    if path.suffix.lower() != ".png":
        raise ValueError(
            f"picture {path.name!r}: suffix {path.suffix!r}, only PNG is written; "
            f"name it {path.with_suffix('.png').name!r}"
        )


def save_picture(figure: Figure, path: Path) -> None:
    """Write ``figure`` to ``path`` as PNG, all or nothing; a file that is there is replaced.

    Equal figures give equal bytes with equal versions of matplotlib and Pillow: the file holds
    neither a date nor the name of a program.

    Raises
    ------
    ValueError
        ``path`` does not end in ``.png``.
    FileNotFoundError
        There is no folder to write to.
    """
    require_png(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"picture {path.name!r}: no folder {str(path.parent)!r}, create it first")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)  # its methods are untyped
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    beside = path.parent / f".{uuid.uuid4().hex}.partial"  # short: path.name may be as long as names get
    try:
        picture.save(beside, format="PNG")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)

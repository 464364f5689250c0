"""What can be told of an image without a teacher: its size from its header, and the colour of each cell."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relabel_store.manifest import Resize

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")  # no program is run for any of them
_ORIENTATION_TAG = 0x0112
_MAX_PIXELS = 178_956_970
_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError)


def read_header(data: bytes) -> tuple[int, int, int] | None:
    """Return width, height and EXIF orientation of an image file, or of its beginning; None where it is none."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except _ERRORS:
        return None
    return width, height, orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def cell_colours(data: bytes, grid: tuple[int, int], *resizes: Resize) -> list[NDArray[np.float64]] | None:
    """Return the mean colour of each cell of a grid over an image; None where it cannot be decoded.

    Parameters
    ----------
    grid
        ``(n_rows, n_cols)``.
    resizes
        Which part of the image the grid covers, one or more ways; where it is unknown, all of it.

    Returns
    -------
    list of ndarray
        For each way ``(n_rows, n_cols, 3)``, 0 to 255.
    """
    n_rows, n_cols = grid
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None
            image.draft("RGB", (n_cols * 8, n_rows * 8))  # a JPEG decoded small takes a quarter of the time
            pixels = image.convert("RGB")
            parts = [
                pixels.crop(middle_square(*pixels.size)) if resize is Resize.CENTER_CROP else pixels
                for resize in resizes
            ]
            return [
                np.asarray(part.resize((n_cols, n_rows), Image.Resampling.BOX), np.float64) for part in parts
            ]
    except _ERRORS:
        return None


def middle_square(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the largest square in the middle of an image, ``(left, top, right, bottom)`` in pixels."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side

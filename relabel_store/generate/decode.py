"""Bytes of an image file to the pixels that a teacher sees."""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relabel_store.errors import BadImageError

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
MAX_PIXELS = 178_956_970
_ORIENTATION = 0x0112
_PIL_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    EOFError,
    zlib.error,
    OverflowError,
    MemoryError,
    KeyError,
    IndexError,
    TypeError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class Interpolation(StrEnum):
    """How PIL resizes."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"
    BOX = "box"
    HAMMING = "hamming"


@dataclass(frozen=True)
class Decoded:
    """A decoded image."""

    pixels: NDArray[np.uint8]
    width: int
    height: int
    exif_orientation: int


def decode_image(data: bytes, *, size: tuple[int, int], interpolation: Interpolation) -> Decoded:
    """Return squashed pixels."""
    image, orientation = _open(data)
    squashed = image.resize((size[1], size[0]), getattr(Image.Resampling, interpolation.name))
    return Decoded(np.asarray(squashed), image.width, image.height, orientation)


def open_rgb(data: bytes) -> Image.Image:
    """Return the full RGB image."""
    return _open(data)[0]


def _open(data: bytes) -> tuple[Image.Image, int]:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImageError(f"{image.width} x {image.height} pixels")
            orientation = int(image.getexif().get(_ORIENTATION, 1))
            return image.convert("RGB"), orientation
    except _PIL_ERRORS as error:
        raise BadImageError(re.sub(r"<[^>]*>", "file", str(error)) or type(error).__name__) from error

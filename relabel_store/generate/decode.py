"""Bytes of an image file to the pixels that a teacher sees: the reference for any faster decoder."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from relabel_store.errors import BadImageError

# What torchvision's ImageFolder lists, plus GIF under another name. Others stay out because they run
# programs (EPS) or hold documents rather than photos.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")

# Where PIL itself refuses by default (twice its MAX_IMAGE_PIXELS, which programs like to switch off): half a
# gigabyte of pixels from a header of a few bytes.
MAX_PIXELS = 178_956_970

_ORIENTATION_TAG = 0x0112
_MAX_REASON = 160  # characters

# What PIL's decoders raise on bytes that are no image of theirs. MemoryError is not among them: it may
# be the machine's fault, and an image must not lose its label for that.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class Interpolation(StrEnum):
    """How PIL resizes, by timm's names."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"
    BOX = "box"
    HAMMING = "hamming"

    @property
    def resampling(self) -> Image.Resampling:
        """PIL's constant."""
        return Image.Resampling[self.name]


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Parameters
    ----------
    pixels
        RGB, uint8 ``(height, width, 3)`` of the teacher's input: the whole image, squashed.
    width, height
        Of the image as stored in its file, in pixels, before any EXIF rotation.
    exif_orientation
        1 to 8; 1 where there is none. It was not applied.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    exif_orientation: int


def decode_image(data: bytes, *, size: tuple[int, int], interpolation: Interpolation) -> Decoded:
    """Return the pixels of an image file, squashed to a size.

    Parameters
    ----------
    size
        ``(height, width)`` in pixels.

    Raises
    ------
    BadImageError
        The bytes are no image that can be decoded; the message is one line on why.
    """
    image, orientation = _open(data)
    squashed = image.resize((size[1], size[0]), interpolation.resampling)
    return Decoded(np.asarray(squashed), image.width, image.height, orientation)


def open_rgb(data: bytes) -> Image.Image:
    """Return the whole image as RGB, 8 bits a channel.

    Raises
    ------
    BadImageError
        The bytes are no image that can be decoded.
    """
    return _open(data)[0]


def _open(data: bytes) -> tuple[Image.Image, int]:
    if not data:
        raise BadImageError("empty file")
    # PIL warns of broken metadata, of large images and of transparency: none of it changes a pixel here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _require_sane_size(image)
                return _to_rgb(image), _orientation(image)
        except UnidentifiedImageError as error:
            raise BadImageError(
                f"no image in a known format: {len(data)} bytes, {data[:8]!r} first"
            ) from error
        except _DECODER_ERRORS as error:
            raise BadImageError(_reason(error)) from error


def _require_sane_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(f"{image.width} x {image.height} pixels, expected at most {MAX_PIXELS:,}")
    if not image.width or not image.height:
        raise BadImageError(f"{image.width} x {image.height} pixels, expected at least one")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bit(image).convert("RGB")
    if image.mode == "F":
        raise BadImageError("floating-point pixels, whose range is not defined; expected 8 or 16 bits")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Return a 16-bit grey image with 8 bits: its high bytes, as PIL itself keeps of 16-bit colour.

    PIL's own conversion clips at 255, which leaves nearly every such photo white.
    """
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 0xFFFF:
        raise BadImageError(f"grey values from {low} to {high}, expected 16 bits without sign")
    return Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODER_ERRORS:
        return 1  # an image may be whole while its metadata is not
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _reason(error: Exception) -> str:
    if isinstance(error, BadImageError):
        return str(error)
    # PIL puts the repr of the file object, with its address, into some messages.
    text = " ".join(re.sub(r"<[^<>]* object at 0x[0-9a-fA-F]+>", "", str(error)).split())
    return text[:_MAX_REASON].rstrip(".") or type(error).__name__  # messages go on after it

from __future__ import annotations

import contextlib
import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from relabel_store.errors import BadImageError
from relabel_store.generate.decode import MAX_PIXELS, Interpolation, decode_image, open_rgb

SIZE = (24, 40)  # (height, width)
RNG_SEED = 7


def photo(mode: str = "RGB", size: tuple[int, int] = (61, 33)) -> Image.Image:
    """Smooth colours with noise on them: nothing that two resizing methods agree on by chance."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 4 % 256, y * 7 % 256, (x + y) * 3 % 256], axis=-1)
    noise = np.random.default_rng(RNG_SEED).integers(-30, 30, smooth.shape)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).convert(mode)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


ORDINARY = {
    "JPEG": encode(photo(), "JPEG"),
    "progressive JPEG": encode(photo(), "JPEG", progressive=True),
    "grey JPEG": encode(photo("L"), "JPEG"),
    "CMYK JPEG": encode(photo("CMYK"), "JPEG"),
    "PNG": encode(photo(), "PNG"),
    "palette PNG": encode(photo("P"), "PNG"),
    "RGBA PNG": encode(photo("RGBA"), "PNG"),
    "grey PNG with alpha": encode(photo("LA"), "PNG"),
    "1-bit PNG": encode(photo("1"), "PNG"),
    "GIF": encode(photo("P"), "GIF"),
    "WebP": encode(photo(), "WEBP", lossless=True),
    "BMP": encode(photo(), "BMP"),
    "PPM": encode(photo(), "PPM"),
    "TIFF": encode(photo(), "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_pixels_are_those_of_pil(kind: str):
    decoded = decode_image(ORDINARY[kind], size=SIZE, interpolation=Interpolation.BICUBIC)
    with Image.open(io.BytesIO(ORDINARY[kind])) as image:
        whole = image.convert("RGB")
    expected = np.asarray(whole.resize((40, 24), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(decoded.pixels, expected, strict=True)
    assert (decoded.width, decoded.height, decoded.exif_orientation) == (61, 33, 1)
    np.testing.assert_array_equal(np.asarray(open_rgb(ORDINARY[kind])), np.asarray(whole))


@pytest.mark.parametrize("interpolation", Interpolation)
def test_every_interpolation_is_pils(interpolation: Interpolation):
    found = decode_image(ORDINARY["PNG"], size=SIZE, interpolation=interpolation).pixels
    expected = photo().resize((40, 24), getattr(Image.Resampling, interpolation.name))
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_transparency_in_a_palette_is_dropped_without_a_warning():
    plain = photo("P")
    transparent = encode(plain, "PNG", transparency=bytes(range(0, 250, 5)))
    found = decode_image(transparent, size=(33, 61), interpolation=Interpolation.NEAREST).pixels
    np.testing.assert_array_equal(found, np.asarray(plain.convert("RGB")))


def grey_16_bit() -> np.ndarray:
    return np.random.default_rng(RNG_SEED).integers(0, 65536, (33, 61)).astype(np.uint16)


def pgm(values: np.ndarray) -> bytes:
    height, width = values.shape
    return f"P5 {width} {height} 65535\n".encode() + values.astype(">u2").tobytes()


@pytest.mark.parametrize(
    "make",
    [
        lambda values: encode(Image.fromarray(values), "PNG"),
        lambda values: encode(Image.fromarray(values), "TIFF"),
        pgm,
    ],
    ids=["PNG", "TIFF", "PGM"],
)
def test_16_bit_grey_keeps_its_picture(make: Callable[[np.ndarray], bytes]):
    values = grey_16_bit()
    found = decode_image(make(values), size=(33, 61), interpolation=Interpolation.NEAREST).pixels
    np.testing.assert_array_equal(found, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=-1))


def test_the_range_of_floating_point_pixels_is_not_guessed():
    with pytest.raises(BadImageError, match="floating-point"):
        decode_image(encode(photo("F"), "TIFF"), size=SIZE, interpolation=Interpolation.BILINEAR)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_is_reported_and_not_applied(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = encode(photo(), "JPEG", exif=exif)
    found = decode_image(turned, size=SIZE, interpolation=Interpolation.BICUBIC)
    straight = decode_image(ORDINARY["JPEG"], size=SIZE, interpolation=Interpolation.BICUBIC)
    assert found.exif_orientation == orientation
    assert (found.width, found.height) == (61, 33)
    np.testing.assert_array_equal(found.pixels, straight.pixels)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0junk", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0", b"\0" * 40]
)
def test_garbage_in_the_metadata_does_no_harm(exif: bytes):
    found = decode_image(encode(photo(), "JPEG", exif=exif), size=SIZE, interpolation=Interpolation.BICUBIC)
    assert found.exif_orientation == 1


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_does_not_exist_is_none(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode_image(encode(photo(), "JPEG", exif=exif), size=SIZE, interpolation=Interpolation.BICUBIC)
    assert found.exif_orientation == 1


def test_an_animation_is_its_first_frame():
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data, size=(1, 1), interpolation=Interpolation.BOX).pixels.tolist() == [[[255, 0, 0]]]


def tiny_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


BAD = {
    "empty": (b"", "^empty file$"),
    "junk": (b"junk" * 50, "no image in a known format: 200 bytes"),
    "truncated JPEG": (ORDINARY["JPEG"][:-300], "truncated"),
    "truncated PNG": (ORDINARY["PNG"][:2000], "."),
    "header only": (ORDINARY["JPEG"][:100], "."),
    "gigapixels": (tiny_png(60_000, 60_000), "3600000000"),
    "above the limit": (tiny_png(MAX_PIXELS // 10_000 + 1, 10_000), "pixels"),
    "no pixels": (tiny_png(0, 10), "."),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "known format"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "known format"),
    "PDF": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "known format"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_is_refused_in_one_line(kind: str):
    data, message = BAD[kind]
    with pytest.raises(BadImageError, match=message) as caught:
        decode_image(data, size=SIZE, interpolation=Interpolation.BICUBIC)
    reason = str(caught.value)
    assert "\n" not in reason
    assert " at 0x" not in reason
    assert not reason.endswith(".")  # what to do comes after it
    assert len(reason) < 200


def require_decoded_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadImageError):
        decoded = decode_image(data, size=(8, 8), interpolation=Interpolation.BILINEAR)
        assert decoded.pixels.shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ORDINARY)
def test_no_damage_makes_the_decoder_fail_otherwise(kind: str):
    rng = random.Random(RNG_SEED)
    for _ in range(250):
        data = bytearray(ORDINARY[kind])
        for _ in range(rng.choice((1, 1, 3, 12))):
            # Half of the damage goes into the header, where the structure is.
            where = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 120))
            data[where] = rng.randrange(256)
        require_decoded_or_refused(bytes(data[: rng.randrange(len(data))] if rng.random() < 0.3 else data))


@given(data=st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes):
    require_decoded_or_refused(data)

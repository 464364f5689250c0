from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from relabel_store.images.pixels import cell_colours, middle_square, read_header
from relabel_store.manifest import Resize


def encoded(pixels: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def stripes() -> np.ndarray:
    """Six columns of eight pixels, each of a grey of its own, eight rows high."""
    return np.repeat(np.arange(6, dtype=np.uint8) * 40, 8)[None, :, None].repeat(8, axis=0).repeat(3, axis=2)


def test_a_header_says_the_size_before_any_rotation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_header(encoded(stripes())) == (48, 8, 1)
    assert read_header(encoded(stripes(), "JPEG", exif=exif)) == (48, 8, 6)
    assert read_header(encoded(stripes(), "JPEG")[:-20]) == (48, 8, 1)


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_has_neither_header_nor_colours(data: bytes) -> None:
    assert read_header(data) is None
    assert cell_colours(data, (2, 2), Resize.SQUASH) is None


def test_an_image_that_is_cut_off_has_no_colours() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert cell_colours(encoded(noise)[:2000], (2, 2), Resize.SQUASH) is None


def test_cells_have_the_mean_colour_of_what_they_cover() -> None:
    found = cell_colours(encoded(stripes()), (1, 6), Resize.SQUASH, Resize.CENTER_CROP, Resize.UNKNOWN)
    assert found is not None
    whole, middle, unknown = found
    assert whole.shape == (1, 6, 3)
    assert whole[0, :, 0].tolist() == [0, 40, 80, 120, 160, 200]
    assert set(middle[0, :, 0]) <= {
        80.0,
        93.0,
        100.0,
        107.0,
        120.0,
    }  # half of each of the two columns in the middle
    assert middle[0, 0, 0] == 80
    assert middle[0, -1, 0] == 120
    assert (unknown == whole).all()


def test_the_middle_square_is_the_largest_one() -> None:
    assert middle_square(48, 8) == (20, 0, 28, 8)
    assert middle_square(8, 13) == (0, 2, 8, 10)

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("matplotlib")

from matplotlib import colormaps, rc_context, rcParams
from matplotlib.figure import Figure
from matplotlib.text import Text

from relabel_store.errors import FormatError, MissingDependencyError
from relabel_store.inspect import picture
from relabel_store.inspect.picture import draw_label_map, require_png, save_picture

PANEL_TITLES = {"Photo", "Winning class", "Confidence"}


def make_photo(width: int = 40, height: int = 30) -> Image.Image:
    ramp = np.add.outer(np.arange(height), np.arange(width)) % 256
    return Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2], axis=-1).astype(np.uint8))


def make_arguments(
    winners: Any, *, k: int = 2, num_classes: int = 1000, value: float = 8.0, **others: Any
) -> dict[str, Any]:
    """Return arguments of draw_label_map for a map of these winning classes."""
    winners = np.asarray(winners)
    indices = (winners + np.arange(k)[:, None, None]) % num_classes
    values = np.broadcast_to(value - np.arange(k)[:, None, None], indices.shape)
    arguments = {
        "photo": make_photo(),
        "indices": indices.astype(np.uint16),
        "values": values.astype(np.float16),
        "num_classes": num_classes,
        "title": "n01440764/n01440764_0001",
        "subtitle": "a teacher · a dataset",
    }
    return arguments | others


def make_winners(n_rows: int, n_cols: int, n_classes: int) -> NDArray[np.intp]:
    """Return winners that change from cell to cell, class 0 the most frequent."""
    winners = 3 * np.add.outer(np.arange(n_rows) * 5, np.arange(n_cols)) % (2 * n_classes)
    return np.where(winners < n_classes, winners, 0)


def texts_of(figure: Figure) -> list[Text]:
    return [artist for artist in figure.artists if isinstance(artist, Text)]


def strings_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in texts_of(figure) if text.get_text()]


def pixels_of(figure: Figure) -> NDArray[np.uint8]:
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def boxes_of(figure: Figure) -> list[tuple[str, float, float, float, float]]:
    """Return each text with its (x0, y0, x1, y1) in pixels."""
    canvas: Any = figure.canvas
    found = []
    for text in texts_of(figure):
        if text.get_text():
            box = text.get_window_extent(canvas.get_renderer())
            found.append((text.get_text(), box.x0, box.y0, box.x1, box.y1))
    return found


def panels_of(figure: Figure) -> list[tuple[float, float, float, float]]:
    """Return (x0, y0, x1, y1) of the three panels and of the colour bar, in pixels."""
    return [tuple(axes.get_window_extent().extents) for axes in figure.axes]


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    # A pixel of slack: extents are those of the font, ink is smaller.
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width > 1 and height > 1


@pytest.fixture
def no_fallback_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from use_fallback_fonts(monkeypatch, ())


@pytest.fixture
def stix_as_fallback_font(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from use_fallback_fonts(monkeypatch, ("No Such Font", "STIXGeneral"))


def use_fallback_fonts(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> Iterator[None]:
    monkeypatch.setattr(picture, "FALLBACK_FONTS", names)
    picture._families.cache_clear()
    picture._font_files.cache_clear()
    yield
    picture._families.cache_clear()
    picture._font_files.cache_clear()


SHAPES = {
    "landscape": ((40, 30), (15, 15)),
    "square": ((30, 30), (15, 15)),
    "portrait": ((30, 40), (15, 15)),
    "portrait-keys-as-close-as-they-get": ((30, 40), (17, 17)),
    "wide": ((400, 40), (15, 15)),
    "wider": ((4000, 4), (15, 15)),
    "tall": ((40, 400), (15, 15)),
    "taller": ((4, 4000), (15, 15)),
    "one-pixel": ((1, 1), (7, 7)),
    "one-cell": ((40, 30), (1, 1)),
    "more-rows": ((40, 30), (20, 3)),
    "more-columns": ((40, 30), (3, 20)),
    "more-cells-than-pixels": ((400, 40), (200, 60)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_classes", [1, 2, 8, 9, 30])
def test_nothing_overlaps_or_leaves_the_picture(
    shape: str, n_classes: int, caplog: pytest.LogCaptureFixture
) -> None:
    photo_size, grid = SHAPES[shape]
    names = [f"American Staffordshire terrier of the {i}th kind, pit bull" for i in range(1000)]
    winners = make_winners(*grid, n_classes)
    figure = draw_label_map(
        **make_arguments(winners, photo=make_photo(*photo_size), class_names=names, title="W" * 300)
    )
    height, width, _ = pixels_of(figure).shape
    assert width == 1600
    assert 300 < height < 1800
    boxes = boxes_of(figure)
    assert {name for name, *_ in boxes} >= PANEL_TITLES
    for _, x0, y0, x1, y1 in boxes:
        assert x0 >= 40
        assert y0 >= 30
        assert x1 <= width - 40
        assert y1 <= height - 30
    for one, other in itertools.combinations(boxes, 2):
        assert not overlap(one[1:], other[1:]), (one, other)
    for one_panel, other_panel in itertools.combinations(panels_of(figure), 2):
        assert not overlap(one_panel, other_panel)
    for (name, *box), panel in itertools.product(boxes, panels_of(figure)):
        assert name in "12345678" or not overlap(tuple(box), panel)
    assert not caplog.records


def test_three_panels_have_the_shape_of_the_photo() -> None:
    for size in ((40, 30), (30, 40), (80, 20)):
        figure = draw_label_map(**make_arguments(make_winners(3, 3, 4), photo=make_photo(*size)))
        panels = panels_of(figure)[:3]
        sizes = {(round(x1 - x0), round(y1 - y0)) for x0, y0, x1, y1 in panels}
        assert len(sizes) == 1
        width, height = sizes.pop()
        assert width / height == pytest.approx(size[0] / size[1], rel=0.01)


def test_legend_names_eight_classes_by_area_and_counts_the_others() -> None:
    winners = np.repeat(np.arange(100, 112), np.arange(12, 0, -1))  # class 100 in 12 cells, 111 in 1
    figure = draw_label_map(**make_arguments(winners.reshape(6, 13)))
    strings = strings_of(figure)
    names = [string for string in strings if string.startswith("class ")]
    assert names == [f"class {index}" for index in range(100, 108)]
    assert "4 other classes" in strings
    assert [string for string in strings if string.endswith(" %")] == [
        f"{share} %" for share in (15, 14, 13, 12, 10, 9, 8, 6, 13)
    ]


def test_one_class_more_than_named_is_counted_in_the_singular() -> None:
    assert "1 other class" in strings_of(draw_label_map(**make_arguments(np.arange(9).reshape(3, 3))))


def test_names_are_cut_to_the_first_synonym() -> None:
    names = ["electric ray, crampfish, numbfish, torpedo", " ", ""]
    figure = draw_label_map(**make_arguments([[0, 1, 2]], num_classes=3, class_names=names))
    assert {"electric ray", "class 1", "class 2"} <= set(strings_of(figure))


def test_equal_names_are_told_apart_by_class_index() -> None:
    names = ["crane, bird", "tench", "crane"]
    figure = draw_label_map(**make_arguments([[0, 1, 2]], num_classes=3, class_names=names))
    assert {"crane (0)", "crane (2)", "tench"} <= set(strings_of(figure))


@pytest.mark.parametrize(
    ("n_cells", "shares"),
    [
        pytest.param((225,), ["100 %"], id="all"),
        pytest.param((224, 1), [">99 %", "<1 %"], id="nearly-all"),
        pytest.param((150, 75), ["67 %", "33 %"], id="thirds"),
    ],
)
def test_shares_are_whole_percent_and_never_round_to_none_or_all(
    n_cells: tuple[int, ...], shares: list[str]
) -> None:
    winners = np.repeat(np.arange(len(n_cells)), n_cells).reshape(15, 15)
    strings = strings_of(draw_label_map(**make_arguments(winners, num_classes=2, k=1)))
    assert [string for string in strings if string.endswith("%")] == shares


def test_each_class_has_one_colour_that_the_others_lack() -> None:
    winners = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1], [2, 3, 4, 5], [6, 7, 0, 1]])
    photo = Image.new("RGB", (400, 300), "white")
    figure = draw_label_map(**make_arguments(winners, photo=photo))
    pixels = pixels_of(figure)
    x0, y0, x1, y1 = panels_of(figure)[1]
    colours: dict[int, set[tuple[int, ...]]] = {}
    for (row, col), winner in np.ndenumerate(winners):
        # A quarter into the cell: its centre may hold a number.
        x = int(x0 + (col + 0.25) * (x1 - x0) / 4)
        y = int(len(pixels) - y1 + (row + 0.25) * (y1 - y0) / 5)
        colours.setdefault(min(int(winner), 8), set()).add(tuple(pixels[y, x].tolist()))
    assert all(len(found) == 1 for found in colours.values())
    assert len({colour for found in colours.values() for colour in found}) == 9
    (grey,) = colours[8]
    assert max(grey) - min(grey) <= 1
    assert grey[0] == pytest.approx(0.45 * 0x8C + 0.55 * 255, abs=1)


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(np.intp, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 2)))
def test_borders_equal_plain_loops(groups: NDArray[np.intp]) -> None:
    expected = set()
    n_rows, n_cols = groups.shape
    for row, col in np.ndindex(n_rows, n_cols):
        if col + 1 < n_cols and groups[row, col] != groups[row, col + 1]:
            expected.add(((col + 1, row), (col + 1, row + 1)))
        if row + 1 < n_rows and groups[row, col] != groups[row + 1, col]:
            expected.add(((col, row + 1), (col + 1, row + 1)))
    found = [tuple(map(tuple, border)) for border in picture._borders(groups).tolist()]
    assert len(found) == len(expected)
    assert set(found) == expected


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 6))).filter(np.any))
def test_largest_block_equals_plain_loops(mask: NDArray[np.bool_]) -> None:
    n_rows, n_cols = mask.shape
    expected = max(
        size
        for row, col in np.ndindex(n_rows, n_cols)
        for size in range(1, min(n_rows - row, n_cols - col) + 1)
        if mask[row : row + size, col : col + size].all()
    )
    row, col, size = picture._largest_block(mask)
    assert size == expected
    assert mask[row : row + size, col : col + size].all()


def test_confidence_has_the_same_colours_in_every_picture() -> None:
    for value in (0.0, 4.0, 9.0):
        figure = draw_label_map(**make_arguments([[0, 1]], k=1, num_classes=50, value=value))
        confidence = np.exp(value) / (np.exp(value) + 49)
        x0, y0, x1, y1 = panels_of(figure)[2]
        pixels = pixels_of(figure)
        found = pixels[int(len(pixels) - (y0 + y1) / 2), int((x0 + x1) / 2)]
        expected = 255 * np.array(colormaps["viridis"](confidence)[:3])
        np.testing.assert_allclose(found, expected, atol=1)
        assert f"mean {confidence:.2f}" in strings_of(figure)


def test_rest_lowers_the_confidence() -> None:
    arguments = make_arguments([[0]], k=1, num_classes=50, value=4.0)
    rest = np.full((1, 1), 4.0, dtype=np.float16)
    assert "mean 0.50" in strings_of(draw_label_map(**arguments, rest=rest))


def test_photo_is_drawn_in_its_own_colours() -> None:
    figure = draw_label_map(**make_arguments([[0]], photo=Image.new("RGB", (40, 30), (10, 200, 90))))
    x0, _, x1, y1 = panels_of(figure)[0]
    pixels = pixels_of(figure)
    assert pixels[len(pixels) - int(y1) + 20, int((x0 + x1) / 2)].tolist() == [10, 200, 90]


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK"])
def test_photos_of_other_modes_are_drawn(mode: str) -> None:
    photo = make_photo().convert(mode)
    assert pixels_of(draw_label_map(**make_arguments([[0, 1]], photo=photo))).shape[1] == 1600


def test_white_photo_makes_no_colour_overflow(caplog: pytest.LogCaptureFixture) -> None:
    photo = Image.new("RGB", (40, 30), "white")
    pixels_of(draw_label_map(**make_arguments(make_winners(5, 5, 12), photo=photo)))
    assert not caplog.records


def test_title_is_no_formula() -> None:
    title = r"train/$x_1^2$ and \$5 {a}_b"
    figure = draw_label_map(**make_arguments([[0]], title=title, subtitle="$\\frac{1}{2}$ $"))
    pixels_of(figure)
    assert {title, "$\\frac{1}{2}$ $"} <= set(strings_of(figure))


def test_signs_of_formulas_take_room_in_the_title() -> None:
    widths = []
    for title in ("$x_1^2$", "x_1^2", "x12"):
        _, x0, _, x1, _ = boxes_of(draw_label_map(**make_arguments([[0]], title=title)))[0]
        widths.append(x1 - x0)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[2] + 60


def test_long_title_keeps_both_ends() -> None:
    title = "first/" + "x" * 300 + "/last_0001"
    shown = strings_of(draw_label_map(**make_arguments([[0]], title=title)))[0]
    assert shown.startswith("first/x")
    assert shown.endswith("x/last_0001")
    assert "…" in shown


@pytest.mark.usefixtures("no_fallback_fonts")
@pytest.mark.parametrize(
    ("title", "shown"),
    [
        pytest.param("катя/été_Ωμ", "катя/été_Ωμ", id="in-the-font"),
        pytest.param("a 猫 b", r"a \u732b b", id="no-font-has-it"),
        pytest.param("a\nb\tc\x00", r"a\nb\tc\x00", id="control-characters"),
        pytest.param("a\u202eb", r"a\u202eb", id="direction-override"),
        pytest.param("a\udc80b", r"a\udc80b", id="surrogate"),
        pytest.param("a\u3000b\xa0c", "a b c", id="other-spaces"),
        pytest.param("عربى हिन्दी", None, id="joined-scripts"),
    ],
)
def test_any_text_is_drawn_without_a_missing_glyph(
    title: str, shown: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    figure = draw_label_map(
        **make_arguments([[0]], num_classes=2, title=title, subtitle=title, class_names=[title, title])
    )
    pixels_of(figure)  # a missing glyph would warn here, and warnings are errors
    if shown is not None:
        assert strings_of(figure).count(shown) == 3
    assert not caplog.records


@pytest.mark.usefixtures("stix_as_fallback_font")
def test_installed_fallback_font_draws_what_the_font_lacks(caplog: pytest.LogCaptureFixture) -> None:
    figure = draw_label_map(**make_arguments([[0]], title="a frown: ⌢"))
    pixels_of(figure)
    assert "a frown: ⌢" in strings_of(figure)
    assert not caplog.records


def test_without_subtitle_the_picture_is_lower() -> None:
    arguments = make_arguments([[0]])
    tall = pixels_of(draw_label_map(**arguments))
    low = pixels_of(draw_label_map(**arguments | {"subtitle": ""}))
    assert len(low) < len(tall)


def test_damaged_map_is_refused() -> None:
    with pytest.raises(FormatError, match="class index 5, expected 0 to 4"):
        draw_label_map(**make_arguments([[5]], k=1) | {"num_classes": 5})


def png_of(folder: Path, name: str = "a.png", **arguments: Any) -> bytes:
    path = folder / name
    save_picture(draw_label_map(**make_arguments(make_winners(7, 7, 12), **arguments)), path)
    return path.read_bytes()


def test_equal_pictures_have_equal_bytes(tmp_path: Path) -> None:
    first = png_of(tmp_path, "first.png")
    assert first == png_of(tmp_path, "second.png")
    assert first != png_of(tmp_path, "third.png", title="another")


def test_file_is_an_rgb_png_without_metadata(tmp_path: Path) -> None:
    png_of(tmp_path, "a.PNG")
    with Image.open(tmp_path / "a.PNG") as image:
        assert (image.format, image.mode, image.width) == ("PNG", "RGB", 1600)
        assert not image.info
        assert image.getpixel((0, 0)) == (255, 255, 255)


def test_threads_draw_the_same_picture(tmp_path: Path) -> None:
    alone = png_of(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: png_of(tmp_path, f"{i}.png"), range(8)))
    assert set(together) == {alone}


def test_settings_of_the_user_change_nothing_and_are_not_changed(tmp_path: Path) -> None:
    alone = png_of(tmp_path)
    mine: dict[str, Any] = {
        "text.usetex": True,
        "text.parse_math": True,
        "font.family": "serif",
        "font.size": 40,
        "figure.dpi": 37,
        "savefig.dpi": 37,
        "figure.facecolor": "red",
        "figure.frameon": False,
        "figure.constrained_layout.use": True,
        "axes.grid": True,
        "axes.facecolor": "black",
        "image.interpolation": "bicubic",
        "image.origin": "lower",
        "image.cmap": "gray",
        "lines.antialiased": False,
        "patch.antialiased": False,
        "patch.force_edgecolor": True,
        "text.antialiased": False,
        "text.color": "red",
    }
    with rc_context(mine):
        before = dict(rcParams)
        assert png_of(tmp_path) == alone
        assert dict(rcParams) == before


def test_drawing_does_not_load_pyplot() -> None:
    code = """
import sys
import numpy as np
from PIL import Image
from relabel_store.inspect.picture import draw_label_map

cell = np.ones((1, 1, 1))
draw_label_map(Image.new("RGB", (9, 9)), cell.astype(int), cell, num_classes=2, title="a").canvas.draw()
sys.exit("matplotlib.pyplot" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["a.jpg", "a", ".png", "a.png.bak", "a.svg"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"only PNG is written; name it '.+\.png'"):
        require_png(tmp_path / name)
    with pytest.raises(ValueError, match="only PNG is written"):
        save_picture(draw_label_map(**make_arguments([[0]])), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_saving_replaces_a_file_and_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    written = png_of(tmp_path)
    assert written.startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_name_as_long_as_the_file_system_allows_is_written(tmp_path: Path) -> None:
    assert png_of(tmp_path, "x" * 251 + ".png")


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
def test_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    png_of(tmp_path)
    (tmp_path / "other").touch()
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_interrupted_saving_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"old")

    def fail(image: Image.Image, path: Path, **options: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        png_of(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        save_picture(draw_label_map(**make_arguments([[0]])), tmp_path / "nowhere" / "a.png")


def test_missing_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "relabel_store.inspect.picture")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'relabel-store\[plot\]'"):
        importlib.import_module("relabel_store.inspect.picture")

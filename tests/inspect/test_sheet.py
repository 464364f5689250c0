from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from relabel_store.errors import MissingDependencyError

pytest.importorskip("matplotlib")

from matplotlib import rc_context, rcParams

from relabel_store.inspect import sheet

Draw = Callable[..., Any]


@pytest.fixture
def no_fallback_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from use_fallback_fonts(monkeypatch, ())


@pytest.fixture
def stix_as_fallback_font(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from use_fallback_fonts(monkeypatch, ("No Such Font", "STIXGeneral"))


def use_fallback_fonts(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> Iterator[None]:
    monkeypatch.setattr(sheet, "FALLBACK_FONTS", names)
    sheet._families.cache_clear()
    sheet._font_files.cache_clear()
    yield
    sheet._families.cache_clear()
    sheet._font_files.cache_clear()


def test_title_is_no_formula(draw: Draw) -> None:
    title = r"train/$x_1^2$ and \$5 {a}_b"
    picture = draw([[0]], title=title, subtitle="$\\frac{1}{2}$ $")
    assert picture.pixels.any()
    assert {title, "$\\frac{1}{2}$ $"} <= set(picture.strings)


def test_signs_of_formulas_take_room_in_the_title(draw: Draw) -> None:
    widths = []
    for title in ("$x_1^2$", "x_1^2", "x12"):
        _, (x0, _, x1, _) = draw([[0]], title=title).boxes[0]
        widths.append(x1 - x0)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[2] + 60


def test_long_title_keeps_both_ends(draw: Draw) -> None:
    title = "first/" + "x" * 300 + "/last_0001"
    shown = draw([[0]], title=title).strings[0]
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
    draw: Draw, title: str, shown: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    picture = draw([[0]], num_classes=2, title=title, subtitle=title, class_names=[title, title])
    assert picture.pixels.any()  # a missing glyph would warn here, and warnings are errors
    if shown is not None:
        assert picture.strings.count(shown) == 3
    assert not caplog.records


@pytest.mark.usefixtures("stix_as_fallback_font")
def test_installed_fallback_font_draws_what_the_font_lacks(
    draw: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    picture = draw([[0]], title="a frown: ⌢")
    assert picture.pixels.any()
    assert "a frown: ⌢" in picture.strings
    assert not caplog.records


def test_threads_draw_the_same_picture(png_of: Callable[..., bytes], tmp_path: Path) -> None:
    alone = png_of(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: png_of(tmp_path, f"{i}.png"), range(8)))
    assert set(together) == {alone}


def test_settings_of_the_user_change_nothing_and_are_not_changed(
    png_of: Callable[..., bytes], tmp_path: Path
) -> None:
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


def test_drawing_does_not_load_pyplot(draw: Draw) -> None:
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


def test_missing_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {f"relabel_store.inspect.{name}" for name in ("picture", "legend", "sheet")}
    for name in [name for name in sys.modules if name in ours or name.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'relabel-store\[plot\]'"):
        importlib.import_module("relabel_store.inspect.picture")

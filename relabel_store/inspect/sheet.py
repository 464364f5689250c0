"""A white sheet to draw on, addressed in pixels.

Through matplotlib's object interface only: no pyplot, no setting changed, safe in threads.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from relabel_store.errors import MissingDependencyError
from relabel_store.inspect.layout import Box

try:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
    from matplotlib.patches import Rectangle
    from matplotlib.text import Text
except ImportError as error:
    raise MissingDependencyError(
        f"pictures: matplotlib cannot be imported ({error}), "
        "install it with `pip install 'relabel-store[plot]'`"
    ) from error

DPI = 100  # lengths are pixels at this resolution
FRAME_COLOUR = "#d0d7de"

FONT = "DejaVu Sans"  # comes with matplotlib
# Tried in this order for scripts that FONT lacks, where they are installed.
FALLBACK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei",
    "Yu Gothic", "Malgun Gothic", "WenQuanYi Micro Hei", "Noto Sans Devanagari", "Noto Sans Bengali",
    "Noto Sans Tamil", "Noto Sans Thai", "Nirmala UI", "Leelawadee UI", "Arial Unicode MS",
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How a line of text looks; ``size`` in pixels."""

    size: int
    weight: str
    colour: str


Align = Literal["left", "center", "right"]
INK = "#1f2328"
MUTED_INK = "#59636e"
TITLE = Style(34, "bold", INK)
SUBTITLE = Style(24, "normal", MUTED_INK)
CAPTION = Style(22, "bold", INK)
NOTE = Style(20, "normal", MUTED_INK)
ENTRY = Style(23, "normal", INK)


def keep_start(text: str, length: int) -> str:
    """Return so many characters of the beginning of a text."""
    return text[:length].rstrip() + "…"


def keep_both_ends(text: str, length: int) -> str:
    """Return so many characters of a text whose beginning and end matter, such as a sample id."""
    return text[: length - length // 2] + "…" + text[len(text) - length // 2 :]


class Sheet:
    """A white figure addressed in pixels from its top left corner.

    What a matplotlibrc is likely to change is given by hand, so that pictures do not depend on it:
    changing rcParams for the time of a call would disturb other threads.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(
            figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white", linewidth=0, frameon=True
        )
        self.figure.set_layout_engine("none")
        canvas: Any = FigureCanvasAgg(self.figure)  # its methods are untyped
        self._renderer = canvas.get_renderer()

    def draw_image(self, box: Box, image: NDArray[Any]) -> Axes:
        """Fill ``box`` with RGB cells of equal size, ``(n_rows, n_cols, 3)``, and return its axes."""
        axes = self._axes(box)
        extent = (0, box.width, box.height, 0)
        axes.imshow(
            image, extent=extent, origin="upper", aspect="auto", interpolation="nearest", resample=False
        )
        axes.set_xlim(0, box.width)
        axes.set_ylim(box.height, 0)
        self.rectangle(box, fill="none", edge=FRAME_COLOUR)
        return axes

    def draw_lines(self, axes: Axes, ends: NDArray[np.float64]) -> None:
        """Draw white lines, ``(n, 2, 2)``: ends, then x and y in pixels of the axes."""
        lines = LineCollection(list(ends), colors="white", linewidths=_points(2), capstyle="projecting")
        axes.add_collection(lines, autolim=False)

    def _axes(self, box: Box) -> Axes:
        """Return bare axes over ``box``; their data coordinates are its pixels."""
        left, bottom = box.left / self.width, 1 - box.bottom / self.height
        axes = self.figure.add_axes((left, bottom, box.width / self.width, box.height / self.height))
        axes.set_axis_off()
        return axes

    def rectangle(self, box: Box, *, fill: str | tuple[float, ...], edge: str = "none") -> None:
        """Draw a rectangle with an edge of one pixel."""
        self.figure.add_artist(
            Rectangle(
                (box.left / self.width, 1 - box.bottom / self.height),
                box.width / self.width,
                box.height / self.height,
                facecolor=fill,
                edgecolor=edge,
                linewidth=_points(1),
                antialiased=True,
                transform=self.figure.transFigure,
                zorder=3,
            )
        )

    def write(
        self,
        left: float,
        baseline: float,
        text: str,
        style: Style,
        *,
        room: int,
        align: Align = "left",
        shorten: Callable[[str, int], str] = keep_start,
    ) -> None:
        """Write one line, shortened to ``room`` pixels."""
        text = _readable(text, style.weight)
        self.figure.add_artist(
            Text(
                left / self.width,
                1 - baseline / self.height,
                self._fit(text, style, room, shorten),
                color=style.colour,
                fontproperties=_font(style),
                horizontalalignment=align,
                verticalalignment="baseline",
                transform=self.figure.transFigure,
                usetex=False,
                parse_math=False,
                antialiased=True,
                zorder=4,
            )
        )

    def measure(self, text: str, style: Style) -> int:
        """Return the width of one line in pixels."""
        width: float
        width, _, _ = self._renderer.get_text_width_height_descent(text, _font(style), ismath=False)
        return math.ceil(width)

    def _fit(self, text: str, style: Style, room: int, shorten: Callable[[str, int], str]) -> str:
        if self.measure(text, style) <= room:
            return text
        fits, too_long = 0, len(text)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if self.measure(shorten(text, middle), style) <= room:
                fits = middle
            else:
                too_long = middle
        return shorten(text, fits)


def _points(pixels: float) -> float:
    return pixels * 72 / DPI


def _font(style: Style) -> FontProperties:
    return FontProperties(
        family=_families(),
        style="normal",
        variant="normal",
        stretch="normal",
        weight=style.weight,
        size=_points(style.size),
    )


@cache
def _families() -> tuple[str, ...]:
    installed = set(fontManager.get_font_names())
    return (FONT, *(name for name in FALLBACK_FONTS if name in installed))


@cache
def _font_files(weight: str) -> tuple[Any, ...]:
    return tuple(findfont(FontProperties(family=[name], weight=weight)) for name in _families())


def _readable(text: str, weight: str) -> str:
    """Return ``text`` with escapes in place of the characters that cannot be drawn on one line."""
    fonts = [get_font(file) for file in _font_files(weight)]

    def drawn(character: str) -> str:
        if unicodedata.category(character) == "Zs":
            return " "
        if character.isprintable() and any(font.get_char_index(ord(character)) for font in fonts):
            return character
        return character.encode("unicode_escape").decode("ascii")

    return "".join(map(drawn, text))

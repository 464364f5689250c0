"""The picture of one label map: the photo, the winning class of each cell, how sure the teacher is.

Drawn through matplotlib's object interface only: no pyplot, no setting changed, safe in threads.
"""

from __future__ import annotations

import math
import unicodedata
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relabel_store.errors import MissingDependencyError
from relabel_store.inspect.areas import ClassArea, cell_confidence, class_areas

try:
    from matplotlib import colormaps
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
    from matplotlib.patches import Rectangle
    from matplotlib.text import Text
except ImportError as error:
    raise MissingDependencyError(
        f"pictures: matplotlib cannot be imported ({error}), "
        "install it with `pip install 'relabel-store[plot]'`"
    ) from error

__all__ = ["draw_label_map", "require_png", "save_picture"]

DPI = 100  # lengths are pixels at this resolution
WIDTH = 1600
MARGIN = 48
GAP = 36
CAPTION_HEIGHT = 38
BAR_HEIGHT = 66  # the colour bar with its ticks and the space above it
LEGEND_PITCH = 42
SWATCH = 30
LEGEND_WIDTH = 430
MAX_PANEL_HEIGHT = 840

MAX_NAMED = 8
# Classes by falling area, then the others. Chosen for the largest difference, as blended below, between
# any two in normal, protan, deutan and tritan vision: at least 12 in CIELAB over a photo of any
# brightness, where Okabe and Ito's colours come to 4.
PALETTE = (
    "#1845fb", "#e76300", "#33bbee", "#ffdd00", "#964a8b", "#117733", "#b2df8a", "#332288", "#8c8c8c",
)  # fmt: skip
CLASS_ALPHA = 0.62
OTHERS_ALPHA = 0.45
BLACK_LEVEL = 0.35  # of the grey photo: over black all colours look alike
SWATCH_LIGHT = 0.7  # grey under the colours of the legend: a photo neither dark nor bright
CONFIDENCE_COLOURS = "viridis"
FRAME_COLOUR = "#d0d7de"

FONT = "DejaVu Sans"  # comes with matplotlib
# Tried in this order for scripts that FONT lacks, where they are installed.
FALLBACK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei",
    "Yu Gothic", "Malgun Gothic", "WenQuanYi Micro Hei", "Noto Sans Devanagari", "Noto Sans Bengali",
    "Noto Sans Tamil", "Noto Sans Thai", "Nirmala UI", "Leelawadee UI", "Arial Unicode MS",
)  # fmt: skip


def draw_label_map(
    photo: Image.Image,
    indices: NDArray[np.integer[Any]],
    values: NDArray[np.floating[Any]],
    *,
    rest: NDArray[np.floating[Any]] | None = None,
    num_classes: int,
    class_names: Sequence[str] | None = None,
    title: str,
    subtitle: str = "",
) -> Figure:
    r"""Return a figure of a photo, its winning classes and the confidence of the winners.

    The classes with the largest areas are coloured, numbered and named, the others are grey. The
    figure is 1600 pixels wide and as high as the shape of the photo asks for.

    Parameters
    ----------
    photo
        The whole photo, drawn as RGB and as stored: like the labels, without EXIF orientation.
    indices, values, rest, num_classes, class_names
        As for `relabel_store.inspect.areas.class_areas`. Of ``"tench, Tinca tinca"`` the first
        synonym is shown; without names a class is called ``class 207``.
    title, subtitle
        One line each, shown as they are (``$`` and ``_`` mean nothing) and shortened to the width.
        A character that no font has is written as its escape, such as ``\u732b``.

    Raises
    ------
    FormatError, ValueError
        As for `relabel_store.inspect.areas.class_areas`.
    """
    areas = class_areas(indices, values, rest=rest, num_classes=num_classes, class_names=class_names)
    confidence = cell_confidence(values, rest, num_classes=num_classes)
    named, n_others = areas[:MAX_NAMED], len(areas[MAX_NAMED:])
    n_rows, n_cols = confidence.shape
    n_entries = len(named) + (n_others > 0)
    layout = _plan(photo.width / photo.height, n_entries=n_entries, has_subtitle=bool(subtitle))
    sheet = _Sheet(layout.width, layout.height)

    room = layout.width - 2 * MARGIN
    sheet.write(MARGIN, layout.title, title, TITLE, room=room, shorten=_keep_both_ends)
    sheet.write(MARGIN, layout.subtitle, subtitle, SUBTITLE, room=room)
    photo_box, classes_box, confidence_box = layout.panels
    _draw_caption(sheet, photo_box, layout.column, "Photo", f"{photo.width} × {photo.height}")
    _draw_caption(sheet, classes_box, layout.column, "Winning class", f"{n_rows} × {n_cols} cells")
    _draw_caption(sheet, confidence_box, layout.column, "Confidence", f"mean {confidence.mean():.2f}")

    pixels = photo.convert("RGB").resize((photo_box.width, photo_box.height), Image.Resampling.LANCZOS)
    _draw_image(sheet, photo_box, np.asarray(pixels))
    _draw_classes(sheet, classes_box, np.asarray(pixels.convert("L")), _group_cells(indices[0], named))
    _draw_image(sheet, confidence_box, _confidence_colours(confidence))
    _draw_bar(sheet, layout.bar)
    _draw_legend(sheet, layout.legend, named, n_others, 1 - sum(area.fraction for area in named))
    return sheet.figure


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
    canvas: Any = FigureCanvasAgg(figure)  # its methods are untyped
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    beside = path.parent / f".{uuid.uuid4().hex}.partial"  # short: path.name may be as long as names get
    try:
        picture.save(beside, format="PNG")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Box:
    """A rectangle in pixels from the top left corner of the figure."""

    left: int
    top: int
    width: int
    height: int

    @property
    def bottom(self) -> int:
        return self.top + self.height


@dataclass(frozen=True)
class _Layout:
    """Where things stand; ``title`` and ``subtitle`` are baselines, a caption is ``column`` wide."""

    width: int
    height: int
    title: int
    subtitle: int
    panels: tuple[_Box, ...]
    column: int
    bar: _Box
    legend: tuple[_Box, ...]


def _plan(aspect: float, *, n_entries: int, has_subtitle: bool) -> _Layout:
    """Return the layout for a photo of ``aspect`` = width / height.

    Panels stand side by side, with the legend below, or on their right where a tall photo leaves
    room. Those of a very wide photo lie below each other: side by side they would be stripes.
    """
    title = MARGIN + 28
    subtitle = title + 40 * has_subtitle
    top = subtitle + 30 + CAPTION_HEIGHT
    room = WIDTH - 2 * MARGIN
    is_wide, is_tall = aspect > 2.5, aspect < 0.8
    if is_wide:
        column = room - GAP - LEGEND_WIDTH
        step_x, step_y = 0, max(2, round(column / aspect)) + GAP + CAPTION_HEIGHT
    else:
        column = (room - 2 * GAP - is_tall * (GAP + LEGEND_WIDTH)) // 3
        step_x, step_y = column + GAP, 0
    height = min(max(2, round(column / aspect)), MAX_PANEL_HEIGHT)
    width = max(2, min(column, round(height * aspect))) if is_tall else column
    panels = tuple(_Box(MARGIN + i * step_x, top + i * step_y, width, height) for i in range(3))
    bar = _Box(panels[2].left, panels[2].bottom, min(column, 480), BAR_HEIGHT)
    if is_wide or is_tall:
        lines = n_entries
        columns = [(WIDTH - MARGIN - LEGEND_WIDTH, top, LEGEND_WIDTH)]
    else:
        lines = -(-n_entries // 2)
        columns = [(panel.left, panel.bottom + 28, column) for panel in panels[:2]]
    legend = tuple(
        _Box(left, at, room_x, lines * LEGEND_PITCH - (LEGEND_PITCH - SWATCH)) for left, at, room_x in columns
    )
    bottom = max(bar.bottom, legend[0].bottom)
    return _Layout(WIDTH, bottom + MARGIN, title, subtitle, panels, column, bar, legend)


@dataclass(frozen=True)
class _Style:
    size: int  # pixels
    weight: str
    colour: str


Align = Literal["left", "center", "right"]
INK = "#1f2328"
MUTED_INK = "#59636e"
TITLE = _Style(34, "bold", INK)
SUBTITLE = _Style(24, "normal", MUTED_INK)
CAPTION = _Style(22, "bold", INK)
NOTE = _Style(20, "normal", MUTED_INK)
ENTRY = _Style(23, "normal", INK)
KEY_SIZE = 18


def _keep_start(text: str, length: int) -> str:
    return text[:length].rstrip() + "…"


def _keep_both_ends(text: str, length: int) -> str:
    return text[: length - length // 2] + "…" + text[len(text) - length // 2 :]


class _Sheet:
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

    def axes(self, box: _Box) -> Axes:
        """Return bare axes over ``box``; their data coordinates are its pixels."""
        left, bottom = box.left / self.width, 1 - box.bottom / self.height
        axes = self.figure.add_axes((left, bottom, box.width / self.width, box.height / self.height))
        axes.set_axis_off()
        return axes

    def rectangle(self, box: _Box, *, fill: str | tuple[float, ...], edge: str = "none") -> None:
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
        style: _Style,
        *,
        room: int,
        align: Align = "left",
        shorten: Callable[[str, int], str] = _keep_start,
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

    def measure(self, text: str, style: _Style) -> int:
        """Return the width of one line in pixels."""
        width: float
        width, _, _ = self._renderer.get_text_width_height_descent(text, _font(style), ismath=False)
        return math.ceil(width)

    def _fit(self, text: str, style: _Style, room: int, shorten: Callable[[str, int], str]) -> str:
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


def _font(style: _Style) -> FontProperties:
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


def _draw_caption(sheet: _Sheet, panel: _Box, width: int, text: str, note: str) -> None:
    """Write ``text`` above the left end of a panel, and ``note`` on its right if there is room."""
    baseline = panel.top - 12
    sheet.write(panel.left, baseline, text, CAPTION, room=width)
    room = width - sheet.measure(text, CAPTION) - 16
    if sheet.measure(note, NOTE) <= room:
        sheet.write(panel.left + width, baseline, note, NOTE, room=room, align="right")


def _draw_image(sheet: _Sheet, box: _Box, image: NDArray[Any]) -> Axes:
    """Fill ``box`` with RGB cells of equal size, ``(n_rows, n_cols, 3)``, and return its axes."""
    axes = sheet.axes(box)
    extent = (0, box.width, box.height, 0)
    axes.imshow(image, extent=extent, origin="upper", aspect="auto", interpolation="nearest", resample=False)
    axes.set_xlim(0, box.width)
    axes.set_ylim(box.height, 0)
    sheet.rectangle(box, fill="none", edge=FRAME_COLOUR)
    return axes


def _group_cells(winners: NDArray[np.integer[Any]], named: Sequence[ClassArea]) -> NDArray[np.intp]:
    """Return the position of each winner among ``named``, ``len(named)`` where it is another class."""
    groups = np.full(winners.shape, len(named), dtype=np.intp)
    for position, area in enumerate(named):
        groups[winners == area.class_index] = position
    return groups


def _draw_classes(sheet: _Sheet, box: _Box, grey: NDArray[np.uint8], groups: NDArray[np.intp]) -> None:
    """Draw ``groups`` over the photo in ``grey``, ``(height, width)``: its own colours would mislead."""
    n_rows, n_cols = groups.shape
    rows = np.arange(box.height) * n_rows // box.height
    cols = np.arange(box.width) * n_cols // box.width
    light = BLACK_LEVEL + (1 - BLACK_LEVEL) * grey / 255
    axes = _draw_image(sheet, box, _blend(groups[rows[:, None], cols], light))
    cell = np.array([box.width / n_cols, box.height / n_rows])  # (x, y)
    axes.add_collection(
        LineCollection(
            list(_borders(groups) * cell),
            colors="white",
            linewidths=_points(2),
            capstyle="projecting",
        ),
        autolim=False,
    )
    for group in range(min(int(groups.max()) + 1, MAX_NAMED)):
        row, col, size = _largest_block(groups == group)
        if size * cell.min() > KEY_SIZE:
            x, y = (np.array([col, row]) + size / 2) * cell
            _draw_key(sheet, box.left + x, box.top + y, group)


def _blend(groups: NDArray[np.intp], light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the colour of each group over a grey of ``light`` in [0, 1], one axis more than these."""
    colours = np.array([to_rgb(colour) for colour in PALETTE])[groups]
    alphas = np.where(groups == MAX_NAMED, OTHERS_ALPHA, CLASS_ALPHA)[..., None]
    blended: NDArray[np.float64] = alphas * colours + (1 - alphas) * light[..., None]
    return blended


def _borders(groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the edges between cells of different groups, ``(n, 2, 2)``: ends, then x and y in cells."""
    row, col = np.nonzero(groups[:, 1:] != groups[:, :-1])
    upright = np.stack([np.stack([col + 1, row], -1), np.stack([col + 1, row + 1], -1)], axis=1)
    row, col = np.nonzero(groups[1:] != groups[:-1])
    level = np.stack([np.stack([col, row + 1], -1), np.stack([col + 1, row + 1], -1)], axis=1)
    return np.concatenate([upright, level]).astype(np.float64)


def _largest_block(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return (row, col, size) of a largest square of cells inside ``mask``, which is not empty."""
    size, corners = 1, mask
    # A square of n + 1 cells is four overlapping squares of n cells.
    while (larger := corners[:-1, :-1] & corners[:-1, 1:] & corners[1:, :-1] & corners[1:, 1:]).any():
        size, corners = size + 1, larger
    found = np.argwhere(corners)
    row, col = found[len(found) // 2]
    return int(row), int(col), size


def _draw_key(sheet: _Sheet, x: float, y: float, group: int) -> None:
    is_light = np.dot(_swatch_colour(group), (0.299, 0.587, 0.114)) > 0.5
    style = _Style(KEY_SIZE, "bold", INK if is_light else "white")
    # A digit is 0.72 of the font size high.
    sheet.write(x, y + 0.36 * KEY_SIZE, str(group + 1), style, room=2 * KEY_SIZE, align="center")


def _swatch_colour(group: int) -> tuple[float, float, float]:
    red, green, blue = _blend(np.array(group), np.array(SWATCH_LIGHT)).tolist()
    return red, green, blue


def _confidence_colours(confidence: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return RGB, one axis more than ``confidence``, on a scale that always runs from 0 to 1."""
    colours: NDArray[np.float64] = colormaps[CONFIDENCE_COLOURS](confidence.astype(np.float64))
    return colours[..., :3]


def _draw_bar(sheet: _Sheet, bar: _Box) -> None:
    """Draw the colours of the confidence from 0 to 1 in the lower part of ``bar``."""
    scale = _Box(bar.left, bar.top + 18, bar.width, 16)
    _draw_image(sheet, scale, _confidence_colours(np.linspace(0, 1, 256)[None]))
    ticks: tuple[tuple[float, Align], ...] = ((0, "left"), (0.5, "center"), (1, "right"))
    for tick, align in ticks:
        sheet.write(bar.left + tick * bar.width, bar.bottom, f"{tick:g}", NOTE, room=bar.width, align=align)


def _draw_legend(
    sheet: _Sheet, columns: Sequence[_Box], named: Sequence[ClassArea], n_others: int, others: float
) -> None:
    """Write the share and the name of each class, down one column after the other."""
    entries = [(area.fraction, name) for area, name in zip(named, _short_names(named), strict=True)]
    if n_others:
        entries.append((others, "1 other class" if n_others == 1 else f"{n_others} other classes"))
    lines = -(-len(entries) // len(columns))
    for position, (fraction, name) in enumerate(entries):
        column = columns[position // lines]
        top = column.top + position % lines * LEGEND_PITCH
        swatch = _Box(column.left, top, SWATCH, SWATCH)
        sheet.rectangle(swatch, fill=_swatch_colour(position), edge=FRAME_COLOUR)
        if position < MAX_NAMED:
            _draw_key(sheet, swatch.left + SWATCH / 2, swatch.top + SWATCH / 2, position)
        left, baseline, room = column.left + 132, top + 23, column.width - 132
        sheet.write(left - 14, baseline, _share(fraction), ENTRY, room=90, align="right")
        sheet.write(left, baseline, name, ENTRY, room=room, shorten=_keep_both_ends)


def _short_names(named: Sequence[ClassArea]) -> list[str]:
    """Return the first synonym of each class, with the class index where two would look the same."""
    firsts = [(area.name or "").split(",")[0].strip() or f"class {area.class_index}" for area in named]
    count = Counter(firsts)
    return [
        f"{name} ({area.class_index})" if count[name] > 1 else name
        for name, area in zip(firsts, named, strict=True)
    ]


def _share(fraction: float) -> str:
    """Return whole percent; what is not 0 or 1 is never shown as if it were."""
    percent = round(100 * fraction)
    if percent == 0:
        return "<1 %"
    return ">99 %" if percent == 100 and fraction < 1 - 1e-9 else f"{percent} %"

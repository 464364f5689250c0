"""The picture of one label map: the photo, the winning class of each cell, how sure the teacher is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relabel_store.inspect.areas import cell_confidence, class_areas
from relabel_store.inspect.cells import borders, group_cells, largest_block
from relabel_store.inspect.colours import BLACK_LEVEL, MAX_NAMED, blend, confidence_colours
from relabel_store.inspect.layout import MARGIN, Box, plan
from relabel_store.inspect.legend import KEY_SIZE, draw_key, draw_legend
from relabel_store.inspect.sheet import CAPTION, NOTE, SUBTITLE, TITLE, Align, Sheet, keep_both_ends

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    layout = plan(photo.width / photo.height, n_entries=n_entries, has_subtitle=bool(subtitle))
    sheet = Sheet(layout.width, layout.height)

    room = layout.width - 2 * MARGIN
    sheet.write(MARGIN, layout.title, title, TITLE, room=room, shorten=keep_both_ends)
    sheet.write(MARGIN, layout.subtitle, subtitle, SUBTITLE, room=room)
    photo_box, classes_box, confidence_box = layout.panels
    _draw_caption(sheet, photo_box, layout.column, "Photo", f"{photo.width} × {photo.height}")
    _draw_caption(sheet, classes_box, layout.column, "Winning class", f"{n_rows} × {n_cols} cells")
    _draw_caption(sheet, confidence_box, layout.column, "Confidence", f"mean {confidence.mean():.2f}")

    pixels = photo.convert("RGB").resize((photo_box.width, photo_box.height), Image.Resampling.LANCZOS)
    sheet.draw_image(photo_box, np.asarray(pixels))
    _draw_classes(sheet, classes_box, np.asarray(pixels.convert("L")), group_cells(indices[0], named))
    sheet.draw_image(confidence_box, confidence_colours(confidence))
    _draw_bar(sheet, layout.bar)
    draw_legend(sheet, layout.legend, named, n_others, 1 - sum(area.fraction for area in named))
    return sheet.figure


def _draw_caption(sheet: Sheet, panel: Box, width: int, text: str, note: str) -> None:
    """Write ``text`` above the left end of a panel, and ``note`` on its right if there is room."""
    baseline = panel.top - 12
    sheet.write(panel.left, baseline, text, CAPTION, room=width)
    room = width - sheet.measure(text, CAPTION) - 16
    if sheet.measure(note, NOTE) <= room:
        sheet.write(panel.left + width, baseline, note, NOTE, room=room, align="right")


def _draw_classes(sheet: Sheet, box: Box, grey: NDArray[np.uint8], groups: NDArray[np.intp]) -> None:
    """Draw ``groups`` over the photo in ``grey``, ``(height, width)``: its own colours would mislead."""
    n_rows, n_cols = groups.shape
    rows = np.arange(box.height) * n_rows // box.height
    cols = np.arange(box.width) * n_cols // box.width
    light = BLACK_LEVEL + (1 - BLACK_LEVEL) * grey / 255
    axes = sheet.draw_image(box, blend(groups[rows[:, None], cols], light))
    cell = np.array([box.width / n_cols, box.height / n_rows])  # (x, y)
    sheet.draw_lines(axes, borders(groups) * cell)
    for group in range(min(int(groups.max()) + 1, MAX_NAMED)):
        row, col, size = largest_block(groups == group)
        if size * cell.min() > KEY_SIZE:
            x, y = (np.array([col, row]) + size / 2) * cell
            draw_key(sheet, box.left + x, box.top + y, group)


def _draw_bar(sheet: Sheet, bar: Box) -> None:
    """Draw the colours of the confidence from 0 to 1 in the lower part of ``bar``."""
    scale = Box(bar.left, bar.top + 18, bar.width, 16)
    sheet.draw_image(scale, confidence_colours(np.linspace(0, 1, 256)[None]))
    ticks: tuple[tuple[float, Align], ...] = ((0, "left"), (0.5, "center"), (1, "right"))
    for tick, align in ticks:
        sheet.write(bar.left + tick * bar.width, bar.bottom, f"{tick:g}", NOTE, room=bar.width, align=align)

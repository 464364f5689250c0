"""The numbers of classes in a picture, and what they mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from relabel_store.inspect.areas import ClassArea
from relabel_store.inspect.colours import MAX_NAMED, swatch_colour
from relabel_store.inspect.layout import LEGEND_PITCH, SWATCH, Box
from relabel_store.inspect.sheet import ENTRY, FRAME_COLOUR, INK, Sheet, Style, keep_both_ends

KEY_SIZE = 18  # pixels


def draw_key(sheet: Sheet, x: float, y: float, group: int) -> None:
    """Write the number of a class around a point."""
    is_light = np.dot(swatch_colour(group), (0.299, 0.587, 0.114)) > 0.5
    style = Style(KEY_SIZE, "bold", INK if is_light else "white")
    # A digit is 0.72 of the font size high.
    sheet.write(x, y + 0.36 * KEY_SIZE, str(group + 1), style, room=2 * KEY_SIZE, align="center")


def draw_legend(
    sheet: Sheet, columns: Sequence[Box], named: Sequence[ClassArea], n_others: int, others: float
) -> None:
    """Write the share and the name of each class, down one column after the other."""
    entries = [(area.fraction, name) for area, name in zip(named, short_names(named), strict=True)]
    if n_others:
        entries.append((others, "1 other class" if n_others == 1 else f"{n_others} other classes"))
    lines = -(-len(entries) // len(columns))
    for position, (fraction, name) in enumerate(entries):
        column = columns[position // lines]
        top = column.top + position % lines * LEGEND_PITCH
        swatch = Box(column.left, top, SWATCH, SWATCH)
        sheet.rectangle(swatch, fill=swatch_colour(position), edge=FRAME_COLOUR)
        if position < MAX_NAMED:
            draw_key(sheet, swatch.left + SWATCH / 2, swatch.top + SWATCH / 2, position)
        left, baseline, room = column.left + 132, top + 23, column.width - 132
        sheet.write(left - 14, baseline, _share(fraction), ENTRY, room=90, align="right")
        sheet.write(left, baseline, name, ENTRY, room=room, shorten=keep_both_ends)


def short_names(named: Sequence[ClassArea]) -> list[str]:
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

"""Where the parts of a picture stand, in pixels."""

from __future__ import annotations

from dataclasses import dataclass

WIDTH = 1600
MARGIN = 48
GAP = 36
CAPTION_HEIGHT = 38
BAR_HEIGHT = 66  # the colour bar with its ticks and the space above it
LEGEND_PITCH = 42
SWATCH = 30
LEGEND_WIDTH = 430
MAX_PANEL_HEIGHT = 840


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels from the top left corner of the figure."""

    left: int
    top: int
    width: int
    height: int

    @property
    def bottom(self) -> int:
        """Its lower edge."""
        return self.top + self.height


@dataclass(frozen=True)
class Layout:
    """Where things stand; ``title`` and ``subtitle`` are baselines, a caption is ``column`` wide."""

    width: int
    height: int
    title: int
    subtitle: int
    panels: tuple[Box, ...]
    column: int
    bar: Box
    legend: tuple[Box, ...]


def plan(aspect: float, *, n_entries: int, has_subtitle: bool) -> Layout:
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
    panels = tuple(Box(MARGIN + i * step_x, top + i * step_y, width, height) for i in range(3))
    bar = Box(panels[2].left, panels[2].bottom, min(column, 480), BAR_HEIGHT)
    if is_wide or is_tall:
        lines = n_entries
        columns = [(WIDTH - MARGIN - LEGEND_WIDTH, top, LEGEND_WIDTH)]
    else:
        lines = -(-n_entries // 2)
        columns = [(panel.left, panel.bottom + 28, column) for panel in panels[:2]]
    legend = tuple(
        Box(left, at, room_x, lines * LEGEND_PITCH - (LEGEND_PITCH - SWATCH)) for left, at, room_x in columns
    )
    bottom = max(bar.bottom, legend[0].bottom)
    return Layout(WIDTH, bottom + MARGIN, title, subtitle, panels, column, bar, legend)

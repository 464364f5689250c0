"""The picture of ``docs/explanation/size.md``: size against error, and against the speed of reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

if TYPE_CHECKING:
    from size import Form

LOOKS = {"packed": ("#d55e00", "D"), "zarr": ("#0072b2", "o"), "parquet": ("#009e73", "s")}
GREY = "#505050"
LIMIT = 0.0025  # what the error of a packed store may be
BYTES = (1000, 1250, 1500, 2000, 2500, 3000, 4000, 5000, 6000, 8000, 10_000)
SPEEDS = (5000, 10_000, 20_000, 50_000, 100_000, 200_000)
STEPS = {"exact": "exact", "1/8": "step 1/8,\nthe default", "1/4": "step 1/4"}
DEFAULT = "1/8"
# Where the names of forms stand in the lower picture, beside their points, so that none meets another.
LEFT, RIGHT, BELOW = (-8, 0, "right"), (8, 0, "left"), (4, -13, "center")
NAMED_AT = {"packed, small": LEFT, "zarr, small": LEFT, "parquet, small": BELOW}


def draw(forms: Sequence[Form], path: Path) -> None:
    """Write the picture."""
    figure = Figure(figsize=(11, 8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.25, 1])
    draw_errors(upper, forms)
    draw_speeds(lower, forms)
    lower.set_xscale("log")
    lower.set_xlim(1000, 12_000)
    lower.xaxis.set_major_locator(FixedLocator(BYTES))
    lower.xaxis.set_minor_locator(NullLocator())
    lower.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
    lower.set_xlabel("bytes an image: indices and values at 15 x 15 cells, top 5")
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def draw_errors(axes: Axes, forms: Sequence[Form]) -> None:
    """Draw size against error: a line for each form, a point for each value step."""
    ours = [form for form in forms if encoding_of(form)]
    for name in dict.fromkeys(form.name for form in ours):
        line = [form for form in ours if form.name == name]
        sizes, errors = [form.bytes_an_image for form in line], [form.error_p99 for form in line]
        colour = LOOKS[encoding_of(line[0])][0]
        axes.plot(sizes, errors, "-" if is_small(line[0]) else ":", color=colour, linewidth=1, alpha=0.5)
        for form in line:
            point(axes, form, form.error_p99)
            write(axes, form, form.error_p99, number(form), (0, 11 if is_small(form) else -12))
    for form in theirs(forms):
        point(axes, form, form.error_p99)
        depth = -40 if ".tar" in form.name and encoding_of(form) == "" else -16
        write(
            axes,
            form,
            form.error_p99,
            f"{form.name.split(' (')[0]}{archive(form)}\n{number(form)}",
            (0, depth),
        )
    axes.axhline(LIMIT, color="#b0b0b0", linewidth=0.8, linestyle="--", zorder=0)
    axes.annotate(
        f"{LIMIT}", (11_900, LIMIT), xytext=(0, 3), textcoords="offset points", ha="right", color=GREY
    )
    steps = {form.step: form.error_p99 for form in ours}
    axes.yaxis.set_major_locator(FixedLocator(list(steps.values())))
    axes.yaxis.set_major_formatter(
        FixedFormatter([f"{STEPS[step]}\n{error:.4f}" for step, error in steps.items()])
    )
    axes.set_ylim(-0.0013, 0.0045)
    axes.set_ylabel("error of pooled targets\ntotal variation, 99th percentile")
    axes.legend(handles=legend(), loc="upper right", frameon=False, ncols=2)


def draw_speeds(axes: Axes, forms: Sequence[Form]) -> None:
    """Draw size against reading, at the default step."""
    for form in [*(form for form in forms if encoding_of(form) and form.step == DEFAULT), *theirs(forms)]:
        if form.read is not None:
            point(axes, form, form.read)
            x, y, side = NAMED_AT.get(form.name, RIGHT if encoding_of(form) else (0, 10, "center"))
            write(axes, form, form.read, form.name.split(" (")[0], (x, y), side)
    axes.set_yscale("log")
    axes.set_ylim(4000, 250_000)
    axes.yaxis.set_major_locator(FixedLocator(SPEEDS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda speed, _: f"{speed:,.0f}"))
    axes.set_ylabel("rows decoded a second\none core, step 1/8")


def encoding_of(form: Form) -> str:
    """Return which of our encodings a form is of, nothing where it is somebody else's."""
    name = form.name.split(",")[0]
    return name if name in LOOKS else ""


def is_small(form: Form) -> bool:
    """Tell whether the writer took its time."""
    return form.name.endswith("small")


def theirs(forms: Sequence[Form]) -> list[Form]:
    """Return what people publish, and the archives that they could make of it."""
    return [form for form in forms if not encoding_of(form) and "each" not in form.name]


def archive(form: Form) -> str:
    """Return what other people's files are packed in."""
    return ",\nin one .tar.xz" if ".tar" in form.name else ""


def number(form: Form) -> str:
    """Return the size as text."""
    return f"{form.bytes_an_image:,.0f}"


def point(axes: Axes, form: Form, y: float) -> None:
    """Draw a form."""
    colour, marker = LOOKS.get(encoding_of(form), (GREY, "x"))
    filled = "white" if form.name.endswith("fast") else colour
    axes.plot(form.bytes_an_image, y, marker, color=colour, markerfacecolor=filled, markersize=7)


def write(
    axes: Axes, form: Form, y: float, text: str, where: tuple[float, float], side: str = "center"
) -> None:
    """Write something beside a point, over the lines."""
    axes.annotate(
        text,
        (form.bytes_an_image, y),
        xytext=where,
        textcoords="offset points",
        ha=side,
        va="center",
        fontsize=9,
        color=LOOKS.get(encoding_of(form), (GREY, ""))[0],
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3},
    )


def legend() -> list[Line2D]:
    """Return what the points mean: the forms that are small, then those that are fast to write."""
    return [
        Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            linestyle=style,
            linewidth=1,
            label=f"{name}, {compression}",
            markerfacecolor=colour if compression == "small" else "white",
        )
        for compression, style in (("small", "-"), ("fast", ":"))
        for name, (colour, marker) in LOOKS.items()
    ]

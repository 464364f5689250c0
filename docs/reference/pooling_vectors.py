"""Write the published test vectors of LabelPooling, computed the slow way.

    python docs/reference/pooling_vectors.py schemas/pooling-vectors-v1.json

Nothing of relabel-store is imported: plain Python, float64, one loop a sum, from the words of pooling-vectors.md.
The same numbers come out on every machine.
"""

from __future__ import annotations

import json
import math
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Numbers = list[Any]  # nested lists of numbers

SCHEMA = "urn:relabel-store:pooling-vectors-v1"
TOLERANCE = {"absolute": 1e-5, "relative": 1e-5}
DIGITS = 9  # after the point, of what is expected
WHOLE = (0.0, 0.0, 1.0, 1.0)


def case(
    name: str,
    about: str,
    boxes: list[tuple[float, ...]],
    *,
    grid: tuple[int, int] = (4, 4),
    k: int = 2,
    num_classes: int = 6,
    output_size: tuple[int, int] = (1, 1),
    absent: str = "zero",
    step: float = 1 / 8,
    spread: tuple[float, float] = (-1.0, 9.0),
    indices: Numbers | None = None,
    values: Numbers | None = None,
    hflip: list[bool] | None = None,
    vflip: list[bool] | None = None,
    temperature: float = 1.0,
    variant: str = "localized-multi",
    legacy_xy_swap: bool = False,
    classes: list[int] | None = None,
) -> dict[str, Any]:
    """Return a case: made-up label maps, one a box, and what has to come out."""
    draws = random.Random(name)
    maps = [made_up_map(draws, grid, k, num_classes, step, spread) for _ in boxes]
    made: dict[str, Any] = {
        "name": name,
        "about": about,
        "num_classes": num_classes,
        "output_size": list(output_size),
        "temperature": temperature,
        "variant": variant,
        "legacy_xy_swap": legacy_xy_swap,
        "classes": classes,
        "index_dtype": "uint16" if num_classes <= 65535 else "uint32",
        "indices": [found[0] for found in maps] if indices is None else indices,
        "values": [found[1] for found in maps] if values is None else values,
        "rest": None,
        "boxes_xyxy": [list(map(as_float32, box)) for box in boxes],
        "hflip": hflip,
        "vflip": vflip,
    }
    if absent == "rest":
        made["rest"] = [
            [[rounded(draws, step, (-4.0, 4.0)) for _ in range(grid[1])] for _ in range(grid[0])]
            for _ in boxes
        ]
    for box in made["boxes_xyxy"]:
        require_clear(made, box)
    logits = [pooled(made, sample) for sample in range(len(boxes))]
    targets = [target(sample, temperature, variant) for sample in logits]
    made["logits"] = [answer(sample, output_size) for sample in logits]
    made["targets"] = [answer(sample, output_size) for sample in targets]
    return made


def made_up_map(
    draws: random.Random,
    grid: tuple[int, int],
    k: int,
    num_classes: int,
    step: float,
    spread: tuple[float, float],
) -> tuple[Numbers, Numbers]:
    """Return class indices and values, each (k, n_rows, n_cols), sorted as a store sorts them."""
    cells = {}
    for row in range(grid[0]):
        for col in range(grid[1]):
            kept: dict[int, float] = {}
            while len(kept) < k:
                # random() alone is promised to stay the same in every version of Python.
                kept.setdefault(int(draws.random() * num_classes), rounded(draws, step, spread))
            cells[row, col] = sorted(kept.items(), key=lambda found: (-found[1], found[0]))
    return tuple(
        [
            [[cells[row, col][rank][part] for col in range(grid[1])] for row in range(grid[0])]
            for rank in range(k)
        ]
        for part in (0, 1)
    )


def rounded(draws: random.Random, step: float, spread: tuple[float, float]) -> float:
    """Return a number between two, a multiple of a step, which float16 holds."""
    found = round((spread[0] + draws.random() * (spread[1] - spread[0])) / step) * step
    return float(struct.unpack("<e", struct.pack("<e", found))[0])


def as_float32(edge: float) -> float:
    """Return the float32 number nearest to one, exactly."""
    return float(struct.unpack("<f", struct.pack("<f", edge))[0])


def pooled(case: dict[str, Any], sample: int) -> dict[tuple[int, int], Numbers]:
    """Return the score of each class in each bin, before temperature and softmax."""
    n_rows, n_cols = len(case["indices"][sample][0]), len(case["indices"][sample][0][0])
    localized = case["variant"].startswith("localized")
    x0, y0, x1, y1 = case["boxes_xyxy"][sample] if localized else WHOLE
    if case["legacy_xy_swap"]:
        x0, y0, x1, y1 = y0, x0, y1, x1
    bins = {}
    n_out = case["output_size"]
    for i in range(n_out[0]):
        for j in range(n_out[1]):
            at = (i, j) if localized else (0, 0)
            out = n_out if localized else (1, 1)
            ys = points(y0, y1, n_rows, at[0], out[0])
            xs = points(x0, x1, n_cols, at[1], out[1])
            to = (
                n_out[0] - 1 - i if case["vflip"] and case["vflip"][sample] else i,
                n_out[1] - 1 - j if case["hflip"] and case["hflip"][sample] else j,
            )
            wanted = range(case["num_classes"]) if case["classes"] is None else case["classes"]
            bins[to] = [
                sum(interpolated(case, sample, index, y, x) for y in ys for x in xs) / (len(ys) * len(xs))
                for index in wanted
            ]
    return bins


def points(start: float, stop: float, n_cells: int, at: int, n_bins: int) -> list[float]:
    """Return the sample points of a bin along one axis, in cells; the centre of cell c is c."""
    first, last = start * n_cells - 0.5, stop * n_cells - 0.5
    size = max(last - first, 1.0) / n_bins
    count = math.ceil(size)
    return [first + at * size + (step + 0.5) * size / count for step in range(count)]


def interpolated(case: dict[str, Any], sample: int, index: int, y: float, x: float) -> float:
    """Return the score of a class at a point of the map, bilinear between the centres of cells."""
    n_rows, n_cols = len(case["indices"][sample][0]), len(case["indices"][sample][0][0])
    if y < -1 or y > n_rows or x < -1 or x > n_cols:
        return 0.0
    y, x = min(max(y, 0.0), n_rows - 1.0), min(max(x, 0.0), n_cols - 1.0)
    top, left = int(y), int(x)
    found = 0.0
    for row, down in ((top, 1 - (y - top)), (min(top + 1, n_rows - 1), y - top)):
        for col, along in ((left, 1 - (x - left)), (min(left + 1, n_cols - 1), x - left)):
            found += down * along * score(case, sample, index, row, col)
    return found


def score(case: dict[str, Any], sample: int, index: int, row: int, col: int) -> float:
    """Return the score of a class in a cell."""
    k = len(case["indices"][sample])
    for rank in range(k):
        if case["indices"][sample][rank][row][col] == index:
            return float(case["values"][sample][rank][row][col])
    if case["rest"] is None:
        return 0.0
    return float(case["rest"][sample][row][col]) - math.log(case["num_classes"] - k)


def target(
    logits: dict[tuple[int, int], Numbers], temperature: float, variant: str
) -> dict[tuple[int, int], Numbers]:
    """Return the target of each bin."""
    found = {}
    for at, scores in logits.items():
        if variant.endswith("single"):
            best = scores.index(max(scores))  # the first of equals
            found[at] = [float(number == best) for number in range(len(scores))]
        else:
            highest = max(scores)
            powers = [math.exp((one - highest) / temperature) for one in scores]
            found[at] = [power / math.fsum(powers) for power in powers]
    return found


def answer(bins: dict[tuple[int, int], Numbers], output_size: tuple[int, int]) -> Numbers:
    """Return (num_classes,) of one bin, (num_classes, rows, columns) of more."""
    if tuple(output_size) == (1, 1):
        return [round(one, DIGITS) for one in bins[0, 0]]
    return [
        [[round(bins[i, j][index], DIGITS) for j in range(output_size[1])] for i in range(output_size[0])]
        for index in range(len(bins[0, 0]))
    ]


def require_clear(case: dict[str, Any], box: list[float]) -> None:
    """Check that float32 finds the same sample points: no size, and no point, almost on a limit."""
    n_rows, n_cols = len(case["indices"][0][0]), len(case["indices"][0][0][0])
    x0, y0, x1, y1 = box
    if case["legacy_xy_swap"]:
        x0, y0, x1, y1 = y0, x0, y1, x1
    for start, stop, n_cells, n_bins in zip(
        (y0, x0), (y1, x1), (n_rows, n_cols), case["output_size"], strict=True
    ):
        size = max((stop - start) * n_cells, 1.0) / n_bins
        limits = [size - round(size)]
        for at in range(n_bins):
            limits += [point - limit for point in points(start, stop, n_cells, at, n_bins)
                       for limit in (-1, n_cells)]  # fmt: skip
        if any(0 < abs(off) < 1e-3 for off in limits):
            raise ValueError(f"case {case['name']!r}: box {box} is almost on a limit, expected on it or off")


def cases() -> Iterator[dict[str, Any]]:
    """Yield every case."""
    crop = (0.15, 0.3, 0.7, 0.85)
    crops = [crop, (0.05, 0.4, 0.95, 0.63)]
    yield from crop_cases()
    yield from map_cases(crop, crops)
    yield from output_cases(crop, crops)
    yield from target_cases(crop, crops)


def crop_cases() -> Iterator[dict[str, Any]]:
    """Yield cases about where a crop lies and how large it is: each a crop and its mirror image about the centre."""
    for name, about, box in (
        ("whole-image", "every cell counts the same", WHOLE),
        ("crop-inside", "more than a cell, off the border", (0.15, 0.3, 0.7, 0.85)),
        ("crop-under-a-cell", "widened to one cell from its top left", (0.3, 0.3, 0.4, 0.45)),
        ("crop-under-a-cell-across-cells", "the same, over the border of cells", (0.45, 0.7, 0.6, 0.8)),
        ("crop-of-a-pixel", "one of 500 x 375, in the last column", (0.998, 0.5, 1.0, 0.5026666)),
        ("crop-of-one-cell", "one sample point an axis, in the centre of a cell", (0.25, 0.5, 0.5, 0.75)),
        ("crop-of-two-cells", "exactly: two sample points an axis, not three", (0.25, 0.5, 0.75, 1.0)),
        ("crop-of-half-cells", "exactly 1.5 cells: two sample points", (0.125, 0.25, 0.5, 0.625)),
        ("crop-over-two-cells", "a little more than two: three sample points", (0.2, 0.1, 0.72, 0.63)),
        ("crop-at-the-top-left", "touches two edges", (0.0, 0.0, 0.4, 0.65)),
        ("crop-at-the-bottom-right", "touches the two others", (0.35, 0.6, 1.0, 1.0)),
        ("crop-wide-and-thin", "as wide as the image, under a cell high", (0.0, 0.45, 1.0, 0.55)),
        ("crop-tall-and-narrow", "as high as the image, under a cell wide", (0.8, 0.0, 0.9, 1.0)),
        ("crop-of-a-padded-image", "leaves the image by less than a cell", (-0.2, -0.1, 0.6, 0.7)),
        ("crop-far-outside", "points more than a cell outside read zeros", (-0.6, 0.2, 0.5, 1.42)),
        (
            "crop-on-the-limit",
            "points at -1 and at n_cells exactly still count",
            (-0.25, 0.25, 0.75, 1.25),
        ),
        ("crop-around-the-image", "padding on every side", (-0.55, -0.45, 1.6, 1.35)),
        ("crop-with-no-image", "padding alone: all classes equal", (1.4, 0.2, 1.88, 0.83)),
    ):
        x0, y0, x1, y1 = box
        yield case(name, about, [box, (1 - x1, 1 - y1, 1 - x0, 1 - y0)])


def map_cases(crop: tuple[float, ...], crops: list[tuple[float, ...]]) -> Iterator[dict[str, Any]]:
    """Yield cases about what the maps hold."""
    yield case("grid-published", "15 x 15 cells x top 5", [crop], grid=(15, 15), k=5, num_classes=12)
    yield case("grid-wide", "rows and columns are not alike", crops, grid=(2, 7))
    yield case("grid-tall", "the other way", crops, grid=(7, 2))
    yield case("grid-of-one-cell", "nothing to interpolate", crops, grid=(1, 1))
    yield case("grid-of-one-row", "nothing to interpolate downwards", crops, grid=(1, 5))
    yield case("top-1", "one class a cell", crops, k=1)
    yield case("all-classes-kept", "k is the number of classes", crops, k=3, num_classes=3)
    yield case("one-class", "its target is 1", crops, k=1, num_classes=1)
    yield case("negative-values", "absent classes count as 0 and win", crops, spread=(-6.0, -1.0))
    yield case("exact-values", "any float16 number", crops, step=1 / 1024)
    yield case("large-values", "softmax without overflow", crops, spread=(20000.0, 60000.0), step=32.0)
    yield case("rest", "absent classes share the log-sum-exp evenly", crops, absent="rest")
    yield case("rest-with-one-absent", "log(1) = 0", crops, absent="rest", k=3, num_classes=4)
    yield case(
        "rest-with-none-absent", "nobody to share it: ignored", crops, absent="rest", k=3, num_classes=3
    )
    yield case("rest-outside", "zeros there, not the rest", [(-0.6, 0.2, 0.5, 1.42), crop], absent="rest")
    yield case(
        "rest-on-a-grid",
        "in each cell of the target",
        crops,
        absent="rest",
        grid=(3, 5),
        output_size=(2, 3),
    )
    yield case(
        "class-index-past-uint16",
        "uint32; a student with five of 70,000 classes",
        crops,
        indices=[
            [[[69999, 65536], [65535, 12]], [[0, 65535], [65536, 69999]]],
            [[[65536, 65536], [65536, 12]], [[69999, 0], [0, 65535]]],
        ],
        values=[
            [[[9.5, 8.0], [7.25, 6.0]], [[2.0, 1.5], [1.25, 5.0]]],
            [[[8.5, 8.25], [8.0, 6.5]], [[3.0, 2.0], [1.0, 0.5]]],
        ],
        grid=(2, 2),
        num_classes=70000,
        classes=[69999, 65536, 65535, 12, 40000],
    )


def output_cases(crop: tuple[float, ...], crops: list[tuple[float, ...]]) -> Iterator[dict[str, Any]]:
    """Yield cases about targets of several cells, flips and boxes read in the wrong order."""
    yield case("output-2x2", "a target for each quarter of the crop", crops, output_size=(2, 2))
    yield case("output-1x3", "rows and columns are not alike", crops, output_size=(1, 3))
    yield case("output-3x1", "the other way", crops, output_size=(3, 1), grid=(3, 5))
    yield case("output-of-whole-cells", "one sample point a bin, in each centre", [WHOLE], output_size=(4, 4))
    yield case(
        "output-of-two-cells-a-bin", "two sample points a bin", [WHOLE], output_size=(4, 2), grid=(8, 4)
    )
    yield case("output-of-tokens", "14 x 14 of 7 x 7 cells", [crop], grid=(7, 7), k=1, num_classes=3,
               output_size=(14, 14))  # fmt: skip
    yield case("output-of-a-small-crop", "bins far under a cell", [(0.3, 0.3, 0.4, 0.45)], output_size=(3, 2))
    yield case("output-outside", "some bins read zeros", [(-0.6, 0.2, 0.5, 1.42)], output_size=(3, 3))
    flips = {"output_size": (2, 3), "grid": (3, 5)}
    yield case(
        "hflip",
        "mirrored left to right: the first crop",
        crops,
        hflip=[True, False],
        vflip=[False, False],
        **flips,
    )
    yield case(
        "vflip",
        "mirrored top to bottom: the second crop",
        crops,
        hflip=[False, False],
        vflip=[False, True],
        **flips,
    )
    yield case(
        "hflip-and-vflip", "turned half round", crops, hflip=[True, True], vflip=[True, False], **flips
    )
    yield case("hflip-of-one-cell", "of no consequence", crops, hflip=[True, False], vflip=[True, True])
    yield case("legacy-xy-swap", "the box across the diagonal", crops, grid=(3, 5), k=2, legacy_xy_swap=True)
    yield case(
        "legacy-xy-swap-on-a-grid",
        "rows of the target stay rows",
        crops,
        grid=(3, 5),
        output_size=(2, 3),
        legacy_xy_swap=True,
    )


def target_cases(crop: tuple[float, ...], crops: list[tuple[float, ...]]) -> Iterator[dict[str, Any]]:
    """Yield cases about what becomes of the pooled scores."""
    yield case("temperature-low", "sharper", crops, temperature=0.5)
    yield case("temperature-high", "softer", crops, temperature=4.0)
    yield case("localized-single", "the best class of the crop", crops, variant="localized-single")
    yield case("global-multi", "the whole image, whatever the crop", crops, variant="global-multi")
    yield case(
        "global-single", "the best class of the whole image", crops, variant="global-single", absent="rest"
    )
    yield case(
        "global-on-a-grid",
        "the same in each cell",
        [crop],
        variant="global-multi",
        output_size=(2, 3),
        grid=(3, 5),
        temperature=2.0,
    )
    yield case("single-on-a-grid", "of each cell", crops, variant="localized-single", output_size=(2, 2), k=3)
    yield case(
        "single-tie",
        "classes 1 and 4 pool to the same score: the lower one",
        [WHOLE],
        indices=[[[[4, 1], [1, 4]], [[0, 0], [2, 2]]]],
        values=[[[[6.0, 6.0], [5.0, 5.0]], [[1.0, 1.0], [1.0, 1.0]]]],
        grid=(2, 2),
        variant="localized-single",
    )
    yield case(
        "single-tie-of-absent-classes",
        "every kept score is negative: the first class not kept",
        [WHOLE],
        indices=[[[[0, 0], [0, 2]]]],
        values=[[[[-2.0, -3.0], [-1.0, -1.0]]]],
        grid=(2, 2),
        k=1,
        num_classes=4,
        variant="localized-single",
    )
    yield case("classes", "a student with three, in its own order", crops, classes=[5, 0, 3])
    yield case(
        "classes-on-a-grid-with-rest",
        "everything at once",
        crops,
        grid=(3, 5),
        k=3,
        num_classes=9,
        classes=[7, 2, 8, 0],
        absent="rest",
        output_size=(3, 2),
        hflip=[False, True],
        vflip=[True, False],
        temperature=2.0,
        legacy_xy_swap=True,
    )


def document() -> str:
    """Return the file: JSON with a line for each field of a case."""
    head = {"schema": SCHEMA, "tolerance": TOLERANCE}
    lines = [f"{json.dumps(name)}: {json.dumps(value)}," for name, value in head.items()]
    blocks = [
        "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in one.items()) + "\n}"
        for one in cases()
    ]
    return "{\n" + "\n".join(lines) + '\n"cases": [\n' + ",\n".join(blocks) + "\n]\n}\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")

"""Draw a photo, its label map, three crops and the targets that they pool, into docs/images/crops.png.

python docs/images/draw_crops.py demo    # the directory that `make demo` made
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

import relabel_store
from relabel_store.torch import LabelPooling

SAMPLE = "coffee"
CROPS = {"#0072b2": (0.3, 0.1, 0.8, 0.7), "#d55e00": (0.6, 0.0, 1.0, 0.3), "#009e73": (0.45, 0.6, 0.9, 0.95)}
SHOWN = 5  # classes of each target


def main(demo: Path) -> None:
    store = relabel_store.open_store(demo / "labels.zarr")
    maps = store.read_rows([store.row_of(SAMPLE)])
    photo = Image.open(next((demo / "photos").glob(f"{SAMPLE}.*"))).convert("RGB")
    boxes = torch.tensor(list(CROPS.values()))
    n = len(boxes)
    targets = LabelPooling(store.num_classes)(
        torch.from_numpy(maps.indices).expand(n, -1, -1, -1),
        torch.from_numpy(maps.values).expand(n, -1, -1, -1),
        boxes,
    )

    figure = Figure(figsize=(12, 7), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplot_mosaic(
        [["photo"] * 3 + ["map"] * 3, ["c0", "t0", "c1", "t1", "c2", "t2"]],
        height_ratios=[1.25, 1],
        width_ratios=[1, 1] * 3,
    )
    axes["photo"].imshow(photo)
    axes["photo"].set_title(f"{SAMPLE}: three crops")
    winners = maps.indices[0, 0]
    frequent, counts = np.unique(winners, return_counts=True)
    ranks = {index: rank for rank, index in enumerate(frequent[np.argsort(-counts)])}
    coloured = np.vectorize(lambda index: min(ranks[index], 11))(winners)
    axes["map"].imshow(coloured, cmap="Set3", vmin=0, vmax=11, extent=(0, photo.width, photo.height, 0))
    axes["map"].set_title("Winning class of each cell, and the same crops")
    for colour, (x0, y0, x1, y1) in CROPS.items():
        for name in ("photo", "map"):
            corner = (x0 * photo.width, y0 * photo.height)
            size = ((x1 - x0) * photo.width, (y1 - y0) * photo.height)
            axes[name].add_patch(
                Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=4, clip_on=False)
            )
    names_of = store.manifest.classes.name_of
    for index, rank in ranks.items():
        if rank < 4:
            row, column = (int(np.median(found)) for found in np.nonzero(winners == index))
            at = (
                (column + 0.5) * photo.width / winners.shape[1],
                (row + 0.5) * photo.height / winners.shape[0],
            )
            axes["map"].text(*at, names_of(int(index)).split(",")[0], ha="center", va="center", fontsize=9)
    for at, (colour, (x0, y0, x1, y1)) in enumerate(CROPS.items()):
        pixels = (x0 * photo.width, y0 * photo.height, x1 * photo.width, y1 * photo.height)
        axes[f"c{at}"].set_title("crop and target", loc="left", fontsize=10)
        axes[f"c{at}"].imshow(photo.crop(tuple(round(edge) for edge in pixels)).resize((224, 224)))
        for spine in axes[f"c{at}"].spines.values():
            spine.set(edgecolor=colour, linewidth=4)
        best = targets[at].topk(SHOWN)
        names = [names_of(int(index)).split(",")[0] for index in best.indices]
        bars = axes[f"t{at}"]
        bars.barh(range(SHOWN), best.values.numpy(), height=0.3, color=colour)
        for place, name in enumerate(names):
            bars.text(0.0, place - 0.2, f"{name}  {best.values[place]:.0%}", va="bottom", fontsize=9)
        bars.set(xlim=(0, 1), ylim=(SHOWN - 0.6, -0.8))
        bars.axis("off")
    for name in ("photo", "map", "c0", "c1", "c2"):
        axes[name].set(xticks=[], yticks=[])
    canvas = figure.canvas
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(200).save(Path(__file__).with_name("crops.png"), optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

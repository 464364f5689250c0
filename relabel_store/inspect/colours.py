"""The colours of classes and of confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def blend(groups: NDArray[np.intp], light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the colour of each group over a grey of ``light`` in [0, 1], one axis more than these."""
    colours = np.array([_rgb(colour) for colour in PALETTE])[groups]
    alphas = np.where(groups == MAX_NAMED, OTHERS_ALPHA, CLASS_ALPHA)[..., None]
    blended: NDArray[np.float64] = alphas * colours + (1 - alphas) * light[..., None]
    return blended


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(value / 255 for value in bytes.fromhex(colour[1:]))


def swatch_colour(group: int) -> tuple[float, float, float]:
    """Return the colour of a group over the grey that the legend has under it."""
    red, green, blue = blend(np.array(group), np.array(SWATCH_LIGHT)).tolist()
    return red, green, blue


def confidence_colours(confidence: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return RGB, one axis more than ``confidence``, on a scale that always runs from 0 to 1."""
    from matplotlib import colormaps

    colours: NDArray[np.float64] = colormaps[CONFIDENCE_COLOURS](confidence.astype(np.float64))
    return colours[..., :3]
